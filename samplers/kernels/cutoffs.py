"""Cutoffs on the probability: min-p, epsilon and eta. The same as samplers/reference/cutoffs.py."""

import triton
import triton.language as tl

from samplers.kernels.fixed_point import ONE, TWO_24, bound, mean_surprisal, weight
from samplers.kernels.kept import EPSILON, ETA, MIN_P, energy, set_cutoff, sum_over
from samplers.kernels.keys import FIRST
from samplers.kernels.order import first_in_order, nth_greatest


@triton.jit
def min_p(tokens, limits, fraction, n):
    """Kept: p >= fraction · (the greatest p, whose mass is ONE), and the first n in order (Nguyen et al. 2024)."""
    least = bound(tl.full((), ONE, tl.int64), fraction)
    first = tl.full((), FIRST, tl.int64)
    if n > 1:
        first = first_in_order(tokens, limits, n)
    set_cutoff(limits, MIN_P, least, first)


@triton.jit
def epsilon(tokens, limits, total, cutoff, n):
    """Kept: p >= cutoff, and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, sec. 4.2)."""
    set_cutoff(limits, EPSILON, bound(total, cutoff), nth_greatest(tokens, limits, n))


@triton.jit
def eta(tokens, limits, total, cutoff, sqrt_cutoff, n):
    """Kept: p >= min(cutoff, √cutoff·e^-H), and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, eq. 4)."""
    mean = mean_surprisal(sum_over(tokens, limits, energy), total)
    flat = weight(mean.to(tl.float32) * (-1 / TWO_24))
    least = tl.minimum(bound(total, cutoff), bound(flat, sqrt_cutoff))
    set_cutoff(limits, ETA, least, nth_greatest(tokens, limits, n))
