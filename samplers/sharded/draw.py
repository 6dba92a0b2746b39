"""`samplers.sharded.sample`: which messages a row needs, and their order."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from samplers.backends import implementation
from samplers.batch import Array, Batch, History, Integers, Params, packed_for
from samplers.params import MAX_VOCABULARY, PLAIN, PackedParams, SamplingParams
from samplers.reference.filters import FILTERS, Filter, bits_of_count, stages
from samplers.reference.fixed_point import ONE, bound
from samplers.reference.philox import random_bits
from samplers.reference.sampler import Draw
from samplers.sampler import SampleOutput, check_details, raises_on_invalid, refuse_invalid
from samplers.sampler import sample as sample_rows
from samplers.sharded import filters
from samplers.sharded.collectives import Collectives
from samplers.sharded.details import model_logprobs
from samplers.sharded.listed import Listed, Lists, greatest_weight
from samplers.sharded.shard import Shard
from samplers.sharded.spread import Spread

LISTED = 256  # logits of a process, where filters keep an unknown number
SPARE = 16  # more than top-k asks for: ties
LONGEST = 1024  # a longer list takes more time to send than the messages that it saves
BY_MASS = [f for f in FILTERS if f.concept in ("top_p", "epsilon", "eta")]  # need sums, and keep the greatest logits


def sample(
    logits_shard: Array,
    params: Params = None,
    *,
    group: Any = None,
    vocab_start: int = 0,
    seed: Integers,
    position: Integers = 0,
    stream: Integers | None = None,
    history: History = None,
    history_start: Integers = 0,
    allowed: Array | None = None,
    details: bool = False,
    backend: str = "auto",
    on_invalid: str = "raise",
) -> SampleOutput:
    """Draw one token per row of logits whose vocabulary is divided over the processes of a group.

    Every process calls it with its part of the same rows, and gets what `samplers.sample` gives for the whole rows,
    with the same integers.

    Args:
        logits_shard: (B, V_part) or (V_part,): this process's part, as in `samplers.sample`; V_part may be 0, and
            differ. All parts together have at most 2^20 tokens.
        group: a process group of torch.distributed; None: the default one. gloo takes tensors on the CPU, NCCL on GPUs.
        vocab_start: int >= 0, the id of this part's first token. Parts may not overlap.
        allowed: this process's part of the mask; its bits begin with the first token of the part.
        params, seed, position, stream, history, history_start, details, backend, on_invalid: as in `samplers.sample`,
            with the same values in all processes; token ids are those of the whole vocabulary.

    The first message has the greatest logits of each part. It settles rows with top-k, T = 0 or a min-p that keeps few
    tokens; a second one, of sums, most rows with top-p, ε or η; a third one rows without filters. Other rows take a few
    more, never the logits themselves. Every process waits for each message, also on a GPU.

    Raises: as `samplers.sample`, in all processes alike if they have the same arguments; ValueError for parts that
        overlap, RuntimeError without torch.distributed.

    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> sample(torch.tensor([[1.0, 3.0, 2.0]]), SamplingParams(top_k=2), seed=7).tokens
    tensor([2])
    >>> dist.destroy_process_group()
    """
    together = Collectives(group)
    keys: dict[str, Integers | None] = dict(seed=seed, position=position, stream=stream)
    return drawn(
        together, logits_shard, params, vocab_start, keys, history, history_start, allowed, details, backend, on_invalid
    )


def drawn(
    together: Collectives,
    logits: Array,
    params: Params,
    vocab_start: int,
    keys: dict[str, Any],
    history: History = None,
    history_start: Integers = 0,
    allowed: Array | None = None,
    details: bool = False,
    backend: str = "auto",
    on_invalid: str = "raise",
) -> SampleOutput:
    check_details(details)
    raises = raises_on_invalid(on_invalid)
    shard = Shard(logits, vocab_start)
    packed = packed_for(params, len(shard.x), MAX_VOCABULARY)
    arguments = (history, history_start, allowed if shard.length else None)
    batch = Batch(shard.raw, without_bias(packed), *arguments, **keys).by_row
    implementation(backend, batch.on_gpu)  # refuses an unknown one, also where no row needs it
    rows = [packed.row(row) for row in range(batch.size)]
    shard.penalise(batch, rows, backend)
    lists = Lists(shard, max(map(list_size, rows), default=0), together)
    check_parts(lists.starts, lists.lengths, packed.greatest_biased)
    draws = Draws(batch, rows, shard, lists, together, details, backend)
    draws.settle_by_list()
    spread = draws.spread()
    if spread is not None:
        spread = draws.settle_by_sums(spread)
    if spread is not None:
        draws.settle_spread(spread)
    if raises:
        refuse_invalid(draws.tokens >= 0)
    raw = model_logprobs(shard, draws.tokens, together) if details else None
    return draws.output(raw)


class Draws:
    """The draws of a call: a row is settled as soon as the messages so far allow it."""

    def __init__(
        self,
        batch: Batch,
        params: list[SamplingParams],
        shard: Shard,
        lists: Lists,
        together: Collectives,
        details: bool,
        backend: str,
    ) -> None:
        self.batch, self.params, self.shard, self.lists, self.together = batch, params, shard, lists, together
        self.details, self.backend = details, backend
        self.keys = {name: batch.host(name) for name in ("seed", "position", "stream")}
        table = PackedParams(tuple(params)).table["inverse_temperature"] if params else np.empty(0, np.float32)
        self.inverse = torch.from_numpy(np.where(table == 0, np.float32(1), table)).to(shard.device)
        self.draws = [Draw()] * batch.size
        self.left = torch.isfinite(lists.m).nonzero()[:, 0].tolist()  # rows that are valid and not settled

    @property
    def tokens(self) -> np.ndarray:
        return np.array([draw.token for draw in self.draws], np.int64)

    def settle_by_list(self) -> None:
        """Rows of which every token is listed, or whose first filter keeps listed ones, whatever the other mass."""
        lists = self.lists
        edge_weights = greatest_weight(lists.edge, lists.m, self.inverse).tolist()
        counts, is_whole = (lists.x > -torch.inf).sum(1).tolist(), (lists.edge == -torch.inf).tolist()
        settled = [i for i in self.left if is_whole[i] or is_enough(self.params[i], counts[i], edge_weights[i])]
        self.settle(settled, [self.params[i] for i in settled])

    def spread(self) -> Spread | None:
        """The rows that are left."""
        if not self.left:
            return None
        columns = (self.shard.x, self.lists.m, self.inverse)
        x, m, inverse = columns if len(self.left) == self.batch.size else (column[self.left] for column in columns)
        return Spread(x, m, inverse, [self.params[i] for i in self.left], self.together)

    def settle_by_sums(self, spread: Spread) -> Spread | None:
        """Rows whose first filter keeps listed tokens, as the mass of all tokens shows."""
        before, lists = list(self.left), self.lists
        for f in BY_MASS:
            places = [place for place, i in enumerate(before) if first_filter(self.params[i]) is f]
            if not places:
                continue
            rows = [before[place] for place in places]
            listed = Listed(lists.x[rows], lists.edge[rows], lists.m[rows], self.inverse[rows])
            listed.learn(spread, places)
            kept = mask_of(f, listed, [self.params[i] for i in rows])
            complete = listed.is_complete.nonzero()[:, 0].tolist()
            settled = [rows[place] for place in complete]
            self.settle(settled, [without(self.params[i], f.name) for i in settled], kept[complete])
        if len(self.left) == len(before):
            return spread
        left = set(self.left)
        return spread.rows([place for place, i in enumerate(before) if i in left]) if left else None

    def settle_spread(self, spread: Spread) -> None:
        """All other rows, filter by filter."""
        params, device = [self.params[i] for i in self.left], spread.x.device
        greedy = torch.tensor([p.temperature == 0 for p in params], device=device)
        if greedy.any():
            ones = torch.ones_like(spread.key)
            spread.keep(spread.prefix(spread.key, ones, spread.numbers([1] * len(params))) | ~greedy[:, None])
        for f in FILTERS:
            is_on = torch.tensor([f in [on for on, _ in stages(p)] for p in params], device=device)
            if is_on.any():
                spread.keep(mask_of(f, spread, params) | ~is_on[:, None])
        bits = random_bits(*(self.keys[name][self.left] for name in ("seed", "position", "stream"))).tolist()
        for i, draw in zip(self.left, spread.draw(bits, self.shard.start, self.details), strict=True):
            self.draws[i] = draw
        self.left = []

    def settle(self, rows: list[int], params: list[SamplingParams], kept: torch.Tensor | None = None) -> None:
        """Draws from the list. kept: bool [b, S], what filters that are not in params have kept."""
        if not rows:
            return
        out = sample_rows(
            self.lists.x[rows],
            [after_step_0(p) for p in params],
            **{name: column[rows] for name, column in self.keys.items()},
            allowed=kept,
            details=self.details,
            backend=self.backend,
            on_invalid="mark",
        )
        tokens = self.lists.ids[rows].gather(1, out.tokens[:, None])[:, 0]
        columns = (tokens, out.weight, out.total, out.kept, out.logprobs)
        entropy = out.entropy.tolist() if self.details else [np.nan] * len(rows)
        for i, *numbers in zip(rows, *(column.tolist() for column in columns), entropy, strict=True):
            self.draws[i] = Draw(*numbers)
        settled = set(rows)
        self.left = [i for i in self.left if i not in settled]

    def output(self, model: np.ndarray | None) -> SampleOutput:
        """Arrays or tensors, as the logits."""
        types = (np.int64, np.int64, np.int64, np.int32, np.float32, np.float32)
        fields = zip(*self.draws, strict=True) if self.draws else [()] * len(types)
        *columns, entropy = (np.array(field, dtype) for field, dtype in zip(fields, types, strict=True))
        found = [*columns, model, entropy if self.details else None]
        if not self.shard.is_tensor:
            return SampleOutput(*found)
        return SampleOutput(*(None if c is None else torch.from_numpy(c).to(self.shard.device) for c in found))


def list_size(p: SamplingParams) -> int:
    """How many logits of a process the first message should have for such a row."""
    first, n = first_filter(p), p.min_tokens_to_keep
    if p.temperature == 0:
        return SPARE
    if first is None or first.concept == "typical":
        return 0
    size = max(p.top_k, n) + SPARE if first.concept == "top_k" else max(LISTED, n + SPARE)
    return size if size <= LONGEST else 0


def is_enough(p: SamplingParams, count: int, edge_weight: int) -> bool:
    """Whether the first filter keeps listed tokens alone. count: of them; edge_weight: at least that of any other."""
    first, n = first_filter(p), p.min_tokens_to_keep
    if p.temperature == 0:
        return count > 0
    if first is None:
        return False
    if first.concept == "top_k":
        return count >= max(p.top_k, n)
    return first.concept == "min_p" and count >= n and edge_weight < bound(ONE, p.min_p)


def first_filter(p: SamplingParams) -> Filter | None:
    return next((f for f, _ in stages(p)), None)


def mask_of(f: Filter, tokens: Listed | Spread, params: list[SamplingParams]) -> torch.Tensor:
    values, least = [getattr(p, f.name) for p in params], [bits_of_count(p.min_tokens_to_keep) for p in params]
    mask: torch.Tensor = getattr(filters, f.concept)(tokens, values, least)
    return mask


@lru_cache(maxsize=1024)
def without(p: SamplingParams, name: str) -> SamplingParams:
    """The parameters with a filter off."""
    off: dict[str, Any] = {name: getattr(PLAIN, name)}
    return replace(p, **off)


@lru_cache(maxsize=1024)
def after_step_0(p: SamplingParams) -> SamplingParams:
    """The parameters without what has acted already."""
    return replace(p, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, logit_bias=None)


def without_bias(packed: PackedParams) -> PackedParams:
    """For the checks of a part, which does not have all tokens that a bias may name."""
    if packed.greatest_biased < 0:
        return packed
    return PackedParams(tuple(replace(p, logit_bias=None) for p in packed.params), slots=packed.slots)


def check_parts(starts: list[int], lengths: list[int], greatest_biased: int) -> None:
    """Raises: ValueError, in all processes."""
    end = 0
    for start, length in sorted(zip(starts, lengths, strict=True)):
        if start < end and length:
            raise ValueError(f"vocab_start: the parts of the vocabulary must not overlap, got {starts} for {lengths}")
        end = max(end, start + length)
    if not 1 <= end <= MAX_VOCABULARY:
        raise ValueError(f"logits_shard must have 1 to {MAX_VOCABULARY} tokens in all processes together, got {end}")
    if greatest_biased >= end:
        raise ValueError(f"logit_bias: a token id must be < {end}, got {greatest_biased}")
