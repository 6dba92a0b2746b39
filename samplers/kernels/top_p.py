"""Top-p, nucleus sampling (Holtzman et al. 2020, eq. 2-3): the fewest tokens that hold mass p.

The same as samplers/reference/top_p.py.
"""

import triton
import triton.language as tl

from samplers.kernels.fixed_point import bound
from samplers.kernels.kept import PREFIX, mass, set_limit
from samplers.kernels.order import first_in_order, prefix_reaching


@triton.jit
def top_p(tokens, limits, total, p, n):
    """Kept: the shortest prefix in order whose mass reaches p, at least n tokens; ties at the edge are cut by id."""
    # 1. and 2. the first prefix that reaches the target
    last = prefix_reaching(tokens, limits, tl.maximum(1, bound(total, p)), mass)
    # 3. as a limit
    if n > 1:
        last = tl.maximum(last, first_in_order(tokens, limits, n))
    set_limit(limits, PREFIX, last)
