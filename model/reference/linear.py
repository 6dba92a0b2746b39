"""The product of rows with a matrix, in one order of summation."""

import numpy as np

from model.reference.fused import fma

BLOCK = 128  # inputs of one chain: a single chain over all of them would lose digits


def linear(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x [M, K] · w [N, K]ᵀ + bias [N] -> float32 [M, N]. Weights of 16 bits are widened first, which is exact.

    >>> linear(np.float32([[1, 2]]), np.float32([[3, 4], [5, 6], [7, 8]]))
    array([[11., 17., 23.]], dtype=float32)
    """
    # 1. For each block, a chain of fused multiply-adds from 0, k ascending.
    sums = []
    for begin in range(0, x.shape[1], BLOCK):
        chain = np.zeros((len(x), len(w)), np.float32)
        for k in range(begin, min(begin + BLOCK, x.shape[1])):
            chain = fma(x[:, k, None], w[None, :, k], chain)
        sums.append(chain)
    # 2. The blocks' sums, added in order.
    y = sums[0]
    for chain in sums[1:]:
        y = y + chain
    # 3. The bias.
    return y if bias is None else y + bias
