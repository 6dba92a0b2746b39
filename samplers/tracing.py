"""Every stage of the exact definition, from a row of logits to its token.

`trace` follows one draw with the reference, so it shows the integers and the kept sets of every backend. A trace's
`what_if` and `replay` draw again with other parameters or other random bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samplers.backends.reference import mask_of, penalised, refuse_flushing
from samplers.batch import Array, Batch, History, Integers, Params
from samplers.cached_property import cached_property
from samplers.params import PENALTIES as PENALTY_NAMES
from samplers.params import SamplingParams, integer
from samplers.reference.draw import draw
from samplers.reference.filters import stages
from samplers.reference.kept import Kept
from samplers.reference.penalties import unpacked
from samplers.reference.philox import random_bits
from samplers.reference.sampler import entropy, is_valid, model_logprob, weigh
from samplers.sampler import InvalidLogits

if TYPE_CHECKING:
    from rich.console import Group

# The first stages: softmax of the logits; the same over the tokens that the mask allows, if it excludes one; bias and
# penalties, if they changed a logit that it allows; and 1/T.
RAW, ALLOWED, PENALTIES, TEMPERATURE = "logits", "allowed", "penalties", "temperature"
TOP = 20  # listed candidates


@dataclass(frozen=True)
class Stage:
    """One step, and the distribution after it.

    name, value: the parameter and its value, which is None for the logits, the mask and the penalties. (The stage
    "allowed" exists only if the mask excludes a token, "penalties" only if bias or penalties changed a logit that the
    mask allows.) survivors: the number of kept tokens. kept_mass: the fraction of the mass before the stage that it
    kept; 1 if it cut nothing. least_kept, greatest_cut: probabilities before the stage, of the least probable token
    that it kept and of the most probable one that it cut (None if it cut none). entropy: nats, after the stage.
    """

    name: str
    value: float | None
    survivors: int
    kept_mass: float
    least_kept: float
    greatest_cut: float | None
    entropy: float


@dataclass(frozen=True)
class Candidate:
    """One token through the stages.

    rank: among the raw logits, from 1. probabilities: after each stage, 0 if it is cut. cut_by: the stage that cut it,
    or None. interval: the values of u that draw it; None if it was cut.
    """

    rank: int
    id: int
    logit: float
    probabilities: tuple[float, ...]
    cut_by: str | None
    interval: tuple[int, int] | None  # of integers, in 0 .. total

    @property
    def final(self) -> float:
        return self.probabilities[-1]


@dataclass(frozen=True)
class Others:
    """The unlisted tokens, aggregated."""

    count: int
    survivors: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """One draw.

    bits: the 64 random bits. u: bits·total >> 64, a number in 0 .. total - 1 that the token's interval contains.
    weight / total: the token's probability. model_logprob: its log-probability under softmax of the untouched logits.
    """

    params: SamplingParams
    vocabulary: int
    seed: int
    position: int
    stream: int
    bits: int
    u: int
    token: int
    weight: int
    total: int
    logprob: float
    model_logprob: float
    stages: tuple[Stage, ...]
    candidates: tuple[Candidate, ...]
    others: Others
    logits: np.ndarray  # float32 [V], untouched
    changed: np.ndarray  # float32 [V], after bias, mask and penalties
    allowed: np.ndarray | None  # bool [V]; None where no token is excluded
    top: int

    @property
    def kept(self) -> int:
        return self.stages[-1].survivors

    @property
    def entropy(self) -> float:
        """Of the final distribution, in nats."""
        return self.stages[-1].entropy

    @cached_property
    def chosen(self) -> Candidate:
        """The drawn candidate, which is always listed."""
        return next(c for c in self.candidates if c.id == self.token)

    def what_if(self, **params: Any) -> Trace:
        """The draw from the same random bits with other parameters.

        Bias, mask and penalties stay unchanged. Raises: as SamplingParams; ValueError for a parameter of step 0.
        """
        fixed = sorted(set(params) & set(PENALTY_NAMES))
        if fixed:
            raise ValueError(f"what_if must name parameters of temperature and filters, got {', '.join(fixed)}")
        return self._followed(replace(self.params, **params), self.seed, self.position, self.stream)

    def replay(self, seed: int | None = None, position: int | None = None, stream: int | None = None) -> Trace:
        """The draw from the same distribution with other random bits."""
        changes = {"seed": seed, "position": position, "stream": stream}
        keys = [getattr(self, name) if value is None else integer(name, value) for name, value in changes.items()]
        return self._followed(self.params, *keys)

    def _followed(self, params: SamplingParams, seed: int, position: int, stream: int) -> Trace:
        return follow(self.logits, self.changed, self.allowed, params, seed, position, stream, self.top)

    def to_dict(self) -> dict[str, Any]:
        """Everything but logits and mask, in the types of JSON; -inf and missing values become None."""
        dropped = ("logits", "changed", "allowed", "stages", "candidates", "others", "params")
        scalars = {name: value for name, value in vars(self).items() if name not in (*dropped, "chosen")}
        stages = [vars(stage) for stage in self.stages]
        candidates = [vars(c) | {"final": c.final} for c in self.candidates]
        off = SamplingParams()
        params = {name: value for name, value in asdict_of(self.params).items() if value != getattr(off, name)}
        whole = scalars | {"kept": self.kept, "entropy": self.entropy, "params": params}
        return finite(whole | {"stages": stages, "candidates": candidates, "others": vars(self.others)})

    def table(self, names: Callable[[int], str] | None = None) -> Group:
        """Tables for rich to print: the stages, the candidates, and the draw. names: the text of a token id."""
        from samplers.trace_table import tables

        return tables(self, names)


def trace(
    logits: Array,
    params: Params = None,
    *,
    seed: Integers,
    position: Integers = 0,
    stream: Integers | None = None,
    history: History = None,
    history_start: Integers = 0,
    allowed: Array | None = None,
    top: int = TOP,
) -> Any:
    """Follow the draw of `sample` with the same arguments: a Trace for (V,) logits, a list of them for (B, V).

    top: the number of candidates to list, by raw rank; with `allowed`, also so many of the allowed ones. The drawn
        token is always listed; the others are aggregated.
    Raises: InvalidLogits; ValueError and TypeError as `sample` does, and for top < 1.

    >>> from samplers import SamplingParams, textbook
    >>> t = trace(np.log(textbook.example()).astype(np.float32), SamplingParams(top_p=0.8, epsilon_cutoff=0.1), seed=7)
    >>> [(stage.name, stage.survivors, round(stage.kept_mass, 3)) for stage in t.stages]
    [('logits', 10, 1.0), ('temperature', 10, 1.0), ('top_p', 6, 0.85), ('epsilon_cutoff', 4, 0.824)]
    >>> [candidate.cut_by for candidate in t.candidates][:7]
    [None, None, None, None, 'epsilon_cutoff', 'epsilon_cutoff', 'top_p']
    >>> t.what_if(top_p=1.0, epsilon_cutoff=0.0).kept
    10
    """
    refuse_flushing()
    integer("top", top, least=1)
    batch = Batch(logits, params, history, history_start, allowed, seed, position, stream).by_row
    seeds, positions, streams = (batch.host(name).tolist() for name in ("seed", "position", "stream"))
    changed = [penalised(batch, row) for row in range(batch.size)]
    invalid = [row for row, x in enumerate(changed) if not is_valid(x)]
    if invalid:
        raise InvalidLogits(invalid)
    traces = [
        follow(
            np.array(batch.x[i]),
            changed[i],
            excluding_mask(batch, i),
            batch.params.row(i),
            seeds[i],
            positions[i],
            streams[i],
            top,
        )
        for i in range(batch.size)
    ]
    return traces[0] if logits.ndim == 1 else traces


def excluding_mask(batch: Batch, row: int) -> np.ndarray | None:
    """What a row's mask allows, bool [V]; None if it excludes no token."""
    mask = mask_of(batch, row)
    if mask is None:
        return None
    allowed = mask if mask.dtype == bool else unpacked(mask, batch.vocabulary)
    return None if allowed.all() else np.array(allowed)


def follow(
    logits: np.ndarray,
    changed: np.ndarray,
    allowed: np.ndarray | None,
    p: SamplingParams,
    seed: int,
    position: int,
    stream: int,
    top: int,
) -> Trace:
    """Trace one row. logits, changed: float32 [V], before and after step 0. allowed: bool [V]."""
    names, values, kepts = run_stages(logits, changed, allowed, p)
    final = kepts[-1]
    bits = int(random_bits(*(np.array([key % 2**64], np.uint64) for key in (seed, position, stream)))[0])
    place, total = draw(final.w, bits), final.total
    token, weight = int(final.ids[place]), int(final.w[place])
    listed = candidate_ids(logits, token, top, allowed)
    candidates = [candidate_of(rank, i, logits, names, kepts) for rank, i in listed]
    return Trace(
        params=p,
        vocabulary=len(logits),
        seed=seed,
        position=position,
        stream=stream,
        bits=bits,
        u=bits * total >> 64,
        token=token,
        weight=weight,
        total=total,
        logprob=math.log(weight / total),
        model_logprob=model_logprob(logits, token),
        stages=tuple(stage_of(names[i], values[i], kepts[max(0, i - 1)], kepts[i]) for i in range(len(names))),
        candidates=tuple(candidates),
        others=others_of(candidates, len(logits), kepts),
        logits=logits,
        changed=changed,
        allowed=allowed,
        top=top,
    )


def run_stages(
    logits: np.ndarray, changed: np.ndarray, allowed: np.ndarray | None, p: SamplingParams
) -> tuple[list[str], list[Any], list[Kept]]:
    """The names and values of the stages, and the tokens kept after each."""
    steps: list[tuple[str, Any, Kept]] = [(n, None, weigh(x, 1.0)) for n, x in step_0(logits, changed, allowed)]
    steps.append((TEMPERATURE, p.temperature, weigh(changed, p.temperature)))
    for f, value in stages(p):
        kept = steps[-1][2]
        steps.append((f.name, value, kept.where(f.mask(kept, value, p.min_tokens_to_keep))))
    names, values, kepts = zip(*steps, strict=True)
    return list(names), list(values), list(kepts)


def step_0(logits: np.ndarray, changed: np.ndarray, allowed: np.ndarray | None) -> list[tuple[str, np.ndarray]]:
    """The stages before the temperature, each with its logits."""
    if not is_valid(logits):  # then they have no distribution until step 0 has made them valid
        return [(RAW, changed), (PENALTIES, changed)]
    rows = [(RAW, logits)]
    if allowed is not None:
        rows.append((ALLOWED, np.where(allowed, logits, np.float32(-np.inf))))
    if not np.array_equal(rows[-1][1], changed):
        rows.append((PENALTIES, changed))
    return rows


def stage_of(name: str, value: float | None, before: Kept, after: Kept) -> Stage:
    total, nats = after.total, entropy(after)
    if name in (RAW, PENALTIES, TEMPERATURE):  # these weigh the tokens again, so they keep all the mass
        return Stage(name, value, len(after.ids), 1.0, int(after.w.min()) / total, None, nats)
    mass, is_kept = before.total, np.isin(before.ids, after.ids, assume_unique=True)
    kept, cut = before.w[is_kept], before.w[~is_kept]
    greatest_cut = int(cut.max()) / mass if len(cut) else None
    return Stage(name, value, len(kept), int(kept.sum()) / mass, int(kept.min()) / mass, greatest_cut, nats)


def candidate_ids(logits: np.ndarray, token: int, top: int, allowed: np.ndarray | None) -> list[tuple[int, int]]:
    """Rank and id of the first tokens by raw logit (ties by lowest id), of the first allowed ones, and of the token."""
    order = np.argsort(-np.nan_to_num(logits, nan=-np.inf), kind="stable")
    listed = {*range(min(top, len(order))), int(np.flatnonzero(order == token)[0])}
    if allowed is not None:
        listed.update(np.flatnonzero(allowed[order])[:top].tolist())
    return [(place + 1, int(order[place])) for place in sorted(listed)]


def candidate_of(rank: int, token: int, logits: np.ndarray, names: list[str], kepts: list[Kept]) -> Candidate:
    places = [place_of(token, kept) for kept in kepts]
    probabilities = [0.0 if i is None else int(k.w[i]) / k.total for i, k in zip(places, kepts, strict=True)]
    cut_by = next((name for name, i in zip(names, places, strict=True) if i is None), None)
    interval = None
    if places[-1] is not None:
        end = int(kepts[-1].w[: places[-1] + 1].sum())
        interval = end - int(kepts[-1].w[places[-1]]), end
    return Candidate(rank, token, float(logits[token]), tuple(probabilities), cut_by, interval)


def place_of(token: int, kept: Kept) -> int | None:
    i = int(np.searchsorted(kept.ids, token))
    return i if i < len(kept.ids) and kept.ids[i] == token else None


def others_of(candidates: Sequence[Candidate], vocabulary: int, kepts: list[Kept]) -> Others:
    """From integers, so the probabilities of every stage add up."""
    ids = np.array([c.id for c in candidates])
    unlisted = [~np.isin(kept.ids, ids) for kept in kepts]
    mass = [int(kept.w[mask].sum()) / kept.total for kept, mask in zip(kepts, unlisted, strict=True)]
    return Others(vocabulary - len(ids), int(unlisted[-1].sum()), tuple(mass))


def asdict_of(params: SamplingParams) -> dict[str, Any]:
    bias = None if params.logit_bias is None else {str(token): value for token, value in params.logit_bias.items()}
    return {name: getattr(params, name) for name in params.__dataclass_fields__} | {"logit_bias": bias}


def finite(value: Any) -> Any:
    """The value with None for each inf and NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
