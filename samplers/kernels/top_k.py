"""Top-k (Fan, Lewis & Dauphin 2018): the k greatest logits, and all that equal the last of them.

The same as samplers/reference/top_k.py.
"""

import triton
import triton.language as tl

from samplers.kernels.counting import before, by_logit
from samplers.kernels.kept import PREFIX, set_limit
from samplers.kernels.order import nth_greatest


@triton.jit
def top_k(tokens, limits, k, n):
    """Kept: x >= the max(k, n)-th greatest of x."""
    set_limit(limits, PREFIX, nth_greatest(tokens, limits, tl.maximum(k, n)))


@triton.jit
def top_k_counted(c, kept, k, n):
    greater, _ = before(c, kept, by_logit(c))
    return kept & (greater < tl.maximum(k, n))
