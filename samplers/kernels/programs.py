"""The kernels: what each program of a launch does. launch.py says which kernels a batch needs."""

from __future__ import annotations

import triton
import triton.language as tl

from samplers.kernels import one_read
from samplers.kernels.fixed_point import floor_by_shifts, weight, widened
from samplers.kernels.kept import Tokens, is_kept, keep_all
from samplers.kernels.philox import random_bits
from samplers.kernels.sampler import (
    WIDTH,
    Drawn,
    choose,
    choose_from_all,
    inverse_temperature_of,
    is_valid,
    needs_total,
    temperature_of,
    weigh,
)
from samplers.kernels.scratch import DONE, scratch_of
from samplers.kernels.streaming import INFINITY, LANE, store_maxima, write_maxima

GREATEST: tl.constexpr = tl.constexpr(float.fromhex("0x1.fffffep+127"))
# Flags: how the seed and the stream of a row are found.
SEED_BY_SLOT: tl.constexpr = tl.constexpr(1)  # in a tensor of slots, not of rows
STREAM_BY_SLOT: tl.constexpr = tl.constexpr(2)
STREAM_IS_ROW: tl.constexpr = tl.constexpr(4)  # the row's number
# What Triton must not compile a variant for; a direct launch relies on it.
TENSORS = ["table", "slots", "seeds", "positions", "streams"]
UNSPECIALIZED = ["table_step", "seed", "position", "stream", "flags", "words", "parts", "tiles", "batch"]


@triton.jit
def number_of(tensor, value, at):
    """A seed, position or stream, int64; see `Number`."""
    number = tl.full((), 0, tl.int64) + value  # not .to: the interpreter would leave it 32 bits wide
    if tensor is not None:
        number = tl.load(tensor + at * number)
    return number


@triton.jit
def bits_of(row, slot, seeds, seed, positions, position, streams, stream, flags):
    """The 64 random bits of a row."""
    seed_at = tl.where(flags & SEED_BY_SLOT != 0, slot, row)
    stream_at = tl.where(flags & STREAM_BY_SLOT != 0, slot, row)
    of_stream = number_of(streams, stream, stream_at) + tl.where(flags & STREAM_IS_ROW != 0, row, 0)
    return random_bits(number_of(seeds, seed, seed_at), number_of(positions, position, row), of_stream)


@triton.jit
def slot_of(row, slots, table_step):
    """A row's place in the table of parameters."""
    slot = row * table_step
    if slots is not None:
        slot = tl.load(slots + row)
    return slot


@triton.jit
def part_of_row(size, tiles, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The ids that this program reads: begin, a multiple of the tile, and end."""
    tile_size: tl.constexpr = WARPS * STEPS * LANE
    begin = tl.program_id(1) * tiles * tile_size
    return begin, tl.minimum(begin + tiles * tile_size, size)


@triton.jit
def greatest_of(scratch, parts, WARPS: tl.constexpr):
    """The greatest logit of the row, from those of its parts."""
    m = tl.full((), -INFINITY, tl.float32)
    for start in range(0, parts, WARPS * 32):
        i = start + tl.arange(0, WARPS * 32)
        m = tl.maximum(m, tl.max(tl.load(scratch.tops + i, mask=i < parts, other=-INFINITY, volatile=True)))
    return m


@triton.jit
def no_draw(m):
    """The result of an invalid row."""
    zero = tl.full((), 0, tl.int64)
    return Drawn(zero - 1, zero, zero, zero, tl.full((), float("nan"), tl.float64))


@triton.jit
def write(out, batch, row, drawn, m):
    """Stores a row's results in the places that `Output` views."""
    floats = out.to(tl.pointer_type(tl.float32), bitcast=True) + 6 * batch + row
    tl.store(out + row, drawn.token)
    tl.store(out + batch + row, drawn.w)
    tl.store(out + 2 * batch + row, drawn.total)
    tl.store(out.to(tl.pointer_type(tl.int32), bitcast=True) + 6 * batch + row, drawn.kept.to(tl.int32))
    tl.store(floats + batch, tl.log(drawn.w.to(tl.float64) / drawn.total.to(tl.float64)).to(tl.float32))
    tl.store(floats + 2 * batch, drawn.nats.to(tl.float32))
    tl.store(floats + 3 * batch, m)


@triton.jit
def draw_without_filters(
    tokens, parts, bits, scratch, out, batch, row, DETAILS: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr
):
    """Steps 5 and 6 by the last program of a row to weigh its part."""
    drawn = no_draw(tokens.m)
    if is_valid(tokens.m):
        keep_all(scratch.limits)
        drawn = choose_from_all(tokens, parts, bits, scratch, DETAILS, WARPS, STEPS)
    write(out, batch, row, drawn, tokens.m)


@triton.jit(do_not_specialize=["words", "tiles"])
def maxima_kernel(
    x,
    stride: tl.int64,
    vocabulary: tl.int32,
    scratch,
    words: tl.int64,
    tiles: tl.int32,
    WARPS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Step 1: the greatest logit of each group, and of this part of the row. Grid (B, parts)."""
    row = tl.program_id(0).to(tl.int64)
    begin, end = part_of_row(vocabulary, tiles, WARPS, STEPS)
    of_row = scratch_of(scratch, words, row, vocabulary, STEPS)
    if begin == 0:
        tl.store(of_row.counters + DONE, 0)
    top = write_maxima(x + row * stride, begin, end, vocabulary, of_row.maxima, WARPS, STEPS)
    tl.store(of_row.tops + tl.program_id(1), top)


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=TENSORS)
def weigh_kernel(
    x,
    stride: tl.int64,
    vocabulary: tl.int32,
    table,
    table_step: tl.int32,
    slots,
    seeds,
    seed: tl.int64,
    positions,
    position: tl.int64,
    streams,
    stream: tl.int64,
    flags: tl.int32,
    scratch,
    words: tl.int64,
    tiles: tl.int32,
    out,
    batch: tl.int64,
    DETAILS: tl.constexpr,
    DRAW: tl.constexpr,
    WARPS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Step 3: the mass of each chunk of this part of the row. Grid (B, parts).

    DRAW: no row has a filter, and the last program of a row to get here draws.
    """
    row, parts = tl.program_id(0).to(tl.int64), tl.num_programs(1)
    of_row = scratch_of(scratch, words, row, vocabulary, STEPS)
    slot = slot_of(row, slots, table_step)
    p = table + slot * WIDTH
    m = greatest_of(of_row, parts, WARPS)
    tokens = Tokens(x + row * stride, of_row.ids, False, vocabulary, m, inverse_temperature_of(p))
    if is_valid(m) & needs_total(p):
        begin, end = part_of_row(vocabulary, tiles, WARPS, STEPS)
        weigh(tokens, begin, end, of_row, WARPS, STEPS)
    if DRAW:
        tl.debug_barrier()  # completes this program's stores before it counts itself done: Triton orders only scalars
        done = tl.atomic_add(of_row.counters + DONE, 1)
        tl.debug_barrier()
        if done == parts - 1:
            bits = bits_of(row, slot, seeds, seed, positions, position, streams, stream, flags)
            draw_without_filters(tokens, parts, bits, of_row, out, batch, row, DETAILS, WARPS, STEPS)


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=TENSORS)
def one_read_kernel(
    x,
    stride: tl.int64,
    vocabulary: tl.int32,
    table,
    table_step: tl.int32,
    slots,
    seeds,
    seed: tl.int64,
    positions,
    position: tl.int64,
    streams,
    stream: tl.int64,
    flags: tl.int32,
    scratch,
    words: tl.int64,
    parts: tl.int32,
    out,
    batch: tl.int64,
    counters,
    DETAILS: tl.constexpr,
    DRAW: tl.constexpr,
    WARPS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Steps 1 and 3 in one launch, and the draw as in `weigh_kernel`. Grid (B · parts,); a part is one tile."""
    row, part = one_read.take_part(counters, parts)
    arrived = counters + one_read.ROWS + row
    of_row = scratch_of(scratch, words, row, vocabulary, STEPS)
    slot = slot_of(row, slots, table_step)
    p = table + slot * WIDTH
    start = part * (WARPS * STEPS * LANE)
    logits, greatest = one_read.load_part(x + row * stride, start, vocabulary, WARPS, STEPS)
    of_groups = store_maxima(greatest, of_row.maxima + part * (WARPS * STEPS), WARPS, STEPS)
    tl.store(of_row.tops + part, tl.max(tl.max(of_groups, axis=1), axis=0))
    one_read.wait_for_maxima(arrived, parts)
    m = greatest_of(of_row, parts, WARPS)
    if is_valid(m) & needs_total(p):
        masses, finite = one_read.mass_of_part(logits, m, inverse_temperature_of(p), WARPS, STEPS)
        tl.store(of_row.masses + part * WARPS + tl.arange(0, WARPS), masses)
        tl.store(of_row.finite + part, finite)
    is_last = one_read.is_last(arrived, parts)
    if DRAW and is_last:
        tokens = Tokens(x + row * stride, of_row.ids, False, vocabulary, m, inverse_temperature_of(p))
        bits = bits_of(row, slot, seeds, seed, positions, position, streams, stream, flags)
        draw_without_filters(tokens, parts, bits, of_row, out, batch, row, DETAILS, WARPS, STEPS)


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=TENSORS)
def choose_kernel(
    x,
    stride: tl.int64,
    vocabulary: tl.int32,
    table,
    table_step: tl.int32,
    slots,
    seeds,
    seed: tl.int64,
    positions,
    position: tl.int64,
    streams,
    stream: tl.int64,
    flags: tl.int32,
    scratch,
    words: tl.int64,
    parts: tl.int32,
    out,
    batch: tl.int64,
    DETAILS: tl.constexpr,
    WITH_LIMITS: tl.constexpr,
    WARPS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Steps 2 and 4 to 6. Grid (B,)."""
    row = tl.program_id(0).to(tl.int64)
    of_row = scratch_of(scratch, words, row, vocabulary, STEPS)
    slot = slot_of(row, slots, table_step)
    p = table + slot * WIDTH
    m = greatest_of(of_row, parts, WARPS)
    drawn = no_draw(m)
    if is_valid(m):
        tokens = Tokens(x + row * stride, of_row.ids, False, vocabulary, m, inverse_temperature_of(p))
        bits = bits_of(row, slot, seeds, seed, positions, position, streams, stream, flags)
        drawn = choose(tokens, parts, bits, of_row, p, DETAILS, WITH_LIMITS, WARPS, STEPS)
    write(out, batch, row, drawn, m)


@triton.jit
def filtered_kernel(
    x,
    stride,
    vocabulary,
    table,
    table_step,
    slots,
    scratch,
    words,
    out,
    batch,
    filtered,
    TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """filtered float32 [B, V]: x / T if kept, else -inf. Grid (B, tiles)."""
    row, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE
    p = table + slot_of(row, slots, table_step) * WIDTH
    limits = scratch_of(scratch, words, row, vocabulary, STEPS).limits
    m = tl.load(out.to(tl.pointer_type(tl.float32), bitcast=True) + 9 * batch + row)
    ids = start + tl.arange(0, TILE)
    in_row = ids < vocabulary
    logits = widened(tl.load(x + row * stride + ids, mask=in_row, other=-INFINITY))
    kept = in_row & False
    if tl.load(out + row) >= 0:
        tokens = Tokens(x, x, False, vocabulary, m, inverse_temperature_of(p))
        kept = is_kept(logits, ids, tokens, limits)
    scaled = tl.div_rn(logits, temperature_of(p) + tl.zeros_like(logits))
    scaled = tl.minimum(tl.maximum(scaled, -GREATEST), GREATEST)
    tl.store(filtered + row * vocabulary + ids, tl.where(kept, scaled, -INFINITY), mask=in_row)


@triton.jit
def weights_kernel(d, w, size, BLOCK: tl.constexpr):
    """W of each d [N]. Grid (N / BLOCK,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(w + i, weight(tl.load(d + i, mask=i < size, other=0.0)), mask=i < size)


@triton.jit
def floors_kernel(x, w, size, BLOCK: tl.constexpr):
    """Each float32 x [N] in 0 .. 2^40 rounded down, as GPUs do that convert slowly. Grid (N / BLOCK,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.load(x + i, mask=i < size, other=0.0).to(tl.int32, bitcast=True)
    tl.store(w + i, floor_by_shifts(bits), mask=i < size)
