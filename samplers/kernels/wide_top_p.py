"""Top-p on rows where too many tokens reach the shortlist's limit: flat or tied logits.

A sample of the logits gives two guesses around the edge of the nucleus. A pass over the row finds the mass up to each
guess; once few tokens are left between them, another pass lists these, and the search is over that list. The guesses
change the number of passes, never the result: each pass leaves less of the row, whatever they are.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.draw import draw, draw_chunk
from samplers.kernels.kept import PART, Tokens, load, mass
from samplers.kernels.keys import LAST_ID, key_of, logit_of, order_of
from samplers.kernels.order import last_key, last_of_prefix
from samplers.kernels.scratch import CAPACITY, LISTED
from samplers.kernels.search import by_logit, least_reaching
from samplers.kernels.shortlist import append, reset
from samplers.kernels.streaming import LANE, load_step, places

SAMPLE: tl.constexpr = tl.constexpr(2048)
DEVIATIONS: tl.constexpr = tl.constexpr(3.0)  # standard errors of the sample, on either side of the edge
GUESSED_PASSES: tl.constexpr = tl.constexpr(8)  # after these, passes halve the interval: a sample can mislead


class Bracket(NamedTuple):
    """The interval of keys, as int64, that holds the edge: the least key up to which the mass reaches the target."""

    low: tl.tensor
    high: tl.tensor
    mass_before: tl.tensor  # of the tokens before low
    mass: tl.tensor  # of the tokens up to high
    number_before: tl.tensor
    number: tl.tensor


@triton.jit
def is_wide(tokens):
    return (tokens.size > CAPACITY) & (not tokens.listed)


@triton.jit
def sample_of(tokens, scratch):
    """Tokens at equal distances, as a list."""
    i = tl.arange(0, SAMPLE)
    tl.debug_barrier()
    tl.store(scratch.ids + i, ((2 * i + 1).to(tl.int64) * tokens.size // (2 * SAMPLE)).to(tl.int32))
    tl.debug_barrier()
    return Tokens(tokens.x, scratch.ids, True, SAMPLE, tokens.m, tokens.inverse_temperature)


@triton.jit
def sums_of_sample(sample, low, high):
    """The mass before low; and in low .. high the mass and its squares, float64."""
    before = tl.full((), 0, tl.int64)
    within = tl.full((), 0, tl.int64)
    squares = tl.full((), 0, tl.float64)
    for start in range(0, SAMPLE, PART):
        x, _ = load(sample, start, PART)
        key, w = key_of(x).to(tl.int64), mass(x, sample)
        before += tl.sum(tl.where(key < low, w, 0))
        w = tl.where((key >= low) & (key <= high), w, 0)
        within += tl.sum(w)
        squares += tl.sum(w.to(tl.float64) * w.to(tl.float64))
    return before, within, squares


@triton.jit
def guesses(b, sample, limits, target):
    """Two keys in the bracket, around the one up to which the sample has the target's share of the bracket's mass."""
    first = (b.low + b.high) // 2
    second = first
    before, within, squares = sums_of_sample(sample, b.low, b.high)
    if within > 0:
        share = (target - b.mass_before).to(tl.float64) / (b.mass - b.mass_before).to(tl.float64)
        all_of_it = within.to(tl.float64)
        error = DEVIATIONS * tl.sqrt(share * (1 - share) * squares) / all_of_it + 1e-3
        lesser = before + tl.maximum(1, ((share - error) * all_of_it).to(tl.int64))
        greater = before + tl.maximum(1, (tl.minimum(share + error, 1.0) * all_of_it).to(tl.int64))
        first, _ = least_reaching(sample, limits, lesser, b.low, b.high, by_logit, mass)
        second, _ = least_reaching(sample, limits, greater, first, b.high, by_logit, mass)
        first -= 1
    return tl.maximum(first, b.low), tl.minimum(second, b.high - 1)


@triton.jit
def sums_up_to(tokens, first, second, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The mass and the number of the tokens up to each key: one pass over the row."""
    tile_size: tl.constexpr = WARPS * STEPS * LANE
    mass_1, mass_2 = tl.zeros([WARPS, LANE], tl.int64), tl.zeros([WARPS, LANE], tl.int64)
    number_1, number_2 = tl.zeros([WARPS, LANE], tl.int32), tl.zeros([WARPS, LANE], tl.int32)
    for start in range(0, tokens.size, tile_size):
        for j in tl.static_range(STEPS):
            x = load_step(tokens.x + start, j, tokens.size - start, WARPS, STEPS, WHOLE=False) + 0.0
            key, w = key_of(x), mass(x, tokens)
            mass_1 += tl.where(key <= first, w, 0)
            mass_2 += tl.where(key <= second, w, 0)
            number_1 += (key <= first).to(tl.int32)
            number_2 += (key <= second).to(tl.int32)
    return tl.sum(mass_1), tl.sum(number_1), tl.sum(mass_2), tl.sum(number_2)


@triton.jit
def narrowed(b, key, mass_up_to, number_up_to, target):
    """The bracket on the side of the key that holds the edge."""
    low, high, mass_before, mass_, number_before, number = b
    if mass_up_to < target:
        if key >= low:
            low, mass_before, number_before = key + 1, mass_up_to, number_up_to
    else:
        if key < high:
            high, mass_, number = key, mass_up_to, number_up_to
    return Bracket(low, high, mass_before, mass_, number_before, number)


@triton.jit
def list_between(tokens, low, high, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Lists the tokens from key to key: one pass over the row."""
    reset(scratch)
    for start in range(0, tokens.size, WARPS * STEPS * LANE):
        for j in tl.static_range(STEPS):
            x = load_step(tokens.x + start, j, tokens.size - start, WARPS, STEPS, WHOLE=False) + 0.0
            key = key_of(x)
            ids = start + j * LANE + places(WARPS, STEPS)
            append(ids, (key >= low) & (key <= high), scratch.counters + LISTED, scratch.ids, CAPACITY)
    tl.debug_barrier()
    size = tl.load(scratch.counters + LISTED, volatile=True).to(tl.int32)
    return Tokens(tokens.x, scratch.ids, True, size, tokens.m, tokens.inverse_temperature)


@triton.jit
def nth_of_key(tokens, key, n, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The id of the n-th token with this key, or the last id of all: one pass over the row."""
    width: tl.constexpr = STEPS * LANE
    for start in range(0, tokens.size, WARPS * width):
        number = tl.zeros([WARPS, LANE], tl.int64)
        for j in tl.static_range(STEPS):
            x = load_step(tokens.x + start, j, tokens.size - start, WARPS, STEPS, WHOLE=False) + 0.0
            number += (key_of(x) == key).to(tl.int64)
        tl.store(scratch.masses + start // width + tl.arange(0, WARPS), tl.sum(number, axis=1))
    tl.debug_barrier()
    chunk, rest = draw_chunk(scratch.masses, tl.cdiv(tokens.size, width), n - 1, WARPS)
    x, _ids = load(tokens, chunk * width, width)
    place, _ = draw((key_of(x) == key).to(tl.int64), rest)
    return tl.minimum(chunk * width + place, LAST_ID).to(tl.int64)


@triton.jit(noinline=True)
def wide_prefix_reaching(tokens, limits, target, total, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """As `order.prefix_reaching`, for mass."""
    # 1. a narrow bracket
    low, high = key_of(tokens.m).to(tl.int64), last_key(limits)
    zero = low * 0
    b = Bracket(low, high, zero, total, zero, zero + tokens.size)
    sample = sample_of(tokens, scratch)
    passes = 0
    while (b.low < b.high) & (b.number - b.number_before > CAPACITY):
        first, second = (b.low + b.high) // 2, (b.low + b.high) // 2
        if passes < GUESSED_PASSES:
            first, second = guesses(b, sample, limits, target)
        mass_1, number_1, mass_2, number_2 = sums_up_to(tokens, first, second, WARPS, STEPS)
        b = narrowed(b, first, mass_1, number_1.to(tl.int64), target)
        b = narrowed(b, second, mass_2, number_2.to(tl.int64), target)
        passes += 1
    # 2. the edge within it
    if b.low < b.high:
        between = list_between(tokens, b.low, b.high, scratch, WARPS, STEPS)
        last = last_of_prefix(between, limits, target - b.mass_before, b.low, b.high, mass)
    else:
        of_one = tl.maximum(1, mass(logit_of(b.low.to(tl.int32)), tokens))
        n = tl.cdiv(target - b.mass_before, of_one)
        last = order_of(b.low, nth_of_key(tokens, b.low, n, scratch, WARPS, STEPS))
    return last
