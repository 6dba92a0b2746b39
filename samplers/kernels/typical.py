"""Locally typical sampling (Meister, Pimentel, Wiher & Cotterell 2023, eq. 9-10).

The same as samplers/reference/typical.py.
"""

import triton
import triton.language as tl

from samplers.kernels.counting import before, energy_of
from samplers.kernels.fixed_point import bound, mean_surprisal, surprisal
from samplers.kernels.kept import BY_MASS, MEAN, TYPICAL, count, energy, mass, set_limit, sum_over
from samplers.kernels.keys import LAST_ID, order_of
from samplers.kernels.search import by_typicality, by_typicality_and_id, least_reaching

FURTHEST: tl.constexpr = tl.constexpr(60 << 24)  # the greatest surprisal


@triton.jit
def typical(tokens, limits, total, p, n):
    """Kept: the tokens whose surprisal is nearest the entropy, up to mass p and all ties; at least n."""
    # 1. the distance from typical
    mean = mean_surprisal(sum_over(tokens, limits, energy), total)
    set_limit(limits, MEAN, mean)
    # 2. the least distance within which the mass reaches the target
    target = tl.maximum(1, bound(total, p))
    zero = mean * 0
    furthest, _ = least_reaching(tokens, limits, target, zero, zero + FURTHEST, by_typicality, mass)
    # 3. as a limit
    last = order_of(furthest, LAST_ID)
    if n > 1:
        nth, _ = least_reaching(
            tokens, limits, n, zero, order_of(zero + FURTHEST, LAST_ID), by_typicality_and_id, count
        )
        last = tl.maximum(last, nth)
    set_limit(limits, TYPICAL, last)
    set_limit(limits, BY_MASS, 1)


@triton.jit
def typical_counted(c, kept, total, p, n):
    # 1. the distance from typical
    a = tl.abs(surprisal(c.d) - mean_surprisal(energy_of(c, kept), total))
    # 2. the mass of what is nearer
    _number, nearer = before(c, kept, a)
    # 3. as a set
    within = nearer < tl.maximum(1, bound(total, p))
    if n > 1:
        rank, _mass = before(c, kept, order_of(a, c.ids))
        within |= rank < n
    return kept & within
