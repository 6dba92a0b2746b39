"""Top-p, nucleus sampling (Holtzman et al. 2020, eq. 2-3): the fewest tokens that hold mass p.

The same as samplers/reference/top_p.py.
"""

import triton
import triton.language as tl

from samplers.kernels.counting import before, by_order
from samplers.kernels.fixed_point import bound
from samplers.kernels.kept import PREFIX, mass, set_limit
from samplers.kernels.order import first_in_order, prefix_reaching
from samplers.kernels.wide_top_p import is_wide, wide_prefix_reaching


@triton.jit
def mass_to_reach(total, p):
    return tl.maximum(1, bound(total, p))


@triton.jit
def top_p(tokens, limits, total, p, n, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Kept: the shortest prefix in order whose mass reaches p, at least n tokens; ties at the edge are cut by id."""
    # 1. and 2. the first prefix that reaches the target
    target = mass_to_reach(total, p)
    if is_wide(tokens):
        last = wide_prefix_reaching(tokens, limits, target, total, scratch, WARPS, STEPS)
    else:
        last = prefix_reaching(tokens, limits, target, mass)
    # 3. as a limit
    if n > 1:
        last = tl.maximum(last, first_in_order(tokens, limits, n))
    set_limit(limits, PREFIX, last)


@triton.jit
def top_p_counted(c, kept, total, p, n):
    number, mass_before = before(c, kept, by_order(c))
    return kept & ((mass_before < mass_to_reach(total, p)) | (number < n))
