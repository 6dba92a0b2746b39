"""Top-k (Fan, Lewis & Dauphin 2018): the k greatest logits, and every one that equals the last of them.

The same as samplers/reference/top_k.py.
"""

import triton
import triton.language as tl

from samplers.kernels.kept import PREFIX, count, set_limit
from samplers.kernels.order import LAST_ID, key_of, order_of
from samplers.kernels.search import by_logit, last_key, least_reaching


@triton.jit
def nth_greatest(tokens, limits, n):
    """The last token, in order, that is as great as the n-th, or the last of all where there are fewer: int64."""
    low, high = key_of(tokens.m).to(tl.int64), last_key(limits)
    key, _ = least_reaching(tokens, limits, n, low, high, by_logit, count)
    return order_of(key, LAST_ID)


@triton.jit
def top_k(tokens, limits, k, n):
    """Kept: x >= the max(k, n)-th greatest of x."""
    set_limit(limits, PREFIX, nth_greatest(tokens, limits, tl.maximum(k, n)))
