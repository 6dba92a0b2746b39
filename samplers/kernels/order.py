"""The order of tokens: logit descending, then id ascending. The same as samplers/reference/order.py.

One integer represents a prefix of the order: the place of its last token (`keys.order_of`).
"""

import triton
import triton.language as tl

from samplers.kernels.kept import BY_MASS, PREFIX, count
from samplers.kernels.keys import ID_BITS, LAST_ID, key_of, logit_of, order_of
from samplers.kernels.search import by_logit, by_order, least_reaching


@triton.jit
def last_key(limits):
    """A key that no kept token exceeds: int64."""
    return tl.load(limits + PREFIX) >> ID_BITS


@triton.jit
def prefix_reaching(tokens, limits, target, quantity: tl.constexpr):
    """The last token of the shortest prefix in which the sum of the quantity reaches the target."""
    return last_of_prefix(tokens, limits, target, key_of(tokens.m).to(tl.int64), last_key(limits), quantity)


@triton.jit
def last_of_prefix(tokens, limits, target, low, high, quantity: tl.constexpr):
    """The same, if the last logit is known to have a key in low .. high."""
    key, reached = least_reaching(tokens, limits, target, low, high, by_logit, quantity)
    last = order_of(key, LAST_ID)
    if reached - quantity(logit_of(key.to(tl.int32)), tokens) >= target:  # without the last of the equal logits
        last, _ = least_reaching(tokens, limits, target, order_of(key, 0), last, by_order, quantity)
    return last


@triton.jit
def first_in_order(tokens, limits, n):
    """The last of the n greatest tokens, ties by lowest id: int64."""
    return prefix_reaching(tokens, limits, n, count)


@triton.jit
def nth_greatest(tokens, limits, n):
    """The last token whose logit equals the n-th greatest, or the last of all if there are fewer: int64."""
    key, high = key_of(tokens.m).to(tl.int64), last_key(limits)
    if (n > 1) | (tl.load(limits + BY_MASS) != 0):  # else the greatest of all is kept
        key, _ = least_reaching(tokens, limits, n, key, high, by_logit, count)
    return order_of(key, LAST_ID)
