"""Locally typical sampling (Meister, Pimentel, Wiher & Cotterell 2023, eq. 9-10)."""

import numpy as np

from samplers.reference.fixed_point import bound, mean_surprisal, surprisal


def typical(d: np.ndarray, w: np.ndarray, p: float, n: int) -> np.ndarray:
    """Kept: the tokens whose surprisal is nearest the entropy, up to mass p and all ties; at least n.

    d float32 [K], w int64 [K] in id order; p in (0, 1); returns bool [K]. |-ln p_i - H| is |D_i - D̄|, because
    ln(total) cancels.

    >>> from samplers.reference.fixed_point import weights
    >>> d = np.log(np.float32([1, 0.5, 0.5, 0.5]))  # p = .4 .2 .2 .2
    >>> typical(d, weights(d), 0.5, n=1)
    array([False,  True,  True,  True])
    """
    # 1. the distance from typical
    a = np.abs(surprisal(d) - mean_surprisal(d, w))
    order = np.argsort(a, kind="stable")
    # 2. the least distance within which the mass reaches the target
    mass = np.cumsum(w[order])
    target = max(1, bound(int(mass[-1]), p))
    furthest = a[order[np.searchsorted(mass, target)]]
    # 3. as a set
    kept = a <= furthest
    kept[order[:n]] = True
    return kept
