"""The turn of a head's channels by their rotary angles (Su et al. 2021, eq. 34)."""

import numpy as np


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Turns the channel pairs (i, i + D/2) of x [..., D]; two products and a sum, none fused. cos, sin [..., D / 2]."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)
