"""Top-p, nucleus sampling (Holtzman et al. 2020, eq. 2-3): the fewest tokens that hold mass p."""

import numpy as np

from samplers.reference.fixed_point import bound


def top_p(x: np.ndarray, w: np.ndarray, p: float, n: int) -> np.ndarray:
    """Kept: the shortest prefix in order (x descending, id ascending) whose mass reaches p, at least n tokens.

    x float32 [K] and w int64 [K] in id order; p in [0, 1); n >= 1; returns bool [K]. Of a group of ties at the edge,
    the lowest ids are kept first.

    >>> top_p(np.float32([1, 3, 2, 0]), np.array([2, 5, 3, 1]), p=0.7, n=1)
    array([False,  True,  True, False])
    """
    order = np.argsort(-x, kind="stable")
    # 1. mass of each prefix
    mass = np.cumsum(w[order])
    # 2. the first prefix that reaches the target
    target = max(1, bound(int(mass[-1]), p))
    size = int(np.searchsorted(mass, target)) + 1
    # 3. as a set
    kept = np.zeros(len(x), bool)
    kept[order[: max(size, n)]] = True
    return kept
