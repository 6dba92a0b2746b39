"""Step 0, the changes to the logits before any filter: bias, allowed mask, and penalties on the history.

The same as samplers/reference/penalties.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from samplers.kernels.fixed_point import widened

PART: tl.constexpr = tl.constexpr(1024)  # tokens, or ids of a history, per program
OPTIONS = {"enable_fp_fusion": False}  # Triton fuses only the operations that are written as fma


class Penalties(NamedTuple):
    """The inputs of step 0 besides logits and parameters; each may be None."""

    bias: torch.Tensor | None  # float32 [R, V], R is 1 or B
    allowed: torch.Tensor | None  # bool [V] or [B, V], or bits in int32 [W] or [B, W]
    history: torch.Tensor | None  # int64 [B, L]; ids outside 0 .. V - 1 are skipped
    history_start: torch.Tensor | None  # int64 [1] or [B], where the generated part begins


class Pointers(NamedTuple):
    """The inputs as the kernel reads them; a stride of 0 means one row for all."""

    bias: Any
    bias_stride: Any
    allowed: Any
    allowed_stride: Any
    occurrences: Any  # int64 [B, V]


@triton.jit
def count_kernel(history, length, history_start, occurrences, vocabulary):
    """Adds 1 to occurrences [B, V] for each id of the history, and 2^32 more for each from history_start on."""
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * PART + tl.arange(0, PART)
    ids = tl.load(history + row * length + i, mask=i < length, other=-1)
    generated = (i >= tl.load(history_start + row)).to(tl.int64)
    is_token = (ids >= 0) & (ids < vocabulary)
    tl.atomic_add(occurrences + row * vocabulary + ids, 1 + (generated << 32), mask=is_token, sem="relaxed")


@triton.jit
def penalised(x, occurrences, repetition, presence, frequency):
    """x after the three penalties; occurrences as `count_kernel` counts them."""
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
    row, ids = tl.program_id(0).to(tl.int64), tl.program_id(1) * PART + tl.arange(0, PART)
    in_row = ids < vocabulary
    logits = widened(tl.load(x + row * stride + ids, mask=in_row, other=0))
    if penalties.bias is not None:
        logits += tl.load(penalties.bias + row * penalties.bias_stride + ids, mask=in_row, other=0)
    if penalties.allowed is not None:
        mask = penalties.allowed + row * penalties.allowed_stride
        allowed = is_allowed(mask, ids, in_row, mask.dtype.element_ty == tl.int32)
        logits = tl.where(allowed, logits, -float("inf"))
    if penalties.occurrences is not None:
        occurrences = tl.load(penalties.occurrences + row * vocabulary + ids, mask=in_row, other=0)
        numbers = table + row * table_stride
        repetition, presence, frequency = tl.load(numbers + 2), tl.load(numbers + 3), tl.load(numbers + 4)
        logits = penalised(logits, occurrences, repetition, presence, frequency)
    tl.store(out + row * vocabulary + ids, logits + 0.0, mask=in_row)


def penalise(x: torch.Tensor, p: Penalties, table: torch.Tensor) -> torch.Tensor:
    """x [B, V] after step 0, as a new float32 tensor. table: the packed parameters, int64 [R, WIDTH]."""
    size, vocabulary = x.shape
    occurrences = None
    if p.history is not None and p.history_start is not None:
        occurrences = count(p.history.contiguous(), p.history_start.expand(size).contiguous(), vocabulary)
    allowed = None if p.allowed is None else p.allowed.contiguous()
    pointers = Pointers(p.bias, stride_of(p.bias), allowed, stride_of(allowed), occurrences)
    floats = table.view(torch.float32)
    out = torch.empty((size, vocabulary), dtype=torch.float32, device=x.device)
    grid = (size, triton.cdiv(vocabulary, PART.value))
    penalise_kernel[grid](x, x.stride(0), out, pointers, floats, stride_of(floats), vocabulary, **OPTIONS)
    return out


def count(history: torch.Tensor, history_start: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Per token, its count in the history plus 2^32 times its count in the generated part: int64 [B, V]."""
    size, length = history.shape
    occurrences = torch.zeros((size, vocabulary), dtype=torch.int64, device=history.device)
    grid = (size, triton.cdiv(max(1, length), PART.value))
    count_kernel[grid](history, length, history_start, occurrences, vocabulary, **OPTIONS)
    return occurrences


def stride_of(rows: torch.Tensor | None) -> int:
    """The stride between rows; 0 if one row serves all."""
    return rows.stride(0) if rows is not None and rows.ndim == 2 and len(rows) > 1 else 0
