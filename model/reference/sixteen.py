"""Sums in sixteen lanes: lane i has the numbers whose index is i mod 16."""

import numpy as np


def lanes(x: np.ndarray) -> np.ndarray:
    """x [n] as rows of sixteen, the last one filled up with 0: [ceil(n / 16), 16]."""
    return np.pad(x, (0, -len(x) % 16)).reshape(-1, 16)


def folded(sums: np.ndarray) -> np.float32:
    """The sum of sixteen numbers: lane i plus lane i + 8, then 4, 2, 1 apart.

    >>> folded(np.arange(16, dtype=np.float32))
    np.float32(120.0)
    """
    while len(sums) > 1:
        half = len(sums) // 2
        sums = sums[:half] + sums[half:]
    return sums[0]
