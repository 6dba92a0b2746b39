"""Judges draws by the exact definition: no sampler is timed before its draws are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import samplers
from bench.cases import Case
from bench.peers import OURS
from bench.peers.base import SEED, DrawTokens, Peer
from samplers import SamplingParams, textbook
from samplers.reference.filters import FILTERS, Filter

DRAWS = 64  # on a case's rows, by each sampler
STEPS = 32  # draws of each of the small rows, to judge a distribution by
DEVIATIONS = 6  # standard errors that a mean may be off
ROUNDING = 0.02  # nats: a token at the edge of a filter
LOOSER = 0.01  # of a filter's value: float32 sums of 10^5 small terms are no better


def verify(case: Case, draws: Mapping[str, DrawTokens], peers: Mapping[str, Peer]) -> dict[str, str]:
    """Check every sampler on the case's rows, and its distribution on many small ones.

    Returns: the faults of peers, by name; these are not to be timed.
    Raises: RuntimeError naming the sampler and the case, where it is one of ours.
    """
    verify_integers(case, {name: draw for name, draw in draws.items() if name in OURS})
    allowed = [permitted(row, case.params) for row in case.logits.float().numpy()]
    small = replace(case, kind="peaked", vocabulary=min(case.vocabulary, 1000), batch=64, dtype="float32")  # no ties
    p, failed = distribution(small), {}
    for name, draw in draws.items():
        reason = failure(case, draw, allowed, small, peers[name], p)
        if reason and name in OURS:
            raise RuntimeError(f"{name} {reason} ({case}); nothing was measured")
        if reason:
            failed[name] = reason
    return failed


def failure(
    case: Case, draw: DrawTokens, allowed: list[np.ndarray], small: Case, peer: Peer, p: np.ndarray
) -> str | None:
    """The fault of a sampler's draws, if it has one; also an error that it raises."""
    try:
        if not all_permitted(draw, case, allowed):
            return "draws tokens that the filters cut"
        if not distributed(peer(small), p):
            return "draws from another distribution"
    except Exception as error:  # a user's sampler may raise anything
        return f"raises {type(error).__name__}: {error}"
    return None


def verify_integers(case: Case, ours: Mapping[str, DrawTokens]) -> None:
    """Ours must draw the reference's tokens, to the last bit of weight and total."""
    for step in range(2):
        exact, fast = (
            samplers.sample(case.logits, case.params, seed=SEED, position=step, backend=backend)
            for backend in ("reference", "auto")
        )
        for name in ("tokens", "weight", "total", "kept"):
            if not np.array_equal(getattr(exact, name), getattr(fast, name)):
                raise RuntimeError(f"alea and its reference differ in {name} ({case}); nothing was measured")
        for name, draw in ours.items():
            if not np.array_equal(draw(step), exact.tokens):
                raise RuntimeError(f"{name} and the reference differ in tokens ({case}); nothing was measured")


def kept(case: Case) -> int:
    """Tokens that the filters leave, the median over the rows."""
    return int(np.median(samplers.sample(case.logits, case.params, seed=SEED).kept))


def permitted(row: np.ndarray, p: SamplingParams) -> np.ndarray:
    """Logits that may be drawn: those that the filters keep, as they are or a little loosened.

    Logits and not ids, because each peer chooses among equals in another way.
    """
    values: dict[str, Any] = {f.name: loosened(f, getattr(p, f.name)) for f in FILTERS}
    looser = replace(p, **values)
    exact, loose = (samplers.filter_logits(row, q, backend="reference")[0] > -np.inf for q in (p, looser))
    return row[exact | loose]


def loosened(f: Filter, value: float) -> float:
    if f.is_integer:
        return value
    return min(value * (1 + LOOSER), f.off) if f.off else value * (1 - LOOSER)


def all_permitted(draw: DrawTokens, case: Case, allowed: list[np.ndarray]) -> bool:
    rows = case.logits.float().numpy()
    for step in range(-(-DRAWS // case.batch)):
        tokens = np.asarray(draw(step))
        if not all((logits == x[token]).any() for x, token, logits in zip(rows, tokens, allowed, strict=True)):
            return False
    return True


def distribution(case: Case) -> np.ndarray:
    """The distribution of the definition, in float64: probabilities [B, V]."""
    filtered = samplers.filter_logits(case.logits.numpy(), case.params, backend="reference")
    return np.stack([textbook.softmax(row) for row in filtered])


def distributed(draw: DrawTokens, p: np.ndarray) -> bool:
    """Whether the mean surprisal -ln p of drawn tokens is the mean entropy; a greedier or hotter draw's is not."""
    surprisal = -np.log(p, where=p > 0, out=np.full_like(p, -np.inf))  # of a cut token: infinite
    finite = np.where(p > 0, surprisal, 0)
    entropy = (p * finite).sum(-1)
    variance = (p * finite**2).sum(-1) - entropy**2
    rows = np.arange(len(p))
    mean = np.mean([surprisal[rows, np.asarray(draw(step))] for step in range(STEPS)])
    error = np.sqrt(variance.mean() / (STEPS * len(p)))
    return bool(abs(mean - entropy.mean()) <= DEVIATIONS * error + ROUNDING)
