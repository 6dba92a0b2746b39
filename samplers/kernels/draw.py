"""The draw: inverse transform sampling with integers. The same as samplers/reference/draw.py."""

import triton
import triton.language as tl

from samplers.kernels.counting import before
from samplers.kernels.fixed_point import multiply_high
from samplers.kernels.kept import is_kept, load, mass
from samplers.kernels.keys import LAST_ID
from samplers.kernels.search import by_id, least_reaching
from samplers.kernels.streaming import LANE, load_step, places

MASSES: tl.constexpr = tl.constexpr(128)  # of chunks, that a warp reads at once


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
def total_of(masses, chunks, WARPS: tl.constexpr):
    """The sum of the masses of all chunks."""
    total = tl.full((), 0, tl.int64)
    for start in range(0, chunks, WARPS * MASSES):
        i = start + tl.arange(0, WARPS * MASSES)
        total += tl.sum(tl.load(masses + i, mask=i < chunks, other=0))
    return total


@triton.jit
def draw_chunk(masses, chunks, u, WARPS: tl.constexpr):
    """The chunk that u falls into, and the rest of u within it."""
    chunk = tl.full((), 0, tl.int32)
    rest = u
    for start in range(0, chunks, WARPS * MASSES):
        if chunk == start:  # all chunks so far were passed
            i = start + tl.arange(0, WARPS * MASSES)
            passed, rest = draw(tl.load(masses + i, mask=i < chunks, other=0), rest)
            chunk += passed
    return chunk, rest


@triton.jit
def draw_from_all(tokens, u, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Without filters: the chunk that u falls into, then the token, so only one chunk is read."""
    width: tl.constexpr = STEPS * LANE
    chunk, u = draw_chunk(scratch.masses, tl.cdiv(tokens.size, width), u, WARPS)
    x, _ = load(tokens, chunk * width, width)
    place, _ = draw(mass(x, tokens), u)
    return (chunk * width + place).to(tl.int64)


@triton.jit
def draw_counted(c, kept, u):
    """From tokens in registers: the one with at most u mass before it, and its mass."""
    _, mass_before = before(c, kept, c.ids)
    is_drawn = kept & (mass_before <= u) & (u < mass_before + c.w)
    return tl.sum(tl.where(is_drawn, c.ids, 0)), tl.sum(tl.where(is_drawn, c.w, 0))


@triton.jit
def draw_from_list(tokens, limits, u):
    """The first id whose running sum over the kept tokens, in id order, exceeds u."""
    zero = u * 0
    token, _ = least_reaching(tokens, limits, u + 1, zero, zero + LAST_ID, by_id, mass)
    return token


@triton.jit
def write_kept_masses(tokens, limits, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The mass of the kept tokens of each chunk; their number. One pass over the row."""
    width: tl.constexpr = STEPS * LANE
    number = tl.zeros([WARPS, LANE], tl.int32)
    for start in range(0, tokens.size, WARPS * width):
        w = tl.zeros([WARPS, LANE], tl.int64)
        for j in tl.static_range(STEPS):
            x = load_step(tokens.x + start, j, tokens.size - start, WARPS, STEPS, WHOLE=False) + 0.0
            kept = is_kept(x, start + j * LANE + places(WARPS, STEPS), tokens, limits)
            w += tl.where(kept, mass(x, tokens), 0)
            number += kept.to(tl.int32)
        tl.store(scratch.masses + start // width + tl.arange(0, WARPS), tl.sum(w, axis=1))
    tl.debug_barrier()
    return tl.sum(number)


@triton.jit
def draw_from_kept(tokens, limits, u, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """After `write_kept_masses`: the chunk that u falls into, then the kept token."""
    width: tl.constexpr = STEPS * LANE
    chunk, u = draw_chunk(scratch.masses, tl.cdiv(tokens.size, width), u, WARPS)
    x, ids = load(tokens, chunk * width, width)
    place, _ = draw(tl.where(is_kept(x, ids, tokens, limits), mass(x, tokens), 0), u)
    return (chunk * width + place).to(tl.int64)
