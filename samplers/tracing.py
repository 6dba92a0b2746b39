"""What happened between a row of logits and its token: every stage of the exact definition, seen.

From the reference, so it is what every backend does: the masses are the integers that were drawn with, the cuts are
the cuts. `trace` follows one draw; its `what_if` and `replay` ask what other parameters or other random bits would
have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samplers.backends.reference import penalised, refuse_flushing
from samplers.batch import Array, Batch, History, Integers, Params
from samplers.cached_property import cached_property
from samplers.params import SamplingParams, integer
from samplers.reference.draw import draw
from samplers.reference.filters import stages
from samplers.reference.kept import Kept
from samplers.reference.philox import random_bits
from samplers.reference.sampler import entropy, is_valid, model_logprob, weigh
from samplers.sampler import InvalidLogits

if TYPE_CHECKING:
    from rich.console import Group

# The first stages: softmax as it is; bias, mask and penalties, where they changed anything; and 1/T.
RAW, PENALTIES, TEMPERATURE = "logits", "penalties", "temperature"
TOP = 20  # candidates that are listed


@dataclass(frozen=True)
class Stage:
    """One step, and the distribution that it left.

    name, value: the parameter and its setting, None for the logits and for what penalties, bias and mask made of them
    (a stage only where they changed anything). survivors: tokens left. kept_mass: of the mass
    before it, the part that is left; 1 where nothing is cut. least_kept, greatest_cut: probabilities, in the
    distribution that the stage saw, of the least probable token that it kept and the most probable one that it cut
    (None: it cut none). entropy: nats, of what is left.
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
    """One token on its way: rank among the raw logits from 1, its logit, its probability after every stage (0: cut),
    the stage that cut it (None: kept), and, where kept, the interval of u that draws it."""

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
    """All tokens that are not listed, together."""

    count: int
    survivors: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """One draw. bits: the 64 random ones; u = bits·total >> 64 is the place in 0 .. total that the token's interval
    holds. weight / total is its probability. model_logprob: under softmax of the untouched logits."""

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
    top: int

    @property
    def kept(self) -> int:
        return self.stages[-1].survivors

    @property
    def entropy(self) -> float:
        """Nats, of the distribution that was drawn from."""
        return self.stages[-1].entropy

    @cached_property
    def chosen(self) -> Candidate:
        """The candidate that was drawn; it is always listed."""
        return next(one for one in self.candidates if one.id == self.token)

    def what_if(self, **params: Any) -> Trace:
        """The same random bits with other parameters: what would have been drawn.

        Bias, mask and penalties stay as they were. Raises: as SamplingParams; ValueError for a parameter of step 0.
        """
        fixed = sorted(set(params) & {"repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"})
        if fixed:
            raise ValueError(f"what_if must name parameters of temperature and filters, got {', '.join(fixed)}")
        return self._followed(replace(self.params, **params), self.seed, self.position, self.stream)

    def replay(self, seed: int | None = None, position: int | None = None, stream: int | None = None) -> Trace:
        """The same distribution with other random bits."""
        given = {"seed": seed, "position": position, "stream": stream}
        keys = [getattr(self, name) if value is None else integer(name, value) for name, value in given.items()]
        return self._followed(self.params, *keys)

    def _followed(self, params: SamplingParams, seed: int, position: int, stream: int) -> Trace:
        return follow(self.logits, self.changed, params, seed, position, stream, self.top)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the logits, as JSON has it; -inf and what there is none of as None."""
        dropped = ("logits", "changed", "stages", "candidates", "others", "params")
        scalars = {name: value for name, value in vars(self).items() if name not in (*dropped, "chosen")}
        stages = [asdict(stage) for stage in self.stages]
        candidates = [asdict(one) | {"final": one.final} for one in self.candidates]
        params = {n: v for n, v in asdict_of(self.params).items() if v != getattr(SamplingParams(), n)}
        whole = scalars | {"kept": self.kept, "entropy": self.entropy, "params": params}
        return finite(whole | {"stages": stages, "candidates": candidates, "others": asdict(self.others)})

    def table(self, names: Callable[[int], str] | None = None) -> Group:
        """For rich to print: the stages, the candidates stage by stage, and the draw; names: a token's text by id."""
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
    """Follow the draw that `sample` makes of the same arguments: a Trace for (V,) logits, a list for (B, V).

    top: so many candidates, by raw rank, are listed, and the token drawn; the others are summed up.
    Raises: InvalidLogits; ValueError and TypeError as `sample` does, and for top < 1.

    >>> from samplers import SamplingParams, textbook
    >>> t = trace(np.log(textbook.example()).astype(np.float32), SamplingParams(top_p=0.8, epsilon_cutoff=0.1), seed=7)
    >>> [(stage.name, stage.survivors, round(stage.kept_mass, 3)) for stage in t.stages]
    [('logits', 10, 1.0), ('temperature', 10, 1.0), ('top_p', 6, 0.85), ('epsilon_cutoff', 4, 0.824)]
    >>> [one.cut_by for one in t.candidates][:7]
    [None, None, None, None, 'epsilon_cutoff', 'epsilon_cutoff', 'top_p']
    >>> t.what_if(top_p=1.0, epsilon_cutoff=0.0).kept
    10
    """
    refuse_flushing()
    integer("top", top, least=1)
    batch = Batch(logits, params, history, history_start, allowed, seed, position, stream)
    seeds, positions, streams = (batch.host(name).tolist() for name in ("seed", "position", "stream"))
    changed = [penalised(batch, row) for row in range(batch.size)]
    invalid = [row for row, x in enumerate(changed) if not is_valid(x)]
    if invalid:
        raise InvalidLogits(invalid)
    traces = [
        follow(np.array(batch.x[i]), changed[i], batch.params.row(i), seeds[i], positions[i], streams[i], top)
        for i in range(batch.size)
    ]
    return traces[0] if logits.ndim == 1 else traces


def follow(
    logits: np.ndarray, changed: np.ndarray, p: SamplingParams, seed: int, position: int, stream: int, top: int
) -> Trace:
    """One row: float32 [V] untouched, and after step 0."""
    names, values, kepts = path(logits, changed, p)
    final = kepts[-1]
    bits = int(random_bits(*(np.array([key % 2**64], np.uint64) for key in (seed, position, stream)))[0])
    place, total = draw(final.w, bits), final.total
    token, weight = int(final.ids[place]), int(final.w[place])
    listed = candidate_ids(logits, token, top)
    candidates = [candidate(rank, i, logits, names, kepts) for rank, i in listed]
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
        stages=tuple(left(names[i], values[i], kepts[max(0, i - 1)], kepts[i]) for i in range(len(names))),
        candidates=tuple(candidates),
        others=others(candidates, len(logits), kepts),
        logits=logits,
        changed=changed,
        top=top,
    )


def path(logits: np.ndarray, changed: np.ndarray, p: SamplingParams) -> tuple[list[str], list[Any], list[Kept]]:
    """What is left after every stage: names, settings, distributions. float32 [V] untouched, and after step 0."""
    steps: list[tuple[str, Any, Kept]] = [(RAW, None, weigh(logits if is_valid(logits) else changed, 1.0))]
    if not np.array_equal(logits, changed):
        steps.append((PENALTIES, None, weigh(changed, 1.0)))
    steps.append((TEMPERATURE, p.temperature, weigh(changed, p.temperature)))
    for f, value in stages(p):
        kept = steps[-1][2]
        steps.append((f.name, value, kept.where(f.mask(kept, value, p.min_tokens_to_keep))))
    names, values, kepts = zip(*steps, strict=True)
    return list(names), list(values), list(kepts)


def left(name: str, value: float | None, before: Kept, after: Kept) -> Stage:
    """What a stage did; the first ones don't cut but weigh anew, so that all of the mass is theirs."""
    total, nats = after.total, entropy(after)
    if name in (RAW, PENALTIES, TEMPERATURE):
        return Stage(name, value, len(after.ids), 1.0, int(after.w.min()) / total, None, nats)
    seen = before.total
    cut = before.w[~np.isin(before.ids, after.ids, assume_unique=True)]
    greatest_cut = int(cut.max()) / seen if len(cut) else None
    return Stage(name, value, len(after.ids), total / seen, int(after.w.min()) / seen, greatest_cut, nats)


def candidate_ids(logits: np.ndarray, token: int, top: int) -> list[tuple[int, int]]:
    """Rank and id of the first tokens by raw logit, ties by lowest id, and of the token that was drawn."""
    order = np.argsort(-np.nan_to_num(logits, nan=-np.inf), kind="stable")
    listed = [(rank + 1, int(i)) for rank, i in enumerate(order[:top])]
    if token not in order[:top]:
        listed.append((int(np.flatnonzero(order == token)[0]) + 1, token))
    return listed


def candidate(rank: int, token: int, logits: np.ndarray, names: list[str], kepts: list[Kept]) -> Candidate:
    places = [place_of(token, kept) for kept in kepts]
    probabilities = [0.0 if at is None else int(k.w[at]) / k.total for at, k in zip(places, kepts, strict=True)]
    cut_by = next((name for name, at in zip(names, places, strict=True) if at is None), None)
    interval = None
    if places[-1] is not None:
        end = int(kepts[-1].w[: places[-1] + 1].sum())
        interval = end - int(kepts[-1].w[places[-1]]), end
    return Candidate(rank, token, float(logits[token]), tuple(probabilities), cut_by, interval)


def place_of(token: int, kept: Kept) -> int | None:
    at = int(np.searchsorted(kept.ids, token))
    return at if at < len(kept.ids) and kept.ids[at] == token else None


def others(candidates: Sequence[Candidate], vocabulary: int, kepts: list[Kept]) -> Others:
    """By integers, so that every stage's probabilities add up."""
    ids = np.array([one.id for one in candidates])
    away = [~np.isin(kept.ids, ids) for kept in kepts]
    mass = [int(kept.w[mask].sum()) / kept.total for kept, mask in zip(kepts, away, strict=True)]
    return Others(vocabulary - len(ids), int(away[-1].sum()), tuple(mass))


def asdict_of(params: SamplingParams) -> dict[str, Any]:
    bias = None if params.logit_bias is None else {str(token): value for token, value in params.logit_bias.items()}
    return {name: getattr(params, name) for name in params.__dataclass_fields__} | {"logit_bias": bias}


def finite(value: Any) -> Any:
    """Numbers that JSON has not, as None."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
