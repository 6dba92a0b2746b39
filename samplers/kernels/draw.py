"""The draw: inverse transform sampling with integers. The same as samplers/reference/draw.py."""

import triton
import triton.language as tl

from samplers.kernels.fixed_point import multiply_high
from samplers.kernels.kept import mass
from samplers.kernels.keys import LAST_ID
from samplers.kernels.search import by_id, least_reaching


@triton.jit
def scaled(bits, total):
    """u = bits·total / 2^64, in 0 .. total - 1."""
    return multiply_high(bits, total)


@triton.jit
def draw(w, u):
    """The first index of w [N] whose running sum exceeds u, and the rest of u within it."""
    running = tl.cumsum(w, 0)
    passed = running <= u
    return tl.sum(passed.to(tl.int32)), u - tl.sum(tl.where(passed, w, 0))


@triton.jit
def draw_from_kept(tokens, limits, u):
    """The first id whose running sum over the kept tokens, in id order, exceeds u."""
    zero = u * 0
    token, _ = least_reaching(tokens, limits, u + 1, zero, zero + LAST_ID, by_id, mass)
    return token
