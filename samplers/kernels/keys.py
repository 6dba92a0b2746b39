"""Keys: integers that sort tokens in ascending order: logit descending, then id ascending."""

import triton
import triton.language as tl

ID_BITS: tl.constexpr = tl.constexpr(20)
LAST_ID: tl.constexpr = tl.constexpr((1 << 20) - 1)
FIRST: tl.constexpr = tl.constexpr(-(1 << 63))  # before every token
LAST_KEY: tl.constexpr = tl.constexpr(0x7F7FFFFF)  # of the least finite logit
LAST: tl.constexpr = tl.constexpr((0x7F7FFFFF << 20) | ((1 << 20) - 1))


@triton.jit
def key_of(x):
    """The key of a logit, int32: x descending. x must not be -0."""
    bits = x.to(tl.int32, bitcast=True)
    return ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def logit_of(key):
    """The logit of an int32 key."""
    bits = ~key
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def order_of(key, ids):
    """The place of a token in order, int64: by key, then by id."""
    return (key.to(tl.int64) << ID_BITS) | ids
