"""The filters on rows that are listed or spread over processes: the masks of `samplers/reference/`, by the same names.

Each takes the tokens, its value and min_tokens_to_keep of every row, and returns the tokens to keep, bool [B, K]. A
list never needs `typical`: what it keeps need not be the greatest.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from samplers.reference import fixed_point as exact
from samplers.reference.filters import bits_of_count
from samplers.reference.fixed_point import ONE, bound
from samplers.sharded.spread import Spread
from samplers.sharded.tokens import MAX_KEY, Tokens


def top_k(tokens: Tokens, k: list[int], n: list[int]) -> torch.Tensor:
    size = tokens.numbers([bits_of_count(max(both)) for both in zip(k, n, strict=True)])
    return tokens.key >= tokens.nth_greatest(size)[:, None]


def top_p(tokens: Tokens, p: list[float], n: list[int]) -> torch.Tensor:
    target = [max(1, bound(mass, q)) for mass, q in zip(tokens.total(), p, strict=True)]
    return tokens.prefix(tokens.key, tokens.w, tokens.numbers(target)) | first(tokens, tokens.key, n)


def min_p(tokens: Tokens, fraction: list[float], n: list[int]) -> torch.Tensor:
    return tokens.at_least([bound(ONE, q) for q in fraction]) | first(tokens, tokens.key, n)


def typical(tokens: Spread, p: list[float], n: list[int]) -> torch.Tensor:
    # 1. the distance from typical, the nearest with the greatest key
    a = (tokens.surprisal - tokens.numbers(tokens.mean_surprisal())[:, None]).abs()
    nearness = MAX_KEY - a
    # 2. the least distance within which the mass reaches the target
    target = [max(1, bound(mass, q)) for mass, q in zip(tokens.total(), p, strict=True)]
    furthest = tokens.threshold(nearness, tokens.w, tokens.numbers(target))
    # 3. as a set
    tokens.has_greatest = False
    return (nearness >= furthest[:, None]) | first(tokens, nearness, n)


def epsilon(tokens: Tokens, cutoff: list[float], n: list[int]) -> torch.Tensor:
    least = [bound(mass, q) for mass, q in zip(tokens.total(), cutoff, strict=True)]
    return tokens.at_least(least) | (tokens.key >= tokens.nth_greatest(tokens.numbers(n))[:, None])


def eta(tokens: Tokens, cutoff: list[float], n: list[int]) -> torch.Tensor:
    flat = exact.weights(np.array([-mean * 2.0**-24 for mean in tokens.mean_surprisal()], np.float32)).tolist()
    rows = zip(tokens.total(), flat, cutoff, strict=True)
    least = [min(bound(mass, q), bound(weight, math.sqrt(q))) for mass, weight, q in rows]
    return tokens.at_least(least) | (tokens.key >= tokens.nth_greatest(tokens.numbers(n))[:, None])


def first(tokens: Tokens, keys: torch.Tensor, n: list[int]) -> torch.Tensor:
    """The first n in order; where n is 1, every filter that asks has kept it."""
    if max(n) == 1:
        return torch.zeros_like(tokens.kept)
    return tokens.prefix(keys, tokens.ones, tokens.numbers(n))
