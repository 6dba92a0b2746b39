"""RMSNorm (Zhang & Sennrich 2019, eq. 4)."""

import numpy as np

from model.reference.fused import fma
from model.reference.sixteen import folded, lanes


def norm(x: np.ndarray, w: np.ndarray, eps: float) -> np.ndarray:
    """x / sqrt(mean(x²) + eps) · w for one row: float32 [E].

    >>> norm(np.float32([3, 4]), np.float32([1, 2]), 1e-5)
    array([0.8485278, 2.2627409], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # 1. The sum of the squares, by fused multiply-adds in sixteen lanes.
        sums = np.zeros(16, np.float32)
        for row in lanes(x):
            sums = fma(row, row, sums)
        # 2. The factor.
        r = np.float32(1) / np.sqrt(folded(sums) / np.float32(len(x)) + np.float32(eps))
        # 3. The product with it, then with the weights.
        return x * r * w
