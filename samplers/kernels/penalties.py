"""Step 0, the changes to the logits before any filter: bias, allowed mask, and penalties on the history.

The same as samplers/reference/penalties.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from samplers.kernels.direct import OPTIONS
from samplers.kernels.fixed_point import widened

PART: tl.constexpr = tl.constexpr(1024)  # tokens of a program, and ids of a history that it reads at once


class Penalties(NamedTuple):
    """The inputs of step 0 besides logits and parameters; each may be None."""

    bias: torch.Tensor | None  # float32 [R, V], R is 1 or B
    allowed: torch.Tensor | None  # bool [V] or [B, V], or bits in int32 [W] or [B, W]
    history: torch.Tensor | None  # int64 [B, L]; ids outside 0 .. V - 1 are skipped
    history_start: torch.Tensor | int  # int64 [1] or [B], or an int: where the generated part begins
    slots: torch.Tensor | None  # int64 [B], each row's place among biases and parameters; None: its own, or 0 if R = 1


class Pointers(NamedTuple):
    """The inputs as the kernel reads them; a stride of 0 means one row for all."""

    bias: Any
    bias_stride: Any
    allowed: Any
    allowed_stride: Any
    history: Any
    length: Any
    starts: Any  # a tensor, or None for `start`
    start: Any  # the number; the step in the tensor
    slots: Any
    occurrences: Any  # int64 [B, V], uninitialised


@triton.jit
def count(penalties, row, first, vocabulary):
    """How often each of PART tokens occurs in the history, plus 2^32 times from its start on.

    Each program counts its own tokens, so nothing must be cleared before the launch.
    """
    own = penalties.occurrences + row * vocabulary
    i = first + tl.arange(0, PART)
    start = penalties.start
    if penalties.starts is not None:
        start = tl.load(penalties.starts + row * penalties.start)
    tl.store(own + i, tl.zeros([PART], tl.int64), mask=i < vocabulary)
    tl.debug_barrier()
    for begin in range(0, penalties.length, PART):
        place = begin + tl.arange(0, PART)
        ids = tl.load(penalties.history + row * penalties.length + place, mask=place < penalties.length, other=-1)
        is_mine = (ids >= first) & (ids < tl.minimum(first + PART, vocabulary))
        amount = 1 + ((place >= start).to(tl.int64) << 32)
        tl.atomic_add(own + ids, amount, mask=is_mine, sem="relaxed", scope="cta")
    tl.debug_barrier()
    return tl.load(own + i, mask=i < vocabulary, other=0)


@triton.jit
def penalised(x, occurrences, repetition, presence, frequency):
    """x after the three penalties; occurrences as `count` counts them."""
    generated = occurrences >> 32
    repeated = tl.where(x < 0, x * repetition, tl.div_rn(x, repetition + tl.zeros_like(x)))
    x = tl.where(occurrences > 0, repeated, x)
    frequent = (generated.to(tl.float64) * frequency.to(tl.float64)).to(tl.float32)
    return tl.where(generated > 0, (x - frequent) - presence, x)


@triton.jit
def is_allowed(mask, ids, in_row, has_bits: tl.constexpr):
    """Whether a row's mask has a token: one value for each, or bit v mod 32 of word v div 32."""
    values = tl.load(mask + (ids // 32 if has_bits else ids), mask=in_row, other=0)
    return ((values >> ids % 32) & 1 if has_bits else values) != 0


@triton.jit
def penalise_kernel(x, stride, out, penalties, table, table_stride, vocabulary):
    """out float32 [B, V]: x after bias, mask and penalties, in that order. Grid (B, parts)."""
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * PART
    slot = row
    if penalties.slots is not None:
        slot = tl.load(penalties.slots + row)
    ids = first + tl.arange(0, PART)
    in_row = ids < vocabulary
    logits = widened(tl.load(x + row * stride + ids, mask=in_row, other=0))
    if penalties.bias is not None:
        logits += tl.load(penalties.bias + slot * penalties.bias_stride + ids, mask=in_row, other=0)
    if penalties.allowed is not None:
        mask = penalties.allowed + row * penalties.allowed_stride
        allowed = is_allowed(mask, ids, in_row, mask.dtype.element_ty == tl.int32)
        logits = tl.where(allowed, logits, -float("inf"))
    if penalties.history is not None:
        numbers = table + slot * table_stride
        repetition, presence, frequency = tl.load(numbers + 2), tl.load(numbers + 3), tl.load(numbers + 4)
        occurrences = count(penalties, row, first, vocabulary)
        logits = penalised(logits, occurrences, repetition, presence, frequency)
    tl.store(out + row * vocabulary + ids, logits + 0.0, mask=in_row)


def penalise(x: torch.Tensor, p: Penalties, table: torch.Tensor) -> torch.Tensor:
    """x [B, V] after step 0, as a new float32 tensor. table: the packed parameters, int64 [R, WIDTH]."""
    size, vocabulary = x.shape
    history, occurrences, starts, start = None, None, None, 0
    if p.history is not None:
        history = p.history.contiguous()
        occurrences = torch.empty((size, vocabulary), dtype=torch.int64, device=x.device)
        start = p.history_start if isinstance(p.history_start, int) else int(len(p.history_start) > 1)
        starts = None if isinstance(p.history_start, int) else p.history_start
    allowed = None if p.allowed is None else p.allowed.contiguous()
    length = 0 if history is None else history.shape[1]
    pointers = Pointers(
        p.bias, stride_of(p.bias), allowed, stride_of(allowed), history, length, starts, start, p.slots, occurrences
    )
    floats = table.view(torch.float32)
    out = torch.empty((size, vocabulary), dtype=torch.float32, device=x.device)
    grid = (size, triton.cdiv(vocabulary, PART.value))
    penalise_kernel[grid](x, x.stride(0), out, pointers, floats, stride_of(floats), vocabulary, **OPTIONS)
    return out


def stride_of(rows: torch.Tensor | None) -> int:
    """The stride between rows; 0 if one row serves all."""
    return rows.stride(0) if rows is not None and rows.ndim == 2 and len(rows) > 1 else 0
