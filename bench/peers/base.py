"""The one interface of all peers: prepare a case, then draw one token a row at every call, as users would."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from bench.cases import Case
from samplers import SamplingParams
from samplers.reference.filters import stages

SEED = 1234

DrawTokens = Callable[[int], Any]  # step -> token ids [B], as a tensor, an array or a list
Peer = Callable[[Case], DrawTokens]

DrawOnGpu = Callable[[], Tensor]  # -> token ids [B], on the GPU
GpuPeer = Callable[[Case, Tensor, Tensor], DrawOnGpu]  # a case, its rows and an int64 position, both on the GPU


class Unavailable(Exception):
    """A peer can't run here, or lacks a filter."""


def refuse_others(params: SamplingParams, filters: Collection[str]) -> None:
    """Raises: Unavailable naming the filters of params that are not among those of a peer."""
    missing = [f.name for f, _ in stages(params) if f.name not in filters]
    if missing:
        raise Unavailable(f"it has no {', no '.join(missing)}")
