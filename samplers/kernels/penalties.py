"""Step 0, what changes logits before any filter: bias, the allowed mask, and the penalties on what was said.

The same as samplers/reference/penalties.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from samplers.kernels.fixed_point import widened

PART: tl.constexpr = tl.constexpr(1024)  # tokens, or ids of a history, that one program sees


class Penalties(NamedTuple):
    repetition: tl.tensor
    presence: tl.tensor
    frequency: tl.tensor


@triton.jit
def count_kernel(history, length, history_start, occurrences, vocabulary):
    """Adds to occurrences [B, V] 1 for each time an id was said, and 2^32 for each time from history_start on."""
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * PART + tl.arange(0, PART)
    ids = tl.load(history + row * length + i, mask=i < length, other=-1)
    generated = (i >= tl.load(history_start + row)).to(tl.int64)
    there = (ids >= 0) & (ids < vocabulary)
    tl.atomic_add(occurrences + row * vocabulary + ids, 1 + (generated << 32), mask=there, sem="relaxed")


@triton.jit
def penalised(x, said, generated, p):
    """x after the penalties; said, generated: how often each token occurs in all the history, and in the latter."""
    repeated = tl.where(x < 0, x * p.repetition, tl.div_rn(x, p.repetition + tl.zeros_like(x)))
    x = tl.where(said > 0, repeated, x)
    often = (generated.to(tl.float64) * p.frequency.to(tl.float64)).to(tl.float32)
    return tl.where(generated > 0, (x - often) - p.presence, x)


@triton.jit
def penalise_kernel(
    x, stride, out, bias, bias_stride, allowed, allowed_stride, occurrences, table, table_stride, vocabulary
):  # fmt: skip
    """out float32 [B, V]: x after bias, mask and penalties, in that order; each of the three may be None."""
    row, ids = tl.program_id(0).to(tl.int64), tl.program_id(1) * PART + tl.arange(0, PART)
    there = ids < vocabulary
    logits = widened(tl.load(x + row * stride + ids, mask=there, other=0))
    if bias is not None:
        logits += tl.load(bias + row * bias_stride + ids, mask=there, other=0)
    if allowed is not None:
        may = tl.load(allowed + row * allowed_stride + ids, mask=there, other=0)
        logits = tl.where(may != 0, logits, -float("inf"))
    if occurrences is not None:
        times = tl.load(occurrences + row * vocabulary + ids, mask=there, other=0)
        numbers = table + row * table_stride
        p = Penalties(tl.load(numbers + 2), tl.load(numbers + 3), tl.load(numbers + 4))
        logits = penalised(logits, times, times >> 32, p)
    tl.store(out + row * vocabulary + ids, logits + 0.0, mask=there)


def penalised_rows(batch: Any, x: torch.Tensor, table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """x itself where nothing changes it, else a float32 copy after step 0."""
    packed, (size, vocabulary) = batch.params, x.shape
    history = batch.tensor("history", device) if packed.uses_history else None
    biased = packed.greatest_biased >= 0
    if size == 0 or (history is None and not biased and batch.allowed is None):
        return x
    bias = biases(packed, vocabulary, device) if biased else None
    allowed = None if batch.allowed is None else batch.tensor("allowed", device).contiguous()
    occurrences = None
    if history is not None:
        occurrences = torch.zeros((size, vocabulary), dtype=torch.int64, device=device)
        start = batch.tensor("history_start", device).expand(size).contiguous()
        parts = triton.cdiv(max(1, history.shape[1]), PART.value)
        count_kernel[(size, parts)](
            history.contiguous(), history.shape[1], start, occurrences, vocabulary, enable_fp_fusion=False
        )
    out = torch.empty((size, vocabulary), dtype=torch.float32, device=device)
    penalise_kernel[(size, triton.cdiv(vocabulary, PART.value))](
        x,
        x.stride(0),
        out,
        bias,
        stride_of(bias),
        allowed,
        stride_of(allowed),
        occurrences,
        table.view(torch.float32),
        table.stride(0) * 2 if len(table) > 1 else 0,
        vocabulary,
        enable_fp_fusion=False,
    )
    return out


def biases(packed: Any, vocabulary: int, device: torch.device) -> torch.Tensor:
    """What logit_bias adds, float32 [R, V]; kept with the parameters, for the next step."""
    key = f"triton biases {vocabulary} {device}"
    if key not in packed.layouts:
        bias = torch.zeros((len(packed.rows), vocabulary))
        for row, p in zip(bias, packed.rows, strict=True):
            if p.logit_bias:
                row[list(p.logit_bias)] = torch.tensor(list(p.logit_bias.values()), dtype=torch.float32)
        packed.layouts[key] = bias.to(device, non_blocking=True)
    return packed.layouts[key]


def stride_of(rows: torch.Tensor | None) -> int:
    """From row to row; 0 where one row is for all."""
    return rows.stride(0) if rows is not None and rows.ndim == 2 and len(rows) > 1 else 0
