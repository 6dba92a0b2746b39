"""Cutoffs on the probability: min-p, epsilon and eta. The same as samplers/reference/cutoffs.py."""

import triton
import triton.language as tl

from samplers.kernels.counting import before, by_logit, by_order, energy_of
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
def min_p_counted(c, kept, fraction, n):
    number, _ = before(c, kept, by_order(c))
    return kept & ((c.w >= bound(tl.full((), ONE, tl.int64), fraction)) | (number < n))


@triton.jit
def epsilon(tokens, limits, total, cutoff, n):
    """Kept: p >= cutoff, and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, sec. 4.2)."""
    set_cutoff(limits, EPSILON, bound(total, cutoff), nth_greatest(tokens, limits, n))


@triton.jit
def at_least(c, kept, least, n):
    greater, _ = before(c, kept, by_logit(c))
    return kept & ((c.w >= least) | (greater < n))


@triton.jit
def epsilon_counted(c, kept, total, cutoff, n):
    return at_least(c, kept, bound(total, cutoff), n)


@triton.jit
def least_of_eta(mean, total, cutoff, sqrt_cutoff):
    """The least mass that eta keeps; mean: D̄."""
    flat = weight(mean.to(tl.float32) * (-1 / TWO_24))
    return tl.minimum(bound(total, cutoff), bound(flat, sqrt_cutoff))


@triton.jit
def eta(tokens, limits, total, cutoff, sqrt_cutoff, n):
    """Kept: p >= min(cutoff, √cutoff·e^-H), and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, eq. 4)."""
    mean = mean_surprisal(sum_over(tokens, limits, energy), total)
    set_cutoff(limits, ETA, least_of_eta(mean, total, cutoff, sqrt_cutoff), nth_greatest(tokens, limits, n))


@triton.jit
def eta_counted(c, kept, total, cutoff, sqrt_cutoff, n):
    mean = mean_surprisal(energy_of(c, kept), total)
    return at_least(c, kept, least_of_eta(mean, total, cutoff, sqrt_cutoff), n)
