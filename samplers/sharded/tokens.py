"""What the filters see of some rows: their tokens, or a part of them, and sums and orders over all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch

from samplers.fixed_point import distances, surprisal, weights

SIGN = 1 << 31
MAX_KEY = (1 << 32) - 1


class Tokens(ABC):
    """Rows of tokens, in id order.

    x: float32 [B, K], logits; m: float32 [B], the greatest of each whole row. What follows from them is computed when
    it is asked for: many rows never do.
    """

    def __init__(self, x: torch.Tensor, m: torch.Tensor, inverse_temperature: torch.Tensor) -> None:
        self.x, self.m, self.inverse_temperature = x, m, inverse_temperature

    @cached_property
    def kept(self) -> torch.Tensor:
        """The tokens that no filter has cut: bool [B, K]."""
        return self.x > -torch.inf

    @cached_property
    def d(self) -> torch.Tensor:
        """Distances, float32 [B, K]."""
        return distances(self.x, self.m, self.inverse_temperature)

    @cached_property
    def w(self) -> torch.Tensor:
        """Weights, int64 [B, K]."""
        return weights(self.d)

    @cached_property
    def key(self) -> torch.Tensor:
        """The order of the logits: int64 [B, K] in 0 .. 2^32 - 1."""
        return key_of(self.x)

    @abstractmethod
    def total(self) -> list[int]:
        """The mass of the kept tokens of each whole row."""

    @abstractmethod
    def mean_surprisal(self) -> list[int]:
        """D̄ of the kept tokens of each whole row."""

    @abstractmethod
    def prefix(self, keys: torch.Tensor, amounts: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """The first kept tokens (key descending, id ascending) whose amounts reach `least`: bool [B, K].

        keys: int64 [B, K] in 0 .. 2^32 - 1; amounts: int64 [B, K], the same for the same key; least: int64 [B].
        """

    @abstractmethod
    def at_least(self, least: list[int]) -> torch.Tensor:
        """w >= least: bool [B, K]."""

    @abstractmethod
    def nth_greatest(self, n: torch.Tensor) -> torch.Tensor:
        """The key of the n-th greatest logit among the kept, or of the least: int64 [B]."""

    @property
    def ones(self) -> torch.Tensor:
        return torch.ones_like(self.key)

    @property
    def surprisal(self) -> torch.Tensor:
        return surprisal(self.d)

    def numbers(self, values: list[int]) -> torch.Tensor:
        """int64 [B] where the tokens are."""
        return torch.tensor(values, dtype=torch.int64, device=self.x.device)


def key_of(x: torch.Tensor) -> torch.Tensor:
    """The place of each float32 among all, as int64 in 0 .. 2^32 - 1: a greater x has a greater key.

    >>> key_of(torch.tensor([-torch.inf, -1.0, 0.0, 1e-45, torch.inf])).diff().sign()
    tensor([1, 1, 1, 1])
    """
    bits = x.contiguous().view(torch.int32)
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).to(torch.int64) + SIGN  # of a negative number, greater bits are less
