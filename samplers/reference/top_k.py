"""Top-k (Fan, Lewis & Dauphin 2018): the k greatest logits, and all that equal the last of them."""

import numpy as np

from samplers.reference.order import nth_greatest


def top_k(x: np.ndarray, k: int, n: int) -> np.ndarray:
    """Kept: x >= the max(k, n)-th greatest of x. x float32 [K]; k, n >= 1; returns bool [K].

    >>> top_k(np.float32([1, 3, 2, 2, 0]), k=2, n=1)
    array([False,  True,  True,  True, False])
    """
    return x >= nth_greatest(x, max(k, n))
