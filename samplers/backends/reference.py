"""The NumPy backend: runs the exact definition of `samplers/reference/` row by row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from samplers.backends.contract import Columns, Filtered
from samplers.batch import Batch
from samplers.reference.penalties import penalise
from samplers.reference.philox import random_bits
from samplers.reference.sampler import Draw, filter_row, is_valid, model_logprob, sample_row

TYPES = (np.int64, np.int64, np.int64, np.int32, np.float32, np.float32)  # one per field of Draw


def sample(batch: Batch, details: bool) -> Columns:
    refuse_flushing()
    batch = batch.by_row
    bits = random_bits(batch.host("seed"), batch.host("position"), batch.host("stream"))
    draws = [sample_row(penalised(batch, row), batch.params.row(row), int(bits[row])) for row in range(batch.size)]
    fields = zip(*draws, strict=True) if draws else [()] * len(TYPES)
    tokens, weight, total, kept, logprobs, entropy = map(np.array, fields, TYPES)
    all_valid = all(draw.token >= 0 for draw in draws)
    if not details:
        return Columns(tokens, weight, total, kept, logprobs, None, None, all_valid)
    return Columns(tokens, weight, total, kept, logprobs, model_logprobs(batch, draws), entropy, all_valid)


def model_logprobs(batch: Batch, draws: list[Draw]) -> NDArray[np.float32]:
    logprobs = [model_logprob(batch.x[i], d.token) if d.token >= 0 else math.nan for i, d in enumerate(draws)]
    with np.errstate(over="ignore"):  # gives -inf for logits as far apart as float32 allows
        return np.array(logprobs, np.float32)


def filter_logits(batch: Batch) -> Filtered:
    batch = batch.by_row
    refuse_flushing()
    filtered = np.full((batch.size, batch.vocabulary), -np.inf, np.float32)
    valid = np.zeros(batch.size, bool)
    for row in range(batch.size):
        x = penalised(batch, row)
        valid[row] = is_valid(x)
        if valid[row]:
            filtered[row] = filter_row(x, batch.params.row(row))
    return filtered, valid


def penalised(batch: Batch, row: int) -> NDArray[np.float32]:
    """One row after step 0: float32 [V]."""
    p = batch.params.row(row)
    return penalise(
        batch.x[row],
        p.logit_bias,
        mask_of(batch, row),
        batch.history_rows[row] if batch.history_rows is not None and p.uses_history else None,
        int(batch.host("history_start")[row]),
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
    )


def mask_of(batch: Batch, row: int) -> NDArray[np.bool_ | np.int32] | None:
    """What a row may draw: bool [V], or bits in int32 [W]; None for all."""
    return None if batch.mask is None else batch.mask[row if len(batch.mask) > 1 else 0]


def refuse_flushing() -> None:
    """The definition keeps subnormals. NumPy flushes them if torch set this thread to do so, and it can't undo that."""
    if np.float32(2.0**-126) * np.float32(0.5) == 0:
        raise RuntimeError(
            "the reference must run without flushing subnormals, and this thread flushes them: call "
            "torch.set_flush_denormal(False), or use backend='native', which sets the mode itself"
        )
