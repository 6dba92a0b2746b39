"""The requests of a batch by slot: their parameters, seeds and streams as `samplers.sample` takes them.

In vLLM's V1 runner a slot is a row of the batch, and requests move between rows. In V2 a request keeps its slot, and
each step names the slots of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samplers.batch import Array, on_device
from samplers.params import PLAIN, PackedParams, pack
from samplers.vllm.request import Request, request_of

FIRST_STREAM = 1 << 62  # of requests without a seed: far from the streams that users choose
STREAMS_OF_REPLICA = 1 << 48


class Slot(NamedTuple):
    """A request in the batch. output: its tokens so far, a list that vLLM goes on to fill."""

    request: Request
    seed: int
    stream: int
    output: Sequence[int]


EMPTY = Slot(Request(PLAIN), 0, 0, ())


class Columns(NamedTuple):
    """The arguments of `samplers.sample` for all slots, on the device of the logits.

    min_p: what acts before the other filters, or None where no request asks for it. needs_min_p: bool [slots].
    """

    params: PackedParams
    min_p: PackedParams | None
    needs_min_p: NDArray[np.bool_]
    seed: Array
    stream: Array

    def of_rows(self, slots: torch.Tensor, on_host: NDArray[np.int32]) -> Columns:
        """For a batch whose row i is the request in slots[i], int [B] on the device; on_host: the same slots."""
        min_p = self.min_p if self.needs_min_p[on_host].any() else None
        return self._replace(params=self.params.rows(slots), min_p=min_p and min_p.rows(slots))


class Slots:
    """seed: of requests without one, which get a stream of their own. replica: this engine's number among several."""

    def __init__(self, device: torch.device, seed: int, replica: int = 0) -> None:
        self.device, self.seed = device, seed
        self.streams: Iterator[int] = count(FIRST_STREAM + replica * STREAMS_OF_REPLICA)
        self.slots: dict[int, Slot] = {}
        self.known: Columns | None = None

    def __len__(self) -> int:
        return len(self.slots)

    def put(self, index: int, asked: Any, output: Sequence[int] = ()) -> None:
        """A request enters a slot. Where several GPUs share a model, each counts the same streams.

        vLLM names no request: one without a seed that leaves the batch and comes back, preempted, has another stream.
        """
        request = request_of(asked)
        seed, stream = request.seed, request.stream
        if stream is None:
            stream = next(self.streams) if seed is None else 0
        self.slots[index] = Slot(request, self.seed if seed is None else seed, stream, output)
        self.known = None

    def update(self, update: Any) -> None:
        """What changed in the batch, a BatchUpdate of V1: requests removed, then added, then moved."""
        for index in update.removed:
            self.slots.pop(index, None)
        for index, asked, _, output in update.added:
            self.put(index, asked, output)
        for source, target, direction in update.moved:
            moved, displaced = self.slots.pop(source, None), self.slots.pop(target, None)
            if moved is not None:
                self.slots[target] = moved
            if displaced is not None and direction.name == "SWAP":
                self.slots[source] = displaced
        self.known = None

    def columns(self, size: int) -> Columns:
        """Of the first `size` slots; made again only after a change."""
        if self.known is None or len(self.known.needs_min_p) != size:
            slots = [self.slots.get(index, EMPTY) for index in range(size)]
            first = [slot.request.min_p for slot in slots]
            self.known = Columns(
                pack([slot.request.params for slot in slots]),
                pack([p or PLAIN for p in first]) if any(first) else None,
                np.array([p is not None for p in first], bool),
                self.upload([slot.seed for slot in slots]),
                self.upload([slot.stream for slot in slots]),
            )
        return self.known

    def lengths(self, size: int) -> Array:
        """How many tokens each request has, its position: int64 [size]."""
        return self.upload([len(self.slots[index].output) for index in range(size)])

    def upload(self, numbers: list[int]) -> Array:
        column = np.array(numbers, np.int64)
        return column if self.device.type == "cpu" else on_device(column, self.device)
