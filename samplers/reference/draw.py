"""The draw: inverse transform sampling with integers."""

import numpy as np


def draw(w: np.ndarray, bits: int) -> int:
    """The first index whose running sum of w exceeds u = bits·total / 2^64. w int64 [K], bits in 0 .. 2^64 - 1.

    Index i gets w_i of the `total` values of u, which are uniform up to 2^-64: its probability is w_i / total.

    >>> w = np.array([5, 3, 2])
    >>> draw(w, bits=0), draw(w, bits=2**63), draw(w, bits=2**64 - 1)
    (0, 1, 2)
    """
    running = np.cumsum(w)
    u = bits * int(running[-1]) >> 64
    return int(np.searchsorted(running, u, side="right"))
