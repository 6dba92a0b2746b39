"""Probability mass as integers: the weight of a logit, and the comparison of masses with a fraction.

docs/definition.md steps 3 and 4; the same as samplers/reference/fixed_point.py. Launch with enable_fp_fusion=False, so
that Triton fuses only the operations that are written as fma.
"""

import triton
import triton.language as tl
from triton import knobs
from triton.language.target_info import cuda_capability_geq

ONE: tl.constexpr = tl.constexpr(1 << 40)  # the weight of the most probable token
LOWEST: tl.constexpr = tl.constexpr(-60.0)  # e^-60 is far below one unit

LOG2_E: tl.constexpr = tl.constexpr(float.fromhex("0x1.715476p+0"))
ROUND: tl.constexpr = tl.constexpr(float.fromhex("0x1.8p+23"))  # adding and subtracting this rounds to an integer
LN2_HIGH: tl.constexpr = tl.constexpr(float.fromhex("0x1.62e400p-1"))  # ln 2 in two parts (Cody & Waite 1980)
LN2_LOW: tl.constexpr = tl.constexpr(float.fromhex("0x1.7f7d1cp-20"))
C5: tl.constexpr = tl.constexpr(float.fromhex("0x1.0fa834p-7"))
C4: tl.constexpr = tl.constexpr(float.fromhex("0x1.573a54p-5"))
C3: tl.constexpr = tl.constexpr(float.fromhex("0x1.555a6ap-3"))
C2: tl.constexpr = tl.constexpr(float.fromhex("0x1.fffdc6p-2"))
C1: tl.constexpr = tl.constexpr(float.fromhex("0x1.fffff6p-1"))
C0: tl.constexpr = tl.constexpr(1.0)
TWO_24: tl.constexpr = tl.constexpr(float(1 << 24))
TWO_40: tl.constexpr = tl.constexpr(float(1 << 40))
# Whether tl.fma rounds twice. The interpreter (TRITON_INTERPRET=1 at import) does so before Triton 3.9.
FMA_ROUNDS_TWICE: tl.constexpr = tl.constexpr(
    knobs.runtime.interpret and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9)
)


@triton.jit
def float32_of(x):
    """Logits as float32. bfloat16 is converted by its bits: Triton's interpreter loses its subnormals."""
    if x.dtype == tl.bfloat16:
        x = (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return x.to(tl.float32)


@triton.jit
def widened(x):
    """Logits as float32, with -0 as 0."""
    return float32_of(x) + 0.0


@triton.jit
def distance(x, m, inverse_temperature):
    """d = (x - m) / T, from 0 down to -60."""
    return tl.maximum((x - m) * inverse_temperature, LOWEST)


@triton.jit
def fma(a, b, c):
    """a·b + c, rounded once; through float64, as in the reference, where tl.fma rounds twice."""
    if FMA_ROUNDS_TWICE:
        return (a.to(tl.float64) * b + c).to(tl.float32)
    return tl.fma(a, b, c)


@triton.jit
def weight(d):
    """W(d) = floor(2^40·e^d) to about 2e-7 relative: float32 d in [-60, 0] -> int64."""
    # 1. d = j·ln 2 + s, with |s| <= ln 2 / 2
    shifted = fma(d, LOG2_E, ROUND)
    j = shifted - ROUND
    s = fma(-j, LN2_LOW, fma(-j, LN2_HIGH, d))
    # 2. 2^40·e^s, a polynomial by Horner's rule: a power of two in each constant changes no rounding
    e = fma(s, C5 * TWO_40, C4 * TWO_40)
    e = fma(e, s, C3 * TWO_40)
    e = fma(e, s, C2 * TWO_40)
    e = fma(e, s, C1 * TWO_40)
    e = fma(e, s, C0 * TWO_40)
    # 3. times 2^j through the exponent, rounded down: the shift keeps only the last bits of `shifted`, which hold j
    bits = e.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)
    if converts_slowly():
        return floor_by_shifts(bits)
    return bits.to(tl.float32, bitcast=True).to(tl.int64)


@triton.jit
def converts_slowly():
    """Whether the GPU converts float32 to int64 at an eighth of the usual rate (compute capability 8.6, 8.9, 12)."""
    return (cuda_capability_geq(8, 6) and not cuda_capability_geq(9, 0)) or cuda_capability_geq(12, 0)


@triton.jit
def floor_by_shifts(bits):
    """The float32 in 0 .. 2^40 with these bits, rounded down: int64."""
    significand = ((bits & 0x7FFFFF) | 0x800000).to(tl.int64)
    return (significand << 17) >> tl.minimum(167 - (bits >> 23), 63).to(tl.int64)  # 167: the exponent of 2^40


@triton.jit
def multiply_high(a, b):
    """The high 64 bits of the 128-bit product of two int64, read as unsigned."""
    high = tl.umulhi(a.to(tl.uint64, bitcast=True), b.to(tl.uint64, bitcast=True))
    return high.to(tl.int64, bitcast=True)


@triton.jit
def bound(mass, fraction):
    """fraction·mass rounded up, less one part in 2^20; fraction is ceil(q·2^64) as the bits of an int64."""
    b = multiply_high(mass, fraction) + (mass * fraction != 0).to(tl.int64)
    return b - (b >> 20)


@triton.jit
def surprisal(d):
    """D = floor(-d·2^24): nats below the most probable token, as integers of 2^-24."""
    return (d * -TWO_24).to(tl.int64)


@triton.jit
def mean_surprisal(energy, total):
    """D̄ = floor(energy·2^24 / total), by long division: the product has more than 64 bits."""
    quotient = energy // total
    rest = energy % total
    for _ in tl.static_range(8):
        rest = rest << 3  # three more bits fit, because total <= 2^60
        quotient = (quotient << 3) + rest // total
        rest = rest % total
    return quotient
