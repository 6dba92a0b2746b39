"""The greatest logits of every process, in one list that all of them have: every token above an edge.

Most rows are settled by it, because what they keep lies above the edge. Whether it does is checked, never assumed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from samplers.fixed_point import distances, weights
from samplers.sharded.collectives import Collectives
from samplers.sharded.shard import Shard
from samplers.sharded.spread import Spread
from samplers.sharded.tokens import Tokens


class Lists:
    """The first message of every process: the `size` greatest logits of each row, and the next one.

    x: float32 [B, S], -inf where there is none; ids: int64 [B, S], ascending. edge: float32 [B], the greatest logit
    that is not listed; m: float32 [B], the greatest of the whole row, NaN if the row holds one. starts, lengths: of the
    parts of the vocabulary, by rank.
    """

    def __init__(self, shard: Shard, size: int, together: Collectives) -> None:
        batch, ranks = len(shard.x), together.size
        greatest, ids = shard.x.topk(min(size + 1, shard.x.shape[1]), dim=1)
        missing = (0, size + 1 - greatest.shape[1])
        greatest, ids = F.pad(greatest, missing, value=-torch.inf), F.pad(ids + shard.start, missing)[:, :size]
        by_id = ids.argsort(dim=1)
        values = torch.cat([greatest[:, :size].gather(1, by_id), greatest[:, size:]], 1)
        place = ids.new_tensor([shard.start, shard.length])
        message = [place.int(), values.view(torch.int32).flatten(), ids.gather(1, by_id).int().flatten()]
        parts = together.gathered(torch.cat(message))
        self.starts, self.lengths = parts[:, 0].tolist(), parts[:, 1].tolist()
        together.sort(self.starts)
        found, found_ids = parts[together.order, 2:].split([values.numel(), ids.numel()], dim=1)
        found = found.contiguous().view(torch.float32).view(ranks, batch, size + 1)
        x, edges = found[:, :, :size].transpose(0, 1).flatten(1), found[:, :, size]
        self.ids = found_ids.view(ranks, batch, size).transpose(0, 1).flatten(1).long()
        self.edge = edges.amax(0)
        self.m = torch.cat([x, self.edge[:, None]], 1).amax(1)
        self.x = x.masked_fill(x <= self.edge[:, None], -torch.inf)  # of the tokens at the edge, some may be missing


class Listed(Tokens):
    """Rows of the list, with the sums of the whole rows.

    is_complete: bool [B], whether the filters so far would have cut every token that is not listed.
    """

    def __init__(self, x: torch.Tensor, edge: torch.Tensor, m: torch.Tensor, inverse_temperature: torch.Tensor) -> None:
        super().__init__(x, m, inverse_temperature)
        self.edge_weight = greatest_weight(edge, m, inverse_temperature)
        self.is_complete = torch.ones_like(edge, dtype=torch.bool)
        self.totals: list[int] = []
        self.means: list[int] = []

    def learn(self, spread: Spread, places: list[int]) -> None:
        """The sums of the rows, from their places among those that are spread."""
        totals, means = spread.total(), spread.mean_surprisal() if spread.has_energy else spread.total()
        self.totals, self.means = ([column[place] for place in places] for column in (totals, means))

    def total(self) -> list[int]:
        return self.totals

    def mean_surprisal(self) -> list[int]:
        return self.means

    def prefix(self, keys: torch.Tensor, amounts: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        order = keys.masked_fill(~self.kept, -1).argsort(dim=1, descending=True, stable=True)
        reached = amounts.masked_fill(~self.kept, 0).gather(1, order).cumsum(1) >= least[:, None]
        self.is_complete &= reached.any(1)
        before = (~reached).sum(1, keepdim=True)  # how many do not reach it
        return (order.argsort(1) <= before) & self.kept

    def at_least(self, least: list[int]) -> torch.Tensor:
        bounds = self.numbers(least)
        self.is_complete &= self.edge_weight < bounds
        return self.w >= bounds[:, None]

    def nth_greatest(self, n: torch.Tensor) -> torch.Tensor:
        self.is_complete &= self.kept.sum(1) >= n
        ordered = self.key.masked_fill(~self.kept, 0).sort(dim=1, descending=True).values
        ordered = F.pad(ordered, (0, 1))  # 0 beyond the list
        return ordered.gather(1, (n - 1).clamp(max=ordered.shape[1] - 1)[:, None])[:, 0]


def greatest_weight(edge: torch.Tensor, m: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """At least the weight of every logit up to the edge: int64 [B].

    W is not monotone: a lesser d has at most one float32 step more, 2^-23 of its weight (all d in [-60, 0] were tried).
    """
    w = weights(distances(edge[:, None], m, inverse_temperature))[:, 0]
    return w + (w >> 20) + 2
