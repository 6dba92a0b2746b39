"""From a row of logits to a token: the steps of docs/definition.md in order."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from samplers.reference.draw import draw
from samplers.reference.filters import Parameters, stages
from samplers.reference.fixed_point import ONE, distances, weights
from samplers.reference.kept import Kept

GREATEST = np.finfo(np.float32).max


class Draw(NamedTuple):
    """The result of one row; -1, zeros and NaN if it is invalid."""

    token: int = -1
    weight: int = 0
    total: int = 0
    kept: int = 0
    logprob: float = math.nan
    entropy: float = math.nan


def is_valid(x: np.ndarray) -> bool:
    """Step 1: no NaN, no +inf, something above -inf."""
    return bool(np.isfinite(x.max()))  # the maximum of a row with a NaN is NaN


def weigh(x: np.ndarray, temperature: float) -> Kept:
    """Steps 2 and 3: every token above -inf with its mass; at T = 0 only the first maximum. x float32 [V]."""
    ids = np.flatnonzero(x > -np.inf)
    if temperature == 0:
        ids = np.array([np.argmax(x)])
    d = distances(x[ids], x.max(), temperature or 1.0)
    return Kept(ids, x[ids], d, weights(d))


def keep(x: np.ndarray, p: Parameters) -> Kept:
    """Steps 2 to 4: the final distribution of a valid row x float32 [V] under p."""
    kept = weigh(x, p.temperature)
    for f, value in stages(p):
        kept = kept.where(f.mask(kept, value, p.min_tokens_to_keep))
    return kept


def sample_row(x: np.ndarray, p: Parameters, bits: int) -> Draw:
    """Steps 1 to 6 for one row x float32 [V], after `penalise`, with 64 random bits."""
    if not is_valid(x):
        return Draw()
    kept = keep(x, p)
    chosen = draw(kept.w, bits)
    weight = int(kept.w[chosen])
    logprob = math.log(weight / kept.total)
    return Draw(int(kept.ids[chosen]), weight, kept.total, len(kept.ids), logprob, entropy(kept))


def filter_row(x: np.ndarray, p: Parameters) -> np.ndarray:
    """x / T for kept tokens, -inf for all others: float32 [V] from a valid row x float32 [V]."""
    kept = keep(x, p)
    with np.errstate(over="ignore"):
        scaled = kept.x / np.float32(p.temperature or 1.0)
    filtered = np.full(len(x), -np.inf, np.float32)
    filtered[kept.ids] = scaled.clip(-GREATEST, GREATEST)
    return filtered


def entropy(kept: Kept) -> float:
    """In nats (step 6)."""
    return math.log(kept.total / ONE) - float(kept.w @ kept.d.astype(np.float64)) / kept.total


def model_logprob(x: np.ndarray, token: int) -> float:
    """ln of the token's probability under softmax of the untouched logits x float32 [V] (step 6).

    NaN if they are invalid, even if bias or mask made the row valid.
    """
    if not is_valid(x):
        return math.nan
    return float(x[token]) - float(x.max()) - math.log(weigh(x, 1.0).total / ONE)
