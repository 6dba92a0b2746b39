"""Nothing is timed that is not right: every contestant's draws are held against the exact definition first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

import samplers
from bench.peers import OURS, SEED, Contestant, Draw
from bench.rows import Case
from samplers import SamplingParams, textbook

DRAWS = 64  # on a case's own rows, by each contestant
STEPS = 32  # draws of each of the small rows, to judge a distribution by
DEVIATIONS = 6  # standard errors that a mean may be off
ROUNDING = 0.02  # nats: a token at the edge of a filter
LOOSER = 0.01  # of a filter's value: float32 sums of 10^5 small terms are no better


def verify(case: Case, draws: Mapping[str, Draw], contestants: Mapping[str, Contestant]) -> dict[str, str]:
    """Check every contestant on the case's rows, and its distribution on many small ones.

    Returns: what peers failed, by name; they are not to be timed.
    Raises: RuntimeError naming the contestant and the case, where it is one of ours.
    """
    verify_integers(case, {name: draw for name, draw in draws.items() if name in OURS})
    allowed = [permitted(row, case.params) for row in case.logits.float().numpy()]
    small = replace(case, kind="peaked", vocabulary=min(case.vocabulary, 1000), batch=64, dtype="float32")  # no ties
    p, failed = distribution(small), {}
    for name, draw in draws.items():
        reason = failure(case, draw, allowed, small, contestants[name], p)
        if reason and name in OURS:
            raise RuntimeError(f"{name} {reason} ({case}); nothing was measured")
        if reason:
            failed[name] = reason
    return failed


def failure(
    case: Case, draw: Draw, allowed: list[np.ndarray], small: Case, contestant: Contestant, p: np.ndarray
) -> str | None:
    """What is wrong with a contestant's draws, if anything; also an error that it raises."""
    try:
        if not all_permitted(draw, case, allowed):
            return "draws tokens that the filters cut"
        if not distributed(contestant(small), p):
            return "draws from another distribution"
    except Exception as error:  # a user's sampler may raise anything
        return f"raises {type(error).__name__}: {error}"
    return None


def verify_integers(case: Case, ours: Mapping[str, Draw]) -> None:
    """Ours draw what the reference draws, to the last bit of weight and total."""
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
    """Logits that may be drawn: those kept by the filters, exactly taken or a little loosened.

    Logits and not ids, because each peer has its own choice among equals.
    """
    loosened = replace(
        p,
        top_p=min(p.top_p * (1 + LOOSER), 1.0),
        min_p=p.min_p * (1 - LOOSER),
        typical_p=min(p.typical_p * (1 + LOOSER), 1.0),
        epsilon_cutoff=p.epsilon_cutoff * (1 - LOOSER),
        eta_cutoff=p.eta_cutoff * (1 - LOOSER),
    )
    exact, loose = (samplers.filter_logits(row, q, backend="reference")[0] > -np.inf for q in (p, loosened))
    return row[exact | loose]


def all_permitted(draw: Draw, case: Case, allowed: list[np.ndarray]) -> bool:
    rows = case.logits.float().numpy()
    for step in range(-(-DRAWS // case.batch)):
        tokens = np.asarray(draw(step))
        if not all((some == x[token]).any() for x, token, some in zip(rows, tokens, allowed, strict=True)):
            return False
    return True


def distribution(case: Case) -> np.ndarray:
    """What the definition draws from, in float64: probabilities [B, V]."""
    filtered = samplers.filter_logits(case.logits.numpy(), case.params, backend="reference")
    return np.stack([textbook.softmax(row) for row in filtered])


def distributed(draw: Draw, p: np.ndarray) -> bool:
    """Whether the mean surprise -ln p of drawn tokens is the mean entropy; a greedier or hotter draw's is not."""
    surprise = -np.log(p, where=p > 0, out=np.full_like(p, -np.inf))  # of a cut token: infinite
    finite = np.where(p > 0, surprise, 0)
    entropy = (p * finite).sum(-1)
    variance = (p * finite**2).sum(-1) - entropy**2
    rows = np.arange(len(p))
    mean = np.mean([surprise[rows, np.asarray(draw(step))] for step in range(STEPS)])
    error = np.sqrt(variance.mean() / (STEPS * len(p)))
    return bool(abs(mean - entropy.mean()) <= DEVIATIONS * error + ROUNDING)
