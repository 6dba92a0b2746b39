"""The order of tokens: logit descending, then id ascending."""

import numpy as np


def first_in_order(x: np.ndarray, n: int) -> np.ndarray:
    """The n greatest of x float32 [K], ties by lowest id: bool [K].

    >>> first_in_order(np.float32([1, 3, 2, 3]), 2)
    array([False,  True, False,  True])
    """
    kept = np.zeros(len(x), bool)
    if n == 1:
        kept[np.argmax(x)] = True
    else:
        kept[np.argsort(-x, kind="stable")[:n]] = True
    return kept


def nth_greatest(x: np.ndarray, n: int) -> np.float32:
    """The n-th greatest of x float32 [K], or the least if K < n.

    >>> float(nth_greatest(np.float32([1, 3, 2, 3]), 3))
    2.0
    """
    n = min(n, len(x))
    return np.partition(x, len(x) - n)[len(x) - n]
