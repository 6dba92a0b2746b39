"""SwiGLU (Shazeer 2020, eq. 6)."""

import numpy as np

from model.reference.exponential import exponential


def swiglu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """silu(gate) · up, where silu(g) = g / (1 + e^-g); float32 of any shape.

    >>> swiglu(np.float32([-100, 0, 1]), np.float32([1, 1, 2]))
    array([-8.7565118e-25,  0.0000000e+00,  1.4621171e+00], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # 1. z = e^-|g|, which never overflows
        z = exponential(-np.abs(gate))
        # 2. 1 / (1 + e^-g)
        sigmoid = np.where(gate >= 0, np.float32(1), z) / (np.float32(1) + z)
        return gate * sigmoid * up
