"""Cutoffs on the probability: min-p, epsilon and eta."""

import math

import numpy as np

from samplers.reference.fixed_point import bound, mean_surprisal, weights
from samplers.reference.order import first_in_order, nth_greatest


def min_p(x: np.ndarray, w: np.ndarray, fraction: float, n: int) -> np.ndarray:
    """Kept: p >= fraction · (the greatest p), and the first n in order (Nguyen et al. 2024).

    >>> min_p(np.float32([3, 2, 1]), np.array([50, 25, 10]), 0.5, n=1)
    array([ True,  True, False])
    """
    return (w >= bound(int(w.max()), fraction)) | first_in_order(x, n)


def epsilon(x: np.ndarray, w: np.ndarray, cutoff: float, n: int) -> np.ndarray:
    """Kept: p >= cutoff, and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, sec. 4.2).

    >>> epsilon(np.float32([3, 2, 1]), np.array([50, 25, 10]), 0.2, n=1)
    array([ True,  True, False])
    """
    return (w >= bound(int(w.sum()), cutoff)) | (x >= nth_greatest(x, n))


def eta(x: np.ndarray, d: np.ndarray, w: np.ndarray, cutoff: float, n: int) -> np.ndarray:
    """Kept: p >= min(cutoff, √cutoff·e^-H), and every x >= the n-th greatest (Hewitt, Manning & Liang 2022, eq. 4).

    As a weight, total·e^-H is 2^40·e^-D̄, because the entropy's ln(total) cancels.
    """
    flat = weights(np.array([-mean_surprisal(d, w) * 2.0**-24], np.float32))
    least = min(bound(int(w.sum()), cutoff), bound(int(flat[0]), math.sqrt(cutoff)))
    return (w >= least) | (x >= nth_greatest(x, n))
