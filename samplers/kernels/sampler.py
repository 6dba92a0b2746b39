"""From a row of logits to a token: the steps of docs/definition.md in order.

The same as samplers/reference/sampler.py.

Three passes over a row, one function each: `write_maxima`, `weigh`, `choose`. With many rows, one program per row does
all three. With few rows, many programs share a row, and the last that has weighed its part chooses (see `launch.py`).
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.cutoffs import epsilon, eta, min_p
from samplers.kernels.draw import draw, draw_from_kept, scaled
from samplers.kernels.fixed_point import ONE, bound
from samplers.kernels.kept import (
    PART,
    PREFIX,
    Tokens,
    count,
    distances,
    is_kept,
    keep_everything,
    load,
    mass,
    set_limit,
    sum_over,
)
from samplers.kernels.keys import LAST_KEY, key_of
from samplers.kernels.order import prefix_reaching
from samplers.kernels.search import by_logit, least_reaching
from samplers.kernels.top_k import top_k
from samplers.kernels.top_p import top_p
from samplers.kernels.typical import typical

TILE: tl.constexpr = tl.constexpr(4096)  # logits that a pass reads at once
MOST_TILES: tl.constexpr = tl.constexpr((1 << 20) // 4096)
GROUP: tl.constexpr = tl.constexpr(128)  # logits that share one maximum
INFINITY: tl.constexpr = tl.constexpr(float("inf"))
BEFORE_ALL: tl.constexpr = tl.constexpr(-(1 << 31))  # less than the key of every logit
OFF: tl.constexpr = tl.constexpr(-1)  # all bits of a fraction, which means 1: top-p or typical is off

# The index of each parameter among the int64 numbers of its row, in the layout of `samplers.params.ROW`. Parameters are
# loaded only where they are needed: loaded at the start, they would cost registers in the passes.
TEMPERATURES: tl.constexpr = tl.constexpr(0)  # two float32: T and 1 / T; 1 and 0 for T = 0
N: tl.constexpr = tl.constexpr(3)
TOP_K: tl.constexpr = tl.constexpr(4)
TOP_P: tl.constexpr = tl.constexpr(5)
MIN_P: tl.constexpr = tl.constexpr(6)
TYPICAL_P: tl.constexpr = tl.constexpr(7)
EPSILON_CUTOFF: tl.constexpr = tl.constexpr(8)
ETA_CUTOFF: tl.constexpr = tl.constexpr(9)
SQRT_ETA_CUTOFF: tl.constexpr = tl.constexpr(10)
WIDTH: tl.constexpr = tl.constexpr(11)


class Scratch(NamedTuple):
    """Memory of one row, which carries results between passes and between the programs that share the row."""

    maxima: tl.tensor  # float32, per GROUP of logits
    masses: tl.tensor  # int64, per TILE
    ids: tl.tensor  # int32, tokens that the first filter may keep
    capacity: tl.tensor  # of ids
    limits: tl.tensor  # int64, of the kept tokens
    state: tl.tensor  # int64: the number of ids, of tokens above -inf, and of programs that are done


class Shortlist(NamedTuple):
    """The tokens that the first filter may keep; their ids are in `Scratch.ids`."""

    last_key: tl.tensor  # tokens up to this key are listed
    size: tl.tensor  # their number, which may exceed the capacity of the list
    finite: tl.tensor  # the number of all tokens above -inf


@triton.jit
def empty_shortlist():
    zero = tl.full((), 0, tl.int64)
    return Shortlist(tl.full((), BEFORE_ALL, tl.int32), zero, zero)


@triton.jit
def float_of(bits):
    return bits.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def temperature_of(p):
    return float_of(tl.load(p + TEMPERATURES))


@triton.jit
def inverse_temperature_of(p):
    """1 / T. At T = 0 it is 1: only the maximum is kept, and its weight is ONE at any T."""
    inverse = float_of(tl.load(p + TEMPERATURES) >> 32)
    return tl.where(inverse == 0, 1.0, inverse)


@triton.jit
def is_greedy(p):
    return float_of(tl.load(p + TEMPERATURES) >> 32) == 0


@triton.jit
def has_filters(p):
    """Whether a filter acts; T = 0 counts as one, because it keeps only the first maximum."""
    on = (tl.load(p + TOP_K) > 0) | (tl.load(p + TOP_P) != OFF) | (tl.load(p + MIN_P) != 0) | is_greedy(p)
    return on | (tl.load(p + TYPICAL_P) != OFF) | (tl.load(p + EPSILON_CUTOFF) != 0) | (tl.load(p + ETA_CUTOFF) != 0)


@triton.jit
def write_maxima(tokens, begin, end, scratch):
    """Step 1: the greatest logit of each GROUP; +inf if the group has a NaN or +inf."""
    for start in range(begin, end, TILE):
        x, _ = load(tokens, start, TILE)
        x = tl.where(x < INFINITY, x, INFINITY)
        maxima = tl.max(tl.reshape(x, (TILE // GROUP, GROUP)), axis=1)
        tl.store(scratch.maxima + start // GROUP + tl.arange(0, TILE // GROUP), maxima)


@triton.jit
def greatest(tokens, scratch):
    """The greatest logit of the row."""
    m = tl.full((), -INFINITY, tl.float32)
    groups = tl.cdiv(tokens.size, GROUP)
    for start in range(0, groups, PART):
        i = start + tl.arange(0, PART)
        m = tl.maximum(m, tl.max(tl.load(scratch.maxima + i, mask=i < groups, other=-INFINITY)))
    return m


@triton.jit
def is_valid(tokens):
    """Step 1: no NaN, no +inf, something above -inf."""
    return (tokens.m > -INFINITY) & (tokens.m < INFINITY)


@triton.jit
def key_below(least, m, temperature):
    """A key that no token of mass `least` or more exceeds, with a margin for the rounding of d and w."""
    key = tl.full((), LAST_KEY, tl.int32)
    if least > 0:
        d = tl.log(least.to(tl.float64) / ONE) - 1e-3
        x = (m.to(tl.float64) + d * temperature.to(tl.float64)).to(tl.float32) + 0.0
        key = tl.minimum(key_of(x) + 1, LAST_KEY)
    return key


@triton.jit
def threshold(tokens, scratch, p):
    """A key that no token exceeds that the first filter can keep; tokens beyond it need not be read again."""
    heaviest = tl.full((), ONE, tl.int64)  # the mass of the most probable token
    key = tl.full((), BEFORE_ALL, tl.int32)
    if is_greedy(p):
        key = key_of(tokens.m)
    elif tl.load(p + TOP_K) > 0:
        # The k-th greatest maximum of a group: at least k tokens reach it.
        key = tl.full((), LAST_KEY, tl.int32)
        k, groups = tl.maximum(tl.load(p + TOP_K), tl.load(p + N)), tl.cdiv(tokens.size, GROUP)
        if k <= groups:
            maxima = Tokens(scratch.maxima, scratch.ids, False, groups, tokens.m, tokens.inverse_temperature)
            low = key_of(tokens.m).to(tl.int64)
            keep_everything(scratch.limits, key)
            last, _ = least_reaching(maxima, scratch.limits, k, low, low * 0 + LAST_KEY, by_logit, count)
            key = last.to(tl.int32)
    elif tl.load(p + TOP_P) != OFF:
        # Top-p leaves out at least left_out, since total >= ONE: more than all tokens below left_out / V hold together.
        left_out = heaviest - tl.maximum(1, bound(heaviest, tl.load(p + TOP_P)))
        key = key_below(left_out // tokens.size, tokens.m, temperature_of(p))
    elif tl.load(p + MIN_P) != 0:
        key = key_below(bound(heaviest, tl.load(p + MIN_P)), tokens.m, temperature_of(p))
    elif (tl.load(p + EPSILON_CUTOFF) != 0) & (tl.load(p + TYPICAL_P) == OFF):
        key = key_below(bound(heaviest, tl.load(p + EPSILON_CUTOFF)), tokens.m, temperature_of(p))
    elif has_filters(p):
        key = tl.full((), LAST_KEY, tl.int32)
    return key


@triton.jit
def append(chosen, ids, at, scratch):
    """Writes the chosen ids from index `at` of the list on, as far as its capacity allows."""
    place = at + tl.cumsum(chosen, 0) - chosen
    tl.store(scratch.ids + place, ids, mask=(chosen > 0) & (place < scratch.capacity))


@triton.jit
def weigh(tokens, begin, end, p, scratch, SHARED: tl.constexpr):
    """Step 3: the mass of each tile, and the shortlist of the tokens that the first filter may keep."""
    last_key = threshold(tokens, scratch, p)
    size = tl.full((), 0, tl.int64)
    finite = tl.full((), 0, tl.int64)
    for start in range(begin, end, TILE):
        x, ids = load(tokens, start, TILE)
        finite += tl.sum((x > -INFINITY).to(tl.int64))
        if tl.load(p + TOP_K) == 0:  # top-k does not need the mass of all
            tl.store(scratch.masses + start // TILE, tl.sum(mass(x, tokens)))
        chosen = (key_of(x) <= last_key).to(tl.int32)
        added = tl.sum(chosen).to(tl.int64)
        if added > 0:
            at = size
            if SHARED:
                at = tl.atomic_add(scratch.state, added)
            append(chosen, ids, at, scratch)
        size += added
    return Shortlist(last_key, size, finite)


@triton.jit
def masses_of_tiles(tokens, scratch):
    """int64 [MOST_TILES]."""
    i = tl.arange(0, MOST_TILES)
    return tl.load(scratch.masses + i, mask=i < tl.cdiv(tokens.size, TILE), other=0)


@triton.jit
def keep(tokens, limits, total, p):
    """Step 4: the filters that are switched on, in order, each on the tokens that the previous one kept."""
    if is_greedy(p):  # step 2
        first = prefix_reaching(tokens, limits, total * 0 + 1, count)
        set_limit(limits, PREFIX, first)
        total = sum_over(tokens, limits, mass)
    else:
        if tl.load(p + TOP_K) > 0:
            top_k(tokens, limits, tl.load(p + TOP_K), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
        if tl.load(p + TOP_P) != OFF:
            top_p(tokens, limits, total, tl.load(p + TOP_P), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
        if tl.load(p + MIN_P) != 0:
            min_p(tokens, limits, tl.load(p + MIN_P), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
        if tl.load(p + TYPICAL_P) != OFF:
            typical(tokens, limits, total, tl.load(p + TYPICAL_P), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
        if tl.load(p + EPSILON_CUTOFF) != 0:
            epsilon(tokens, limits, total, tl.load(p + EPSILON_CUTOFF), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
        if tl.load(p + ETA_CUTOFF) != 0:
            eta(tokens, limits, total, tl.load(p + ETA_CUTOFF), tl.load(p + SQRT_ETA_CUTOFF), tl.load(p + N))
            total = sum_over(tokens, limits, mass)
    return total


@triton.jit
def draw_from_all(tokens, u, scratch):
    """Step 5 without filters: the tile that u falls into, then the token, so only one tile is read."""
    tile, u = draw(masses_of_tiles(tokens, scratch), u)
    x, _ = load(tokens, tile * TILE, TILE)
    place, u = draw(mass(x, tokens), u)
    return (tile * TILE + place).to(tl.int64)


@triton.jit
def choose(tokens, shortlist, p, bits, scratch):
    """Steps 4 and 5: the drawn token, the tokens that were read, and the total mass and number of the kept ones."""
    total = tl.full((), 0, tl.int64)
    if tl.load(p + TOP_K) == 0:
        total = tl.sum(masses_of_tiles(tokens, scratch))
    is_listed = has_filters(p) & (shortlist.size <= scratch.capacity) & (shortlist.size >= tl.load(p + N))
    size = tl.where(is_listed, shortlist.size.to(tl.int32), tokens.size)
    tokens = Tokens(tokens.x, scratch.ids, is_listed, size, tokens.m, tokens.inverse_temperature)
    limits = scratch.limits
    keep_everything(limits, tl.where(is_listed, shortlist.last_key, LAST_KEY))
    kept = shortlist.finite
    if has_filters(p):
        total = keep(tokens, limits, total, p)
        kept = sum_over(tokens, limits, count)
        token = draw_from_kept(tokens, limits, scaled(bits, total))
    else:
        token = draw_from_all(tokens, scaled(bits, total), scratch)
    return token, tokens, total, kept


@triton.jit
def entropy(tokens, limits, total):
    """Of the final distribution, in nats (step 6): float64."""
    surprisal = tl.full((), 0, tl.float64)
    for start in range(0, tokens.size, PART):
        x, ids = load(tokens, start, PART)
        w = tl.where(is_kept(x, ids, tokens, limits), mass(x, tokens), 0)
        surprisal -= tl.sum(w.to(tl.float64) * distances(x, tokens).to(tl.float64))
    return tl.log(total.to(tl.float64) / ONE) + surprisal / total.to(tl.float64)
