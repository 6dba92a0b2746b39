"""Probability mass as integers: the weight of a logit, and the comparison of masses with a fraction.

docs/definition.md steps 3 and 4. A weight is 2^40·e^d as int64. It comes from float32 operations that are each rounded
once, so every backend finds the same integers. The order in which integers are added does not matter.
"""

import math

import numpy as np

FRACTION_BITS = 40
ONE = 1 << FRACTION_BITS  # the weight of the most probable token
LOWEST = np.float32(-60)  # e^-60 is far below one unit

LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
ROUND = np.float32(float.fromhex("0x1.8p+23"))  # adding and subtracting this rounds to an integer
LN2_HIGH = np.float32(float.fromhex("0x1.62e400p-1"))  # ln 2 in two parts (Cody & Waite 1980)
LN2_LOW = np.float32(float.fromhex("0x1.7f7d1cp-20"))
C5 = np.float32(float.fromhex("0x1.0fa834p-7"))
C4 = np.float32(float.fromhex("0x1.573a54p-5"))
C3 = np.float32(float.fromhex("0x1.555a6ap-3"))
C2 = np.float32(float.fromhex("0x1.fffdc6p-2"))
C1 = np.float32(float.fromhex("0x1.fffff6p-1"))
C0 = np.float32(1)


def distances(x: np.ndarray, m: np.float32, temperature: float) -> np.ndarray:
    """d = (x - m) / T, from 0 down to -60: float32 [V]."""
    with np.errstate(over="ignore"):
        return np.maximum((x - m) * np.float32(1 / temperature), LOWEST)


def fma(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """a·b + c through float64, float32 in and out.

    The product is exact in float64; the sum is rounded to float64 and then to float32. For every d in [-60, 0] the
    weights equal those of a fused operation, which rounds once: `make identity` tries them all.
    """
    return (a.astype(np.float64) * b + c).astype(np.float32)


def weights(d: np.ndarray) -> np.ndarray:
    """W(d) = floor(2^40·e^d) to about 2e-7 relative: float32 d in [-60, 0] -> int64.

    >>> weights(np.array([0, -1, -60], np.float32)) / ONE
    array([1.        , 0.36787948, 0.        ])
    """
    # 1. d = j·ln 2 + s, with |s| <= ln 2 / 2
    j = fma(d, LOG2_E, ROUND) - ROUND
    s = fma(-j, LN2_LOW, fma(-j, LN2_HIGH, d))
    # 2. e^s, a polynomial by Horner's rule
    e = fma(s, C5, C4)
    for c in (C3, C2, C1, C0):
        e = fma(e, s, c)
    # 3. 2^40·2^j·e^s, rounded down to an integer; a power of two changes no digit
    return np.ldexp(e, FRACTION_BITS + j.astype(np.int32)).astype(np.int64)


def fraction(q: float) -> int:
    """Q(q) = ceil(q·2^64), a fraction as an integer."""
    return math.ceil(q * 2**64)


def bound(mass: int, q: float) -> int:
    """q·mass less one part in 2^20, which lets a sum that equals a limit in decimal arithmetic reach it.

    >>> bound(10 * ONE, 0.8) / ONE
    7.999992370606378
    """
    b = -(-mass * fraction(q) >> 64)  # rounded up
    return b - (b >> 20)


def surprisal(d: np.ndarray) -> np.ndarray:
    """D = floor(-d·2^24): nats below the most probable token, as integers of 2^-24."""
    return np.floor(-d.astype(np.float64) * 2**24).astype(np.int64)


def mean_surprisal(d: np.ndarray, w: np.ndarray) -> int:
    """D̄, the mean of D under w, in nats of 2^-24; the entropy is D̄·2^-24 + ln(total / 2^40)."""
    energy = int(((w * surprisal(d)) >> 24).sum())
    return (energy << 24) // int(w.sum())
