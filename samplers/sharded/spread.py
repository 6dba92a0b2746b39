"""Rows whose tokens stay where they are: sums and orders over all processes, by messages of a few numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samplers.reference.fixed_point import ONE
from samplers.reference.sampler import Draw
from samplers.sharded.collectives import Collectives
from samplers.sharded.tokens import Tokens, key_of

DIGIT = 8  # bits of a key that one message settles
DIGITS = 1 << DIGIT


class Sums(NamedTuple):
    """Of the kept tokens of every process, in order: int64 [R, B] on the host."""

    mass: NDArray[np.int64]
    kept: NDArray[np.int64]  # how many
    energy: NDArray[np.int64]  # Σ floor(w·D / 2^24); 0 where no filter needs it


class Spread(Tokens):
    """The part of some rows that this process holds. has_energy: whether a filter needs the mean surprisal."""

    def __init__(
        self,
        x: torch.Tensor,
        m: torch.Tensor,
        inverse_temperature: torch.Tensor,
        has_energy: bool,
        together: Collectives,
    ) -> None:
        super().__init__(x, m, inverse_temperature)
        self.has_energy, self.together = has_energy, together
        self.has_greatest = True  # whether no filter can have cut the greatest logit
        self.known: Sums | None = None

    def rows(self, index: list[int]) -> Spread:
        """Some of the rows, with what is known of them."""
        chosen = object.__new__(Spread)
        vars(chosen).update(vars(self))
        for name in ("x", "m", "d", "w", "kept", "key"):
            setattr(chosen, name, getattr(self, name)[index])
        chosen.known = None if self.known is None else Sums(*(column[:, index] for column in self.known))
        return chosen

    def keep(self, mask: torch.Tensor) -> None:
        self.kept = self.kept & mask
        self.known = None

    @property
    def sums(self) -> Sums:
        """One message after each change of the kept tokens."""
        if self.known is None:
            w = self.w.masked_fill(~self.kept, 0)
            mine = [w.sum(1), self.kept.sum(1)]
            if self.has_energy:
                mine.append((w * self.surprisal >> 24).sum(1))
            columns = self.together.gathered(torch.stack(mine)).cpu().numpy().swapaxes(0, 1)
            self.known = Sums(columns[0], columns[1], columns[-1] if self.has_energy else 0 * columns[0])
        return self.known

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
            mine = amounts.masked_fill(keys >> shift + DIGIT != beginning[:, None], 0)
            digits = mine.new_zeros((len(keys), DIGITS)).scatter_add_(1, keys >> shift & DIGITS - 1, mine)
            by_digit = self.together.summed(digits)
            down_to = above[:, None] + by_digit.flip(1).cumsum(1).flip(1)
            digit = ((down_to >= least[:, None]).sum(1, keepdim=True) - 1).clamp(min=0)
            above = (down_to - by_digit).gather(1, digit)[:, 0]
            beginning = beginning << DIGIT | digit[:, 0]
        return beginning, above

    def draw(self, bits: list[int], start: int, details: bool) -> list[Draw]:
        """Steps 5 and 6, with 64 random bits a row. start: of this part of the vocabulary."""
        sums, totals, place = self.sums, self.total(), self.together.place
        u = np.array([r * total >> 64 for r, total in zip(bits, totals, strict=True)], np.int64)
        u -= sums.mass[:place].sum(0)  # counted from the first token of this part
        is_own = self.numbers(((u >= 0) & (u < sums.mass[place])).tolist())
        w = self.w.masked_fill(~self.kept, 0)
        index = (w.cumsum(1) <= self.numbers(u.tolist())[:, None]).sum(1).clamp(max=w.shape[1] - 1)
        mine = torch.stack([index + start, w.gather(1, index[:, None])[:, 0]]) * is_own
        tokens, chosen = self.together.summed(mine).tolist()
        entropies = self.entropies() if details else [math.nan] * len(totals)
        rows = zip(tokens, chosen, totals, sums.kept.sum(0).tolist(), entropies, strict=True)
        return [Draw(token, w, total, kept, math.log(w / total), entropy) for token, w, total, kept, entropy in rows]

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
