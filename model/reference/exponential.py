"""e^d as float32: the sampler's weight before it becomes an integer."""

import numpy as np

from model.reference.fused import fma

LOWEST = np.float32(-60)
LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
ROUND = np.float32(float.fromhex("0x1.8p+23"))  # adding and subtracting this rounds to an integer
LN2_HIGH = np.float32(float.fromhex("0x1.62e400p-1"))  # ln 2 in two parts (Cody & Waite 1980)
LN2_LOW = np.float32(float.fromhex("0x1.7f7d1cp-20"))
C5 = np.float32(float.fromhex("0x1.0fa834p-7"))
C4_TO_0 = [
    np.float32(float.fromhex(c)) for c in ("0x1.573a54p-5", "0x1.555a6ap-3", "0x1.fffdc6p-2", "0x1.fffff6p-1", "1")
]


def exponential(d: np.ndarray) -> np.ndarray:
    """e^d to about 2e-7 relative, for float32 d <= 0; below -60 it counts as -60. NaN stays NaN.

    >>> exponential(np.float32([0, -1, -100])).tolist()
    [1.0, 0.3678794801235199, 8.756511663092738e-27]
    """
    d = np.where(d < LOWEST, LOWEST, d)
    # 1. d = j·ln 2 + s, with |s| <= ln 2 / 2
    j = fma(d, LOG2_E, ROUND) - ROUND
    s = fma(-j, LN2_LOW, fma(-j, LN2_HIGH, d))
    # 2. e^s, a polynomial by Horner's rule
    e = np.full_like(d, C5)
    for c in C4_TO_0:
        e = fma(e, s, c)
    # 3. times 2^j
    return np.ldexp(e, np.nan_to_num(j).astype(np.int32))
