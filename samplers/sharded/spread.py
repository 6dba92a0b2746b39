"""Rows whose tokens stay where they are: sums and orders over all processes, by messages of a few numbers."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from samplers.fixed_point import distances, weights
from samplers.params import SamplingParams
from samplers.reference.filters import stages
from samplers.reference.fixed_point import ONE
from samplers.reference.sampler import Draw
from samplers.sampler import sample
from samplers.sharded.collectives import Collectives
from samplers.sharded.tokens import Tokens, key_of

DIGIT = 8  # bits of a key that one message settles
DIGITS = 1 << DIGIT
CHUNK = 1024  # tokens
BY_SURPRISAL = ("typical", "eta")  # filters that need its mean


class Sums(NamedTuple):
    """Of the kept tokens of every process, in order: int64 [R, B] on the host."""

    mass: NDArray[np.int64]
    kept: NDArray[np.int64]  # how many
    energy: NDArray[np.int64]  # Σ floor(w·D / 2^24); 0 where no filter needs it


class Spread(Tokens):
    """The part of some rows that this process holds."""

    def __init__(
        self,
        x: torch.Tensor,
        m: torch.Tensor,
        inverse_temperature: torch.Tensor,
        params: list[SamplingParams],
        together: Collectives,
    ) -> None:
        super().__init__(x, m, inverse_temperature)
        self.params, self.together = params, together
        self.has_energy = any(f.concept in BY_SURPRISAL for p in params for f, _ in stages(p))
        self.is_whole = True  # whether no filter has acted
        self.has_greatest = True  # whether no filter can have cut the greatest logit
        self.known: Sums | None = None

    def rows(self, index: list[int]) -> Spread:
        """Some of the rows, with what is known of them."""
        chosen = object.__new__(Spread)
        vars(chosen).update({n: v[index] if isinstance(v, torch.Tensor) else v for n, v in vars(self).items()})
        chosen.params = [self.params[place] for place in index]
        chosen.known = None if self.known is None else Sums(*(column[:, index] for column in self.known))
        return chosen

    def keep(self, mask: torch.Tensor) -> None:
        self.kept = self.kept & mask
        self.is_whole, self.known = False, None

    @property
    def sums(self) -> Sums:
        """One message after each change of the kept tokens."""
        if self.known is None:
            columns = self.together.gathered(torch.stack(self.own_sums())).cpu().numpy().swapaxes(0, 1)
            self.known = Sums(columns[0], columns[1], columns[-1] if self.has_energy else 0 * columns[0])
        return self.known

    def own_sums(self) -> list[torch.Tensor]:
        sums = list(masses(self.kept_x, self.m, self.params))
        if self.has_energy:
            sums.append((self.w * self.surprisal >> 24).masked_fill(~self.kept, 0).sum(1))
        return sums

    @property
    def kept_x(self) -> torch.Tensor:
        """-inf for tokens that were cut."""
        return self.x if self.is_whole else self.x.masked_fill(~self.kept, -torch.inf)

    def total(self) -> list[int]:
        return self.sums.mass.sum(0).tolist()

    def mean_surprisal(self) -> list[int]:
        energy = self.sums.energy.sum(0).tolist()
        return [(e << 24) // mass for e, mass in zip(energy, self.total(), strict=True)]

    def threshold(self, keys: torch.Tensor, amounts: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """The greatest key down to which the kept tokens' amounts reach `least`; 0 if none does. int64 [B].

        Digit by digit, from the highest: one message has the amounts by digit of all keys that begin like the one
        sought.
        """
        return self.found(keys, amounts, least)[0]

    def prefix(self, keys: torch.Tensor, amounts: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        last, above = self.found(keys, amounts, least)
        tied = self.kept & (keys == last[:, None])
        mine = torch.stack([tied.sum(1), amounts.masked_fill(~tied, 0).sum(1)])
        count, amount = self.together.gathered(mine).unbind(1)  # [R, B] each
        each = (amount.sum(0) // count.sum(0).clamp(min=1)).clamp(min=1)
        needed = -((above - least) // each)  # rounded up
        before = count[: self.together.place].sum(0)
        return self.kept & (keys > last[:, None]) | tied & (tied.cumsum(1) <= (needed - before)[:, None])

    def found(
        self, keys: torch.Tensor, amounts: torch.Tensor, least: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The threshold, and the amount of all keys above it: int64 [B] each."""
        amounts = amounts.masked_fill(~self.kept, 0)
        beginning, above = torch.zeros_like(least), torch.zeros_like(least)
        for shift in range(32 - DIGIT, -1, -DIGIT):
            digits = (keys >> shift).bitwise_and_(DIGITS - 1)
            by_digit = self.together.summed(amounts.new_zeros((len(keys), DIGITS)).scatter_add_(1, digits, amounts))
            down_to = above[:, None] + by_digit.flip(1).cumsum(1).flip(1)
            digit = ((down_to >= least[:, None]).sum(1, keepdim=True) - 1).clamp(min=0)
            above = (down_to - by_digit).gather(1, digit)[:, 0]
            beginning = beginning << DIGIT | digit[:, 0]
            amounts.masked_fill_(digits != digit, 0)  # keys that begin otherwise
        return beginning, above

    def draw(self, bits: list[int], start: int, details: bool) -> list[Draw]:
        """Steps 5 and 6, with 64 random bits a row. start: of this part of the vocabulary."""
        sums, totals, place = self.sums, self.total(), self.together.place
        u = np.array([r * total >> 64 for r, total in zip(bits, totals, strict=True)], np.int64)
        u -= sums.mass[:place].sum(0)  # counted from the first token of this part
        own = np.flatnonzero((u >= 0) & (u < sums.mass[place])).tolist()
        mine = torch.zeros((2, len(bits)), dtype=torch.int64, device=self.x.device)
        if own:
            mine[:, own] = torch.stack(self.token_at(own, self.numbers(u[own].tolist()), start))
        tokens, chosen = self.together.summed(mine).tolist()
        entropies = self.entropies() if details else [math.nan] * len(totals)
        fields = zip(tokens, chosen, totals, sums.kept.sum(0).tolist(), entropies, strict=True)
        return [Draw(token, w, total, kept, math.log(w / total), entropy) for token, w, total, kept, entropy in fields]

    def token_at(self, rows: list[int], mass: torch.Tensor, start: int) -> list[torch.Tensor]:
        """The token of each of these rows that a running mass falls into, in id order, and its weight: int64 [b] each.

        The kernels find the mass of each chunk of the row; one chunk is then weighed token by token.
        """
        x, m, inverse_temperature = (column[rows] for column in (self.kept_x, self.m, self.inverse_temperature))
        chunks = F.pad(x, (0, -x.shape[1] % CHUNK), value=-torch.inf).unflatten(1, (-1, CHUNK))
        size, count = chunks.shape[:2]
        repeated = [self.params[row] for row in rows for _ in range(count)]
        by_chunk, _ = masses(chunks.flatten(0, 1), m.repeat_interleave(count), repeated)
        up_to = by_chunk.view(size, count).cumsum(1)
        chunk = (up_to <= mass[:, None]).sum(1)
        rest = mass - F.pad(up_to, (1, 0)).gather(1, chunk[:, None])[:, 0]
        x = chunks[torch.arange(size), chunk]
        w = weights(distances(x, m, inverse_temperature)).masked_fill(x == -torch.inf, 0)
        index = (w.cumsum(1) <= rest[:, None]).sum(1)
        return [index + chunk * CHUNK + start, w.gather(1, index[:, None])[:, 0]]

    def entropies(self) -> list[float]:
        """In nats; the sum of this part's terms travels as one float64 a row."""
        mine = (self.w * self.d.double()).masked_fill(~self.kept, 0).sum(1)
        sums = self.together.gathered(mine).sum(0).tolist()
        return [math.log(total / ONE) - term / total for total, term in zip(self.total(), sums, strict=True)]

    def at_least(self, least: list[int]) -> torch.Tensor:
        return self.w >= self.numbers(least)[:, None]

    def nth_greatest(self, n: torch.Tensor) -> torch.Tensor:
        if self.has_greatest and bool((n == 1).all()):
            return key_of(self.m)
        return self.threshold(self.key, self.ones, n)


def masses(x: torch.Tensor, m: torch.Tensor, params: list[SamplingParams]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mass of the tokens above -inf, and how many there are: int64 [B] each.

    The kernels add the weights of a row up as they read it. The greatest logit of the whole row stands before it, for
    the scale.
    """
    rows = torch.cat([m[:, None], x], 1)
    out = sample(rows, [plain(p.temperature or 1.0) for p in params], seed=0)
    return out.total - ONE, out.kept.long() - 1


@lru_cache(maxsize=1024)
def plain(temperature: float) -> SamplingParams:
    return SamplingParams(temperature)
