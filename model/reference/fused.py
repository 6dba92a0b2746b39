"""The fused multiply-add, on which every sum of the forward pass rests."""

import numpy as np


def fma(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """a·b + c in float32, rounded once, as the instruction of that name.

    In float64 the product is exact, but rounding the sum to float64 and then to float32 would round twice. So the
    float64 sum is rounded *to odd* (Boldo & Melquiond 2008): where it is inexact and its last bit is 0, it moves to the
    neighbour on the side of its error. The second rounding then sees on which side of a tie it lies.

    >>> a, c = np.float32([1 + 2**-12]), np.float32([2**-60])
    >>> float(fma(a, a, c)[0]), float(np.float32(a.astype(float) * a + c)[0])  # the tie 1 + 2^-11 + 2^-24, and a little
    (1.0004884004592896, 1.00048828125)
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = np.asarray(a, np.float64) * b
        total = np.asarray(product + c)
        # 1. What the sum lost (Knuth's TwoSum).
        rest = total - product
        error = (product - (total - rest)) + (c - rest)
        # 2. Round to odd.
        bits = total.view(np.int64)
        moves = ((error < 0) | (error > 0)) & (bits & 1 == 0)
        away = np.where((error > 0) == (total > 0), 1, -1)  # from zero, or towards it
        return np.where(moves, bits + away, bits).view(np.float64).astype(np.float32)
