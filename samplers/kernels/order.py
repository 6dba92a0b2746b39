"""The order of tokens: logit descending, then id ascending. The same as samplers/reference/order.py.

A prefix of the order is one integer, the key of its last token (`keys.order_of`).
"""

import triton
import triton.language as tl

from samplers.kernels.kept import PREFIX, count
from samplers.kernels.keys import ID_BITS, LAST_ID, key_of, logit_of, order_of
from samplers.kernels.search import by_logit, by_order, least_reaching


@triton.jit
def last_key(limits):
    """No kept token has a greater key: int64."""
    return tl.load(limits + PREFIX) >> ID_BITS


@triton.jit
def prefix_reaching(tokens, limits, target, what: tl.constexpr):
    """The last token, in order, of the shortest prefix in which the sum of `what` reaches the target."""
    low, high = key_of(tokens.m).to(tl.int64), last_key(limits)
    key, reached = least_reaching(tokens, limits, target, low, high, by_logit, what)
    last = order_of(key, LAST_ID)
    if reached - what(logit_of(key.to(tl.int32)), tokens) >= target:  # the last of the equal logits is not needed
        last, _ = least_reaching(tokens, limits, target, order_of(key, 0), last, by_order, what)
    return last


@triton.jit
def first_in_order(tokens, limits, n):
    """The last of the n greatest tokens, ties by lowest id: int64."""
    return prefix_reaching(tokens, limits, n, count)


@triton.jit
def nth_greatest(tokens, limits, n):
    """The last token, in order, that is as great as the n-th, or the last of all where there are fewer: int64."""
    low, high = key_of(tokens.m).to(tl.int64), last_key(limits)
    key, _ = least_reaching(tokens, limits, n, low, high, by_logit, count)
    return order_of(key, LAST_ID)
