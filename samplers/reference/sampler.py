"""From a row of logits to a token: the steps of docs/definition.md in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from samplers.reference.cutoffs import epsilon, eta, min_p
from samplers.reference.draw import draw
from samplers.reference.fixed_point import ONE, distances, weights
from samplers.reference.penalties import penalise
from samplers.reference.philox import random_bits
from samplers.reference.top_k import top_k
from samplers.reference.top_p import top_p
from samplers.reference.typical import typical

GREATEST = np.finfo(np.float32).max
COLUMNS = (np.int64, np.int64, np.int64, np.int32, np.float32, np.float32)  # of Draw


class Kept(NamedTuple):
    """The tokens that are left, in id order."""

    ids: np.ndarray  # int64 [K]
    x: np.ndarray  # float32 [K], logits
    d: np.ndarray  # float32 [K], (x - max) / T
    w: np.ndarray  # int64 [K], mass

    def where(self, mask: np.ndarray) -> Kept:
        return Kept(self.ids[mask], self.x[mask], self.d[mask], self.w[mask])


class Draw(NamedTuple):
    """What came of one row; -1, zeros and NaN where it was invalid."""

    token: int = -1
    weight: int = 0
    total: int = 0
    kept: int = 0
    logprob: float = math.nan
    entropy: float = math.nan


def is_valid(x: np.ndarray) -> bool:
    """Step 1: no NaN, no +inf, something above -inf."""
    return bool(np.isfinite(x.max()))  # the maximum of a row with a NaN is NaN


def stages(p: Any) -> Iterator[tuple[str, Callable[[Kept], np.ndarray]]]:
    """Step 4: the filters that p (a SamplingParams) switches on, in their order, each a mask of what it keeps."""
    n = p.min_tokens_to_keep
    if p.top_k > 0:
        yield "top_k", lambda c: top_k(c.x, p.top_k, n)
    if p.top_p < 1:
        yield "top_p", lambda c: top_p(c.x, c.w, p.top_p, n)
    if p.min_p > 0:
        yield "min_p", lambda c: min_p(c.x, c.w, p.min_p, n)
    if p.typical_p < 1:
        yield "typical_p", lambda c: typical(c.d, c.w, p.typical_p, n)
    if p.epsilon_cutoff > 0:
        yield "epsilon_cutoff", lambda c: epsilon(c.x, c.w, p.epsilon_cutoff, n)
    if p.eta_cutoff > 0:
        yield "eta_cutoff", lambda c: eta(c.x, c.d, c.w, p.eta_cutoff, n)


def weigh(x: np.ndarray, temperature: float) -> Kept:
    """Steps 2 and 3: every token above -inf with its mass; at T = 0 the first maximum alone. x float32 [V]."""
    ids = np.flatnonzero(x > -np.inf)
    if temperature == 0:
        ids = np.array([np.argmax(x)])
    d = distances(x[ids], x.max(), temperature or 1.0)
    return Kept(ids, x[ids], d, weights(d))


def keep(x: np.ndarray, p: Any) -> Kept:
    """Steps 2 to 4: the final distribution of a valid row x float32 [V] under p."""
    candidates = weigh(x, p.temperature)
    if p.temperature > 0:
        for _, mask in stages(p):
            candidates = candidates.where(mask(candidates))
    return candidates


def sample_row(x: np.ndarray, p: Any, bits: int) -> Draw:
    """Steps 1 to 6 for one row x float32 [V] (after `penalise`) with 64 random bits."""
    if not is_valid(x):
        return Draw()
    c = keep(x, p)
    chosen, total = draw(c.w, bits), int(c.w.sum())
    weight = int(c.w[chosen])
    entropy = math.log(total / ONE) - float(c.w @ c.d.astype(np.float64)) / total
    return Draw(int(c.ids[chosen]), weight, total, len(c.ids), math.log(weight / total), entropy)


def model_logprob(x: np.ndarray, token: int) -> float:
    """ln of the token's probability under softmax of the untouched logits x float32 [V] (step 6).

    NaN where they are invalid, though bias or mask made a valid row of them.
    """
    if not is_valid(x):
        return math.nan
    m = x.max()
    total = int(weigh(x, 1.0).w.sum())
    return float(x[token]) - float(m) - math.log(total / ONE)


def refuse_flushing() -> None:
    """The definition flushes no subnormals; NumPy does where the thread was told so, and can't be told otherwise."""
    if np.float32(2.0**-126) * np.float32(0.5) == 0:
        raise RuntimeError(
            "the reference must run without flushing subnormals, and this thread flushes them: call "
            "torch.set_flush_denormal(False), or use backend='native', which sets the mode itself"
        )


def penalised(batch: Any, row: int) -> np.ndarray:
    """Step 0 for one row of a batch (a `samplers.batch.Batch`): float32 [V]."""
    p = batch.params.row(row)
    return penalise(
        batch.x[row],
        p.logit_bias,
        None if batch.mask is None else batch.mask[row],
        batch.history_rows[row] if batch.history_rows is not None and p.uses_history else None,
        int(batch.host("history_start")[row]),
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
    )


def sample(batch: Any, details: bool) -> tuple[Any, ...]:
    """Steps 0 to 6 for each row of a batch (a `samplers.batch.Batch`).

    Returns tokens, weight, total, kept, logprobs, model_logprobs, entropy, each [B], the last two None without
    details; and whether all rows are valid.
    """
    refuse_flushing()
    bits = random_bits(batch.host("seed"), batch.host("position"), batch.host("stream"))
    draws = [sample_row(penalised(batch, row), batch.params.row(row), int(bits[row])) for row in range(batch.size)]
    columns = zip(*draws, strict=True) if draws else [()] * len(COLUMNS)
    *numbers, entropy = (np.array(column, dtype) for column, dtype in zip(columns, COLUMNS, strict=True))
    all_valid = all(draw.token >= 0 for draw in draws)
    if not details:
        return *numbers, None, None, all_valid
    model = [model_logprob(batch.x[i], d.token) if d.token >= 0 else math.nan for i, d in enumerate(draws)]
    with np.errstate(over="ignore"):  # -inf, where the logits are as far apart as float32 goes
        return *numbers, np.array(model, np.float32), entropy, all_valid


def filter_logits(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """x / T where kept, -inf elsewhere: float32 [B, V]; and which rows are valid: bool [B]."""
    refuse_flushing()
    filtered = np.full(batch.x.shape, -np.inf, np.float32)
    valid = np.zeros(batch.size, bool)
    for row in range(batch.size):
        x, p = penalised(batch, row), batch.params.row(row)
        valid[row] = is_valid(x)
        if valid[row]:
            kept = keep(x, p)
            with np.errstate(over="ignore"):
                scaled = kept.x / np.float32(p.temperature or 1.0)
            filtered[row, kept.ids] = scaled.clip(-GREATEST, GREATEST)
    return filtered, valid
