"""Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): random bits as a pure function of key and counter.

The same as samplers/reference/philox.py.
"""

import triton
import triton.language as tl

MULTIPLIER_0: tl.constexpr = tl.constexpr(0xD2511F53)
MULTIPLIER_1: tl.constexpr = tl.constexpr(0xCD9E8D57)
WEYL_0: tl.constexpr = tl.constexpr(0x9E3779B9)
WEYL_1: tl.constexpr = tl.constexpr(0xBB67AE85)
LOW: tl.constexpr = tl.constexpr(0xFFFFFFFF)


@triton.jit
def random_bits(seed, position, stream):
    """The 64 random bits of a draw as an int64, from three int64 (docs/definition.md step 5)."""
    k0, k1 = seed & LOW, (seed >> 32) & LOW
    c0, c1 = position & LOW, (position >> 32) & LOW
    c2, c3 = stream & LOW, (stream >> 32) & LOW
    for _ in tl.static_range(10):
        product_0 = c0 * MULTIPLIER_0
        product_1 = c2 * MULTIPLIER_1
        c0 = ((product_1 >> 32) & LOW) ^ c1 ^ k0
        c1 = product_1 & LOW
        c2 = ((product_0 >> 32) & LOW) ^ c3 ^ k1
        c3 = product_0 & LOW
        k0 = (k0 + WEYL_0) & LOW
        k1 = (k1 + WEYL_1) & LOW
    return c0 | (c1 << 32)
