"""The passes over a whole row, without a barrier between warps.

A warp owns a chunk: CHUNK neighbours, which it loads in STEPS steps of LANE. Sums and maxima stay in the registers of
its threads until the end of the chunk, so warps never wait for each other, and the loads of a chunk are in flight
together. A tile is one chunk for each warp. Whole tiles are loaded without a mask. docs/benchmarks.md has the
instructions of each loop; with a barrier for each tile, and reductions over all warps, a logit cost 45 more.
"""

import triton
import triton.language as tl

from samplers.kernels.fixed_point import distance, float32_of, weight

LANE: tl.constexpr = tl.constexpr(128)  # neighbours that a warp loads at once
GROUP: tl.constexpr = tl.constexpr(128)  # logits that share one maximum: LANE / STEPS neighbours of each step
INFINITY: tl.constexpr = tl.constexpr(float("inf"))


@triton.jit
def places(WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The places in a tile that its first step reads: [WARPS, LANE]."""
    return tl.arange(0, WARPS)[:, None] * (LANE * STEPS) + tl.arange(0, LANE)[None, :]


@triton.jit
def load_step(tile, j: tl.constexpr, size, WARPS: tl.constexpr, STEPS: tl.constexpr, WHOLE: tl.constexpr):
    """Step j of a tile, of which `size` logits exist, as float32 [WARPS, LANE]; -inf for the others.

    -0 stays: neither a mass nor a maximum depends on it.
    """
    i = places(WARPS, STEPS)
    if WHOLE:
        return float32_of(tl.load(tile + i + j * LANE))
    return float32_of(tl.load(tile + i + j * LANE, mask=i + j * LANE < size, other=-INFINITY))


@triton.jit
def groups_of(size, STEPS: tl.constexpr):
    """The number of groups of a row."""
    return tl.cdiv(size, STEPS * LANE) * STEPS


@triton.jit
def ids_of_group(group, STEPS: tl.constexpr):
    """The ids of groups [N]: [N, GROUP]."""
    i = tl.arange(0, GROUP)[None, :]
    wide: tl.constexpr = LANE // STEPS
    chunk, within = group[:, None] // STEPS, group[:, None] % STEPS
    return chunk * (LANE * STEPS) + i // wide * LANE + within * wide + i % wide


@triton.jit
def greater_or_nan(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def maxima_of_tile(x, start, size, maxima, top, WARPS: tl.constexpr, STEPS: tl.constexpr, WHOLE: tl.constexpr):
    """Stores the greatest logit of each group; +inf if one is NaN or +inf. Returns the greater of `top` and these."""
    greatest = tl.full([WARPS, LANE], -INFINITY, tl.float32)
    for j in tl.static_range(STEPS):
        logits = load_step(x + start, j, size - start, WARPS, STEPS, WHOLE)
        greatest = greater_or_nan(greatest, logits)
    of_groups = store_maxima(greatest, maxima + start // GROUP, WARPS, STEPS)
    return tl.maximum(top, of_groups)


@triton.jit
def store_maxima(greatest, maxima, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """From the greatest logit of each place [WARPS, LANE] over all steps: that of each group [WARPS, STEPS]."""
    of_groups = tl.reduce(tl.reshape(greatest, [WARPS, STEPS, LANE // STEPS]), 2, greater_or_nan)
    of_groups = tl.where(of_groups < INFINITY, of_groups, INFINITY) + 0.0
    i = tl.arange(0, WARPS)[:, None] * STEPS + tl.arange(0, STEPS)[None, :]
    tl.store(maxima + i, of_groups)
    return of_groups


@triton.jit
def write_maxima(x, begin, end, size, maxima, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Step 1 for the ids from begin, a multiple of the tile, to end: the greatest logit of each group, and of all."""
    tile_size: tl.constexpr = WARPS * STEPS * LANE
    top = tl.full([WARPS, STEPS], -INFINITY, tl.float32)
    whole = begin + (end - begin) // tile_size * tile_size
    for start in range(begin, whole, tile_size):
        top = maxima_of_tile(x, start, size, maxima, top, WARPS, STEPS, WHOLE=True)
    if whole < end:
        top = maxima_of_tile(x, whole, size, maxima, top, WARPS, STEPS, WHOLE=False)
    return tl.max(tl.max(top, axis=1), axis=0)


@triton.jit
def masses_of_tile(
    x, start, size, m, inverse_temperature, masses, gap, WARPS: tl.constexpr, STEPS: tl.constexpr, WHOLE: tl.constexpr
):
    """Stores the mass of each chunk. Returns gap + the logits of a whole tile: not finite if one of them is -inf."""
    mass = tl.zeros([WARPS, LANE], tl.int64)
    for j in tl.static_range(STEPS):
        logits = load_step(x + start, j, size - start, WARPS, STEPS, WHOLE)
        mass += weight(distance(logits, m, inverse_temperature))
        if WHOLE:
            gap += logits
    tl.store(masses + start // (STEPS * LANE) + tl.arange(0, WARPS), tl.sum(mass, axis=1))
    return gap


@triton.jit
def write_masses(x, begin, end, size, m, inverse_temperature, masses, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Step 3 for the ids from begin, a multiple of the tile, to end: the mass of each chunk.

    Returns the number of logits above -inf.
    """
    tile_size: tl.constexpr = WARPS * STEPS * LANE
    gap = tl.zeros([WARPS, LANE], tl.float32)
    whole = begin + (end - begin) // tile_size * tile_size
    for start in range(begin, whole, tile_size):
        gap = masses_of_tile(x, start, size, m, inverse_temperature, masses, gap, WARPS, STEPS, WHOLE=True)
    finite = whole - begin
    if not (tl.abs(tl.sum(gap)) < INFINITY):
        finite = count_finite(x, begin, whole, WARPS, STEPS)
    if whole < end:
        masses_of_tile(x, whole, size, m, inverse_temperature, masses, gap, WARPS, STEPS, WHOLE=False)
        finite += count_finite(x, whole, end, WARPS, STEPS)
    return finite


@triton.jit
def count_finite(x, begin, end, WARPS: tl.constexpr, STEPS: tl.constexpr):
    finite = tl.zeros([WARPS, LANE], tl.int32)
    for start in range(begin, end, WARPS * LANE):
        finite += (load_step(x + start, 0, end - start, WARPS, 1, WHOLE=False) > -INFINITY).to(tl.int32)
    return tl.sum(finite)
