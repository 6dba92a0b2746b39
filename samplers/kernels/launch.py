"""The launches of a batch.

A batch takes up to three launches. `maxima_kernel` and `weigh_kernel` read the rows, with many programs a row if there
are few rows. `choose_kernel` takes one program a row; it reads only what the first filter may keep. A batch without
filters needs no third launch: the last program of a row to finish weighing draws. A batch in which every row has a
top-k needs no second one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from samplers.kernels import one_read
from samplers.kernels.direct import OPTIONS, Kernel
from samplers.kernels.programs import (
    choose_kernel,
    filtered_kernel,
    floors_kernel,
    maxima_kernel,
    one_read_kernel,
    weigh_kernel,
    weights_kernel,
)
from samplers.kernels.ways import CHOICE_REGISTERS, CHOICE_WARPS, Division, division

FILTERED_TILE = 1024  # logits of a program that writes filtered logits
BLOCK = 128  # weights of a program, one a thread


class Number(NamedTuple):
    """A seed, position or stream: one for all rows, or a tensor."""

    tensor: torch.Tensor | None  # int64
    value: int  # the number; the step in the tensor


class Rows(NamedTuple):
    """The inputs of a batch."""

    x: torch.Tensor  # [B, V], the logits of a row adjacent in memory
    table: torch.Tensor  # int64 [R, WIDTH], parameters
    slots: torch.Tensor | None  # int64 [B], each row's place in the table; None: its own number, or 0 if R = 1
    seed: Number
    position: Number
    stream: Number
    flags: int  # of programs.py
    has_totals: bool  # whether any row needs its total mass
    has_filters: bool


class Output:
    """The results of a batch: views of one tensor, int64 [5 B], as `write` fills it.

    tokens, weight, total: int64 [B]. kept: int32 [B]. logprobs: float32 [B].
    """

    def __init__(self, out: torch.Tensor, size: int) -> None:
        shape, step = (size,), (1,)
        self.tokens = out.as_strided(shape, step, 0)  # twice as fast as unbind and slices
        self.weight = out.as_strided(shape, step, size)
        self.total = out.as_strided(shape, step, 2 * size)
        self.kept = out.view(torch.int32).as_strided(shape, step, 6 * size)
        self._floats = out.view(torch.float32)
        self.logprobs = self._floats.as_strided(shape, step, 7 * size)

    @property
    def entropy(self) -> torch.Tensor:
        """float32 [B]; only with details."""
        size = len(self.tokens)
        return self._floats[8 * size : 9 * size]

    @property
    def m(self) -> torch.Tensor:
        """The greatest logit of each row: float32 [B]."""
        return self._floats[9 * len(self.tokens) :]


MAXIMA, WEIGH = Kernel(maxima_kernel), Kernel(weigh_kernel)
ONE_READ, CHOOSE = Kernel(one_read_kernel), Kernel(choose_kernel, CHOICE_REGISTERS)


class Launched(NamedTuple):
    """The results of a batch, and the memory in which its kernels left the limits of the kept tokens, if asked for."""

    output: Output
    scratch: torch.Tensor
    division: Division


def sample(rows: Rows, details: bool, with_limits: bool = False) -> Launched:
    """Steps 1 to 6, with entropy if details."""
    x, device = rows.x, rows.x.device
    size, vocabulary = x.shape
    reads_once = rows.has_totals and one_read.is_used(device, x.dtype)
    divided = division(size, vocabulary, device, reads_once)
    (warps, steps), tiles, parts, words = divided
    scratch = torch.empty(size * words, dtype=torch.int64, device=device)
    out = torch.empty(5 * size, dtype=torch.int64, device=device)
    if size:
        stride, slots = x.stride(0), rows.slots
        (seeds, seed), (positions, position), (streams, stream) = rows.seed, rows.position, rows.stream
        key = (device.index, x.dtype, x.data_ptr() % 16, stride % 16, vocabulary % 16, warps, steps)
        table = (rows.table, int(len(rows.table) > 1), slots)
        numbers = (seeds, seed, positions, position, streams, stream, rows.flags)
        inputs = (x, stride, vocabulary, *table, *numbers, scratch, words)
        inputs_key = (key, slots is None, seeds is None, positions is None, streams is None, details)
        chooses = rows.has_filters or with_limits
        constants = (details, not chooses, warps, steps)
        if reads_once:
            arguments = (*inputs, parts, out, size, one_read.counters(device, size), *constants)
            ONE_READ.launch((inputs_key, chooses), (size * parts, 1, 1), warps, *arguments)
        else:
            MAXIMA.launch(key, (size, parts, 1), warps, x, stride, vocabulary, scratch, words, tiles, warps, steps)
            if rows.has_totals:
                WEIGH.launch((inputs_key, chooses), (size, parts, 1), warps, *inputs, tiles, out, size, *constants)
        if chooses:
            constants = (details, with_limits, CHOICE_WARPS, steps)
            CHOOSE.launch((inputs_key, with_limits), (size, 1, 1), CHOICE_WARPS, *inputs, parts, out, size, *constants)
    return Launched(Output(out, size), scratch, divided)


def filter_logits(rows: Rows) -> tuple[torch.Tensor, Output]:
    """Steps 1 to 4: x / T if kept, else -inf, float32 [B, V]; and the output of the draw."""
    size, vocabulary = rows.x.shape
    out, scratch, divided = sample(rows, details=False, with_limits=True)
    filtered = torch.empty((size, vocabulary), dtype=torch.float32, device=rows.x.device)
    if size:
        filtered_kernel[(size, triton.cdiv(vocabulary, FILTERED_TILE))](
            rows.x,
            rows.x.stride(0),
            vocabulary,
            rows.table,
            int(len(rows.table) > 1),
            rows.slots,
            scratch,
            divided.words,
            out.tokens,
            size,
            filtered,
            FILTERED_TILE,
            divided.way.steps,
            **OPTIONS,
        )
    return filtered, out


def weights(d: torch.Tensor) -> torch.Tensor:
    """As `samplers.reference.fixed_point.weights`: float32 d [N] in [-60, 0] -> int64 [N]."""
    return elementwise(weights_kernel, d)


def floors(x: torch.Tensor) -> torch.Tensor:
    """float32 x [N] in 0 .. 2^40, rounded down to int64 [N]."""
    return elementwise(floors_kernel, x)


def elementwise(kernel: Any, x: torch.Tensor) -> torch.Tensor:
    w = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    kernel[(triton.cdiv(len(x), BLOCK),)](x, w, len(x), BLOCK, **OPTIONS)
    return w
