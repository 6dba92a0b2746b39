"""The search behind every filter: the least key such that the tokens up to it hold the target mass.

Each round tries WAYS keys at once and leaves one of WAYS parts. Integers may be added in any order, so the result does
not depend on the order of the tokens or on the tried keys.
"""

import triton
import triton.language as tl

from samplers.kernels.kept import PART, is_kept, load, typicality
from samplers.kernels.keys import key_of, order_of

WAYS: tl.constexpr = tl.constexpr(8)


@triton.jit
def by_logit(x, ids, tokens, limits):
    return key_of(x).to(tl.int64)


@triton.jit
def by_order(x, ids, tokens, limits):
    return order_of(key_of(x), ids)


@triton.jit
def by_id(x, ids, tokens, limits):
    return ids.to(tl.int64)


@triton.jit
def by_typicality(x, ids, tokens, limits):
    return typicality(x, tokens, limits)


@triton.jit
def by_typicality_and_id(x, ids, tokens, limits):
    return order_of(typicality(x, tokens, limits), ids)


@triton.jit
def sums_up_to(keys, tokens, limits, key_by: tl.constexpr, quantity: tl.constexpr):
    """For each of keys [WAYS], the sum of the quantity over the kept tokens up to it."""
    sums = tl.zeros([WAYS], tl.int64)
    for start in range(0, tokens.size, PART):
        x, ids = load(tokens, start, PART)
        amount = tl.where(is_kept(x, ids, tokens, limits), quantity(x, tokens), 0)  # [PART]
        key = key_by(x, ids, tokens, limits)
        sums += tl.sum(tl.where(key[:, None] <= keys[None, :], amount[:, None], 0), axis=0)
    return sums


@triton.jit(noinline=True)
def least_reaching(tokens, limits, target, low, high, key_by: tl.constexpr, quantity: tl.constexpr):
    """The least key in low .. high up to which the sum of the quantity reaches the target, and that sum.

    It is `high` if even the sum of all does not reach the target.
    """
    reached = target - 1  # forces a first round
    while (low < high) | (reached < target):
        step = (high - low) // WAYS + 1
        keys = tl.minimum(low + step * (tl.arange(0, WAYS) + 1) - 1, high)  # [WAYS]
        sums = sums_up_to(keys, tokens, limits, key_by, quantity)
        short = tl.minimum(tl.sum((sums < target).to(tl.int64)), WAYS - 1)
        low = tl.minimum(low + short * step, high)
        high = tl.minimum(low + step - 1, high)
        reached = tl.maximum(tl.min(tl.where(sums < target, tl.max(sums), sums)), target)
    return low, reached
