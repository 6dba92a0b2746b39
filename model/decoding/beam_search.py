"""Beam search: several texts grow side by side, and only the most probable survive each step.

The same search as transformers' `generate(num_beams=...)`, candidate for candidate. Each prompt has its own search;
the beams of all prompts go through the model together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import samplers
from model.decoding.logprobs import greatest
from model.llama import Cache, Llama
from samplers import SamplingParams
from samplers.params import MAX_VOCABULARY, PENALTIES, Range, integer, number, within

MOST_BEAMS = 1024  # each is a row of the cache and of the logits
LENGTH_PENALTY = Range("in [-50, 50]", -50, 50)  # beyond, length ** length_penalty would leave float64


@dataclass(frozen=True)
class BeamRules:
    """How many texts live, and how finished texts compare.

    num_beams: int in 1 .. 1024, texts that live at a time, and finished texts that are kept.
    length_penalty: float in [-50, 50]; a finished text's score is its log-probability / length ** length_penalty, which
        favours longer texts above 0.
    early_stopping: when num_beams texts are finished, True ends the search; False ends it unless the best live beam,
        scored at its present length, beats the worst of them; "never" scores it at the greatest length that it may
        reach, where length_penalty is above 0.
    eos_ids: token ids that finish a text.

    Raises: TypeError or ValueError naming the argument.

    >>> rules = BeamRules(num_beams=2, length_penalty=2.0, eos_ids=(2,))
    >>> rules.candidates, rules.score(-6.0, length=2)
    (4, -1.5)
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    eos_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if integer("num_beams", self.num_beams, 1) > MOST_BEAMS:
            raise ValueError(f"num_beams must be at most {MOST_BEAMS}, got {self.num_beams}")
        within("length_penalty", number("length_penalty", self.length_penalty, LENGTH_PENALTY.text), LENGTH_PENALTY)
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ValueError(f"early_stopping must be True, False or 'never', got {self.early_stopping!r}")

    @property
    def candidates_per_beam(self) -> int:
        """Enough that one survives even if the others are all the EOS ids."""
        return max(2, 1 + len(self.eos_ids))

    @property
    def candidates(self) -> int:
        """Per step; num_beams of them survive whichever end a text."""
        return self.candidates_per_beam * self.num_beams

    def score(self, total: float, length: int) -> float:
        return total / length**self.length_penalty


@dataclass(eq=False)
class Beam:
    """A text, as its last token and the text before it. Without a parent: the empty text after the prompt.

    logprob: nats, the token's part of `total`, the sum over the text. model_logprob: under softmax of the model's
    untouched logits. length: tokens after the prompt. fate: "pruned", "kept" (survived) or "finished".
    """

    parent: Beam | None = None
    token: int = -1
    logprob: float = 0.0
    model_logprob: float = 0.0
    total: float = 0.0
    length: int = 0
    fate: str = "pruned"

    def path(self) -> list[Beam]:
        """From the first token to this one."""
        beams, beam = [], self
        while beam.parent is not None:
            beams.append(beam)
            beam = beam.parent
        return beams[::-1]

    @property
    def ids(self) -> list[int]:
        return [beam.token for beam in self.path()]


class Search:
    """The search after one prompt: its live beams and its finished texts, the best first.

    max_new_tokens: tokens that may follow the prompt. stream: of the draws. is_stopped: whether these ids hold a stop
    string.
    """

    def __init__(
        self,
        prompt: list[int],
        max_new_tokens: int,
        rules: BeamRules,
        stream: int = 0,
        is_stopped: Callable[[list[int]], bool] | None = None,
    ) -> None:
        self.prompt, self.max_new_tokens, self.rules = prompt, max_new_tokens, rules
        self.stream, self.is_stopped = stream, is_stopped
        self.live, self.finished = [Beam()], list[Beam]()

    def score(self, beam: Beam) -> float:
        return self.rules.score(beam.total, beam.length)

    def advance(self, candidates: list[Beam]) -> None:
        """One step. candidates: the best first, or in the order drawn."""
        count = self.rules.num_beams
        complete = [self.is_complete(beam) for beam in candidates]
        # 1. Only the first candidates may finish; the others replace them among the live beams.
        done = [beam for beam, is_complete in zip(candidates[:count], complete, strict=False) if is_complete]
        self.finished = sorted([*self.finished, *done], key=self.score, reverse=True)[:count]
        # 2. The best of the incomplete survive.
        alive = [beam for beam, is_complete in zip(candidates, complete, strict=True) if not is_complete]
        self.live = sorted(alive, key=lambda beam: beam.total, reverse=True)[:count]
        for fate, beams in (("finished", done), ("kept", self.live)):
            for beam in beams:
                beam.fate = fate

    def is_complete(self, beam: Beam) -> bool:
        if beam.token in self.rules.eos_ids or beam.length == self.max_new_tokens:
            return True
        return self.is_stopped is not None and self.is_stopped(beam.ids)

    @property
    def is_over(self) -> bool:
        """No beam lives, or none can still enter the finished texts, by the estimate of early_stopping."""
        if not self.live:
            return True
        if len(self.finished) < self.rules.num_beams:
            return False
        if self.rules.early_stopping is True:
            return True
        best = self.live[0]
        is_hopeful = self.rules.early_stopping == "never" and self.rules.length_penalty > 0
        hoped = self.rules.score(best.total, self.max_new_tokens if is_hopeful else best.length)
        return hoped <= self.score(self.finished[-1])


class CandidateSelector:
    """Selects a step's candidates: the best continuations of each prompt's beams, or draws without replacement.

    params: T = 0 takes the best, after the penalties alone; any other T draws.
    """

    def __init__(
        self, params: SamplingParams, rules: BeamRules, vocabulary: int, seed: int = 0, backend: str = "auto"
    ) -> None:
        self.count, self.seed, self.backend = rules.candidates, seed, backend
        self.is_drawing = params.temperature != 0
        if self.is_drawing and rules.num_beams * vocabulary > MAX_VOCABULARY:
            most = MAX_VOCABULARY // vocabulary
            raise ValueError(f"num_beams must be at most {most} to sample from {vocabulary}, got {rules.num_beams}")
        if self.is_drawing:  # as transformers: every beam keeps a token that is no EOS
            least = max(params.min_tokens_to_keep, rules.candidates_per_beam)
            self.params = dataclasses.replace(params, min_tokens_to_keep=least)
        else:
            self.params = SamplingParams(**{name: getattr(params, name) for name in PENALTIES})

    def candidates(self, logits: Tensor, searches: Sequence[Search], step: int) -> list[list[Beam]]:
        """At most rules.candidates per search. logits: [R, V], one row per live beam, search after search."""
        beams = [beam for search in searches for beam in search.live]
        counts, vocabulary = [len(search.live) for search in searches], logits.shape[1]
        # 1. The log-probability that each token would add, and the sum of the text so far.
        raw = torch.log_softmax(logits, dim=-1)  # [R, V]
        added = samplers.filter_logits(raw, self.params, backend=self.backend, **self.history(searches))
        totals = torch.tensor([beam.total for beam in beams], dtype=torch.float64, device=logits.device)
        # 2. One row per prompt, beam after beam.
        sums = join_beams(added.double() + totals[:, None], counts)  # [P, most beams * V]
        columns = self.draw(sums, searches, step) if self.is_drawing else self.best(sums)  # [P, candidates]
        # 3. Back to beams and tokens, without padding, impossible tokens and missing draws.
        possible = (columns >= 0) & (sums.gather(1, columns.clamp(min=0)) > -torch.inf)
        prompt, column = possible.nonzero()[:, 0], columns[possible]
        first = torch.tensor([0, *accumulate(counts)], device=logits.device)  # row of each prompt's first beam
        row, token = first[prompt] + column // vocabulary, column % vocabulary
        found: list[list[Beam]] = [[] for _ in searches]
        numbers = (prompt, row, token, added[row, token], raw[row, token])
        for search, parent, *rest in zip(*(tensor.tolist() for tensor in numbers), strict=True):
            found[search].append(child(beams[parent], *rest))
        return found

    def history(self, searches: Sequence[Search]) -> dict[str, Any]:
        """The tokens that the penalties read."""
        if not self.params.uses_history:
            return {}
        pairs = [(search.prompt, beam) for search in searches for beam in search.live]
        return {
            "history": [prompt + beam.ids for prompt, beam in pairs],
            "history_start": [len(prompt) for prompt, _ in pairs],
        }

    def best(self, sums: Tensor) -> Tensor:
        """Columns of the greatest, ties by the lowest: int64 [P, candidates]."""
        return torch.stack([greatest(row, min(self.count, len(row))) for row in sums])

    def draw(self, sums: Tensor, searches: Sequence[Search], step: int) -> Tensor:
        """Columns drawn from softmax without replacement, -1 where none is left: int64 [P, candidates].

        Draw i of a step has the position step * candidates + i.
        """
        x = (sums - sums.amax(dim=1, keepdim=True)).float()  # near 0, where float32 is precise
        columns = []
        for i in range(self.count):
            out = samplers.sample(
                x,
                seed=self.seed,
                position=step * self.count + i,
                stream=[search.stream for search in searches],
                backend=self.backend,
                on_invalid="mark",
            )
            columns.append(out.tokens)
            x.scatter_(1, out.tokens.clamp(min=0)[:, None], -torch.inf)  # a row without a draw is all -inf
        return torch.stack(columns, dim=1)


def child(parent: Beam, token: int, logprob: float, model_logprob: float) -> Beam:
    return Beam(parent, token, logprob, model_logprob, parent.total + logprob, parent.length + 1)


def join_beams(x: Tensor, counts: Sequence[int]) -> Tensor:
    """The beams of each prompt as one row: [R, V] -> [P, max(counts) * V], -inf where a prompt has fewer.

    >>> join_beams(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), [2, 1])
    tensor([[1., 2., 3., 4.],
            [5., 6., -inf, -inf]])
    """
    rows = [beams.flatten() for beams in x.split(list(counts))]
    return pad_sequence(rows, batch_first=True, padding_value=-torch.inf)


def beam_search(
    model: Llama,
    logits: Tensor,
    cache: Cache,
    searches: Sequence[Search],
    selector: CandidateSelector,
    on_step: Callable[[Search, list[Beam]], None] | None = None,
) -> None:
    """Run every search to its end; its `finished` then holds the texts, the best first.

    Args:
        logits: float32 [P, V] after each prompt; cache: holds the prompts, one row each, and has slots for all that
            follows.
        searches: new, one per prompt.
        on_step: called at every step with each search and its candidates, whose fates are decided.

    Raises: InvalidLogits.
    Source: Lowerre 1976; dividing by length ** penalty: Wu et al. 2016, section 7.
    """
    active, step = list(searches), 0
    while True:
        row = {beam: i for i, beam in enumerate(beam for search in active for beam in search.live)}
        # 1. Candidates, from the logits of every live beam.
        for search, candidates in zip(active, selector.candidates(logits, active, step), strict=True):
            # 2. Some finish, some survive.
            search.advance(candidates)
            if on_step is not None:
                on_step(search, candidates)
        # 3. Finished searches leave the batch.
        active = [search for search in active if not search.is_over]
        if not active:
            return
        # 4. Each beam takes its parent's place in the cache, and its last token goes through the model.
        beams = [beam for search in active for beam in search.live]
        lengths = [len(search.prompt) + beam.length - 1 for search in active for beam in search.live]
        cache.reorder([row[beam.parent] for beam in beams if beam.parent is not None], max(lengths))
        logits = model.step([beam.token for beam in beams], cache, lengths)  # [R, V]
        step += 1
