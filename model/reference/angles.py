"""The angles of rotary position embeddings (Su et al. 2021, eq. 15): frequencies, cosines and sines."""

import math
from decimal import Context, Decimal
from typing import Protocol

import numpy as np

DIGITS = Context(prec=40)  # decimal computes e^x and ln x correctly rounded, on every platform the same
# fdlibm (Sun Microsystems 1993): pi/2 in three parts, and the coefficients of sine and cosine on [-pi/4, pi/4].
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
HALF_PI = [float.fromhex(p) for p in ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")]
SINE = [
    float.fromhex(c)
    for c in (
        "0x1.5d93a5acfd57cp-33",
        "-0x1.ae5e68a2b9cebp-26",
        "0x1.71de357b1fe7dp-19",
        "-0x1.a01a019c161d5p-13",
        "0x1.111111110f8a6p-7",
        "-0x1.5555555555549p-3",
    )
]
COSINE = [
    float.fromhex(c)
    for c in (
        "-0x1.8fae9be8838d4p-37",
        "0x1.1ee9ebdb4b1c4p-29",
        "-0x1.27e4f809c52adp-22",
        "0x1.a01a019cb1590p-16",
        "-0x1.6c16c16c15177p-10",
        "0x1.555555555554cp-5",
        "-0x1p-1",
    )
]


class Scaling(Protocol):
    """How the frequencies are stretched beyond the trained window: `model.config.RopeScaling`."""

    @property
    def rope_type(self) -> str: ...

    @property
    def factor(self) -> float: ...

    @property
    def low_freq_factor(self) -> float: ...

    @property
    def high_freq_factor(self) -> float: ...

    @property
    def original_max_position_embeddings(self) -> int: ...


def frequencies(head_dim: int, theta: float, scaling: Scaling) -> np.ndarray:
    """Radians per position of each pair of channels: float32 [D / 2].

    1 / theta^(2i / D): the exponent, the power and the quotient are each rounded to float32, the power once from forty
    digits.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    f = np.float32(1) / np.array([power(theta, float(e)) for e in exponents], np.float32)
    if scaling.rope_type == "linear":
        return f / np.float32(scaling.factor)
    if scaling.rope_type == "llama3":
        # Turns within the trained window: many -> kept, few -> slowed by `factor`, between -> blended.
        low, high = np.float32(scaling.low_freq_factor), np.float32(scaling.high_freq_factor)
        turns = np.float32(scaling.original_max_position_embeddings) * f / np.float32(2 * math.pi)
        keep = ((turns - low) / (high - low)).clip(0, 1)
        return keep * f + (np.float32(1) - keep) * f / np.float32(scaling.factor)
    return f


def power(base: float, exponent: float) -> float:
    """base^exponent to forty digits, then the nearest float64.

    >>> power(10000.0, 0.5), power(2.0, 0.5) == 2**0.5
    (100.0, True)
    """
    logarithm = DIGITS.multiply(DIGITS.ln(Decimal(base)), Decimal(exponent))
    return float(DIGITS.exp(logarithm))


def angles(radians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of float32 angles in 0 .. 2^19, each float32: float64 operations, each rounded once.

    >>> cos, sin = angles(np.float32([0, 1, 524287]))
    >>> np.abs(cos - np.cos(np.float64([0, 1, 524287]))).max() < 2**-25
    np.True_
    """
    # 1. angle = n·pi/2 + r, with |r| <= pi/4
    x = radians.astype(np.float64)
    n = np.rint(x * TWO_OVER_PI)
    r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2]
    # 2. The polynomials of r.
    z = r * r
    s = np.full_like(z, SINE[0])
    for c in SINE[1:]:
        s = s * z + c
    t = np.full_like(z, COSINE[0])
    for c in COSINE[1:]:
        t = t * z + c
    sine, cosine = (r + (r * z) * s).astype(np.float32), (1.0 + z * t).astype(np.float32)
    # 3. n mod 4 quarter turns.
    quarter = n.astype(np.int64) & 3
    cases = [quarter == 0, quarter == 1, quarter == 2, quarter == 3]
    return np.select(cases, [cosine, -sine, -cosine, sine]), np.select(cases, [sine, cosine, -sine, -cosine])
