"""From a row of logits to a token: the steps of docs/definition.md in order.

The same as samplers/reference/sampler.py. Each row is read in up to three launches (launch.py): its maximum, its mass,
and the choice of a token, which is here.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.counting import counted, mass_of
from samplers.kernels.cutoffs import epsilon, epsilon_counted, eta, eta_counted, min_p, min_p_counted
from samplers.kernels.draw import (
    draw_counted,
    draw_from_all,
    draw_from_kept,
    draw_from_list,
    scaled,
    total_of,
    write_kept_masses,
)
from samplers.kernels.fixed_point import ONE, bound, widened
from samplers.kernels.kept import (
    PART,
    PREFIX,
    Tokens,
    count,
    distances,
    is_kept,
    keep_all,
    keep_up_to,
    load,
    mass,
    set_limit,
    sum_over,
)
from samplers.kernels.keys import LAST_KEY, key_of, order_of
from samplers.kernels.scratch import CAPACITY, COUNTED
from samplers.kernels.shortlist import Shortlist, first_greatest, key_below, key_of_greatest, list_tokens
from samplers.kernels.streaming import INFINITY, LANE, groups_of, write_masses
from samplers.kernels.top_k import top_k, top_k_counted
from samplers.kernels.top_p import mass_to_reach, top_p, top_p_counted
from samplers.kernels.typical import typical, typical_counted

FEW: tl.constexpr = tl.constexpr(64)  # groups that are likely to hold the nucleus of a peaked row
MANY: tl.constexpr = tl.constexpr(512)  # groups whose greatest tokens are likely to fit the list
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


class Drawn(NamedTuple):
    """A token and its mass, the total mass and the number of the kept tokens, and their entropy in nats."""

    token: tl.tensor
    w: tl.tensor
    total: tl.tensor
    kept: tl.tensor
    nats: tl.tensor


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
    """Whether a filter is switched on."""
    on = (tl.load(p + TOP_K) > 0) | (tl.load(p + TOP_P) != OFF) | (tl.load(p + MIN_P) != 0)
    return on | (tl.load(p + TYPICAL_P) != OFF) | (tl.load(p + EPSILON_CUTOFF) != 0) | (tl.load(p + ETA_CUTOFF) != 0)


@triton.jit
def needs_total(p):
    """Whether the first filter compares with the mass of all tokens; or there is none, and the draw needs it."""
    return (tl.load(p + TOP_K) == 0) & (not is_greedy(p))


@triton.jit
def is_valid(m):
    """Step 1: no NaN, no +inf, something above -inf."""
    return (m > -INFINITY) & (m < INFINITY)


@triton.jit
def weigh(tokens, begin, end, scratch, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Step 3: the mass of each chunk of this program's part of the row, and the number of its logits above -inf."""
    finite = write_masses(
        tokens.x, begin, end, tokens.size, tokens.m, tokens.inverse_temperature, scratch.masses, WARPS, STEPS
    )
    tl.store(scratch.finite + tl.program_id(1), finite)


@triton.jit
def threshold(tokens, total, p):
    """A key that no token exceeds that the first filter can keep, by mass; for other filters than top-k."""
    key = tl.full((), LAST_KEY, tl.int32)
    least = tl.full((), 0, tl.int64)  # every kept token has this mass
    if tl.load(p + TOP_P) != OFF:
        # Top-p leaves out more than all tokens of less mass than this hold together.
        least = (total - mass_to_reach(total, tl.load(p + TOP_P))) // tokens.size
    elif tl.load(p + MIN_P) != 0:
        least = bound(tl.full((), ONE, tl.int64), tl.load(p + MIN_P))
    elif (tl.load(p + EPSILON_CUTOFF) != 0) & (tl.load(p + TYPICAL_P) == OFF):
        least = bound(total, tl.load(p + EPSILON_CUTOFF))
    if least > 0:
        key = key_below(least, tokens.m, temperature_of(p))
    return key


@triton.jit
def is_usable(shortlist, p):
    """Whether the list holds every token that the first filter may keep, and at least min_tokens_to_keep of them."""
    enough = (shortlist.size >= tl.load(p + N)) | (shortlist.last_key == LAST_KEY)
    return enough & (shortlist.size <= CAPACITY)


@triton.jit
def listed(tokens, shortlist, scratch):
    """The tokens of the shortlist."""
    return Tokens(tokens.x, scratch.ids, True, shortlist.size, tokens.m, tokens.inverse_temperature)


@triton.jit
def holds_nucleus(tokens, shortlist, total, scratch, p):
    """Whether the list holds all that top-p keeps."""
    enough = is_usable(shortlist, p)
    if enough:
        keep_up_to(scratch.limits, shortlist.last_key)
        held = sum_over(listed(tokens, shortlist, scratch), scratch.limits, mass)
        enough = held >= mass_to_reach(total, tl.load(p + TOP_P))
    return enough


@triton.jit
def shortlist_of(tokens, total, scratch, p, STEPS: tl.constexpr):
    """The tokens that the first filter may keep; or a list that is not usable, because they are too many.

    The threshold of top-p lists far more tokens than it keeps, so first the greatest are tried, few and then many.
    """
    has_top_k, has_top_p = tl.load(p + TOP_K) > 0, tl.load(p + TOP_P) != OFF
    groups = groups_of(tokens.size, STEPS)
    k = tl.where(has_top_k, tl.maximum(tl.load(p + TOP_K), tl.load(p + N)), tl.where(has_top_p, FEW, 0))
    shortlist = Shortlist(tl.full((), LAST_KEY, tl.int32), tl.full((), 0, tl.int32))
    found = False
    while not found:
        by_groups = (k > 0) & (k < groups)
        last_key = tl.full((), LAST_KEY, tl.int32)
        if by_groups:
            last_key = key_of_greatest(k, tokens.m, scratch.maxima, groups)
        elif not has_top_k:
            last_key = threshold(tokens, total, p)
        shortlist = list_tokens(tokens, last_key, scratch, STEPS)
        found = has_top_k | (not by_groups)
        if not found:
            found = holds_nucleus(tokens, shortlist, total, scratch, p)
            k = tl.where(k < MANY, MANY, 0).to(tl.int64)
    return shortlist


@triton.jit
def keep_counted(c, kept, total, p):
    """Step 4: the filters that are switched on, in order, each on the tokens that the previous one kept."""
    n = tl.load(p + N)
    if tl.load(p + TOP_K) > 0:
        kept = top_k_counted(c, kept, tl.load(p + TOP_K), n)
        total = mass_of(c, kept)
    if tl.load(p + TOP_P) != OFF:
        kept = top_p_counted(c, kept, total, tl.load(p + TOP_P), n)
        total = mass_of(c, kept)
    if tl.load(p + MIN_P) != 0:
        kept = min_p_counted(c, kept, tl.load(p + MIN_P), n)
        total = mass_of(c, kept)
    if tl.load(p + TYPICAL_P) != OFF:
        kept = typical_counted(c, kept, total, tl.load(p + TYPICAL_P), n)
        total = mass_of(c, kept)
    if tl.load(p + EPSILON_CUTOFF) != 0:
        kept = epsilon_counted(c, kept, total, tl.load(p + EPSILON_CUTOFF), n)
        total = mass_of(c, kept)
    if tl.load(p + ETA_CUTOFF) != 0:
        kept = eta_counted(c, kept, total, tl.load(p + ETA_CUTOFF), tl.load(p + SQRT_ETA_CUTOFF), n)
        total = mass_of(c, kept)
    return kept, total


@triton.jit
def mass_of_kept(tokens, limits, total, is_known):
    """The mass of the kept tokens: the total if it is known to be that, else a sum."""
    if not is_known:
        total = sum_over(tokens, limits, mass)
    return total


@triton.jit
def keep(tokens, total, scratch, p, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Step 4 by limits, for any number of tokens; the same filters in the same order."""
    limits, n = scratch.limits, tl.load(p + N)
    is_known = tl.load(p + TOP_K) == 0
    if tl.load(p + TOP_K) > 0:
        top_k(tokens, limits, tl.load(p + TOP_K), n)
    if tl.load(p + TOP_P) != OFF:
        total = mass_of_kept(tokens, limits, total, is_known)
        top_p(tokens, limits, total, tl.load(p + TOP_P), n, scratch, WARPS, STEPS)
        is_known = False
    if tl.load(p + MIN_P) != 0:
        min_p(tokens, limits, tl.load(p + MIN_P), n)
        is_known = False
    if tl.load(p + TYPICAL_P) != OFF:
        total = mass_of_kept(tokens, limits, total, is_known)
        typical(tokens, limits, total, tl.load(p + TYPICAL_P), n)
        is_known = False
    if tl.load(p + EPSILON_CUTOFF) != 0:
        total = mass_of_kept(tokens, limits, total, is_known)
        epsilon(tokens, limits, total, tl.load(p + EPSILON_CUTOFF), n)
        is_known = False
    if tl.load(p + ETA_CUTOFF) != 0:
        total = mass_of_kept(tokens, limits, total, is_known)
        eta(tokens, limits, total, tl.load(p + ETA_CUTOFF), tl.load(p + SQRT_ETA_CUTOFF), n)


@triton.jit
def finite_of(scratch, parts, WARPS: tl.constexpr):
    """The number of logits above -inf."""
    return total_of(scratch.finite, parts, WARPS).to(tl.int64)


@triton.jit
def mass_of_token(tokens, token):
    return mass(widened(tl.load(tokens.x + token)), tokens)


@triton.jit
def choose_first(tokens, scratch, STEPS: tl.constexpr):
    """Step 2: at T = 0 the first maximum, and nothing else."""
    token = first_greatest(tokens, scratch, STEPS)
    one = token * 0 + ONE
    set_limit(scratch.limits, PREFIX, order_of(key_of(tokens.m), token))
    return Drawn(token, one, one, token * 0 + 1, tl.full((), 0, tl.float64))


@triton.jit
def choose_from_all(tokens, parts, bits, scratch, DETAILS: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Step 5 without filters."""
    total = total_of(scratch.masses, tl.cdiv(tokens.size, STEPS * LANE), WARPS)
    token = tl.minimum(draw_from_all(tokens, scaled(bits, total), scratch, WARPS, STEPS), tokens.size - 1)
    nats = tl.full((), 0, tl.float64)
    if DETAILS:
        nats = entropy(tokens, scratch.limits, total)
    return Drawn(token, mass_of_token(tokens, token), total, finite_of(scratch, parts, WARPS), nats)


@triton.jit
def choose_counted(tokens, total, bits, scratch, p, DETAILS: tl.constexpr):
    """Steps 4 and 5 for a list of at most COUNTED tokens."""
    c, kept = counted(tokens, scratch)
    kept, total = keep_counted(c, kept, total, p)
    token, w = draw_counted(c, kept, scaled(bits, total))
    nats = tl.full((), 0, tl.float64)
    if DETAILS:
        energy = tl.sum(tl.where(kept, c.w, 0).to(tl.float64) * c.d.to(tl.float64))
        nats = tl.log(total.to(tl.float64) / ONE) - energy / total.to(tl.float64)
    return Drawn(token, w, total, tl.sum(kept.to(tl.int64)), nats)


@triton.jit
def choose_by_limits(tokens, total, bits, scratch, p, DETAILS: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """Steps 4 and 5 for any number of tokens."""
    limits = scratch.limits
    keep(tokens, total, scratch, p, WARPS, STEPS)
    if tokens.listed:
        total, kept = sum_over(tokens, limits, mass), sum_over(tokens, limits, count)
        token = draw_from_list(tokens, limits, scaled(bits, total))
    else:
        kept = write_kept_masses(tokens, limits, scratch, WARPS, STEPS).to(tl.int64)
        total = total_of(scratch.masses, tl.cdiv(tokens.size, STEPS * LANE), WARPS)
        token = draw_from_kept(tokens, limits, scaled(bits, total), scratch, WARPS, STEPS)
    nats = tl.full((), 0, tl.float64)
    if DETAILS:
        nats = entropy(tokens, limits, total)
    return Drawn(token, mass_of_token(tokens, token), total, kept, nats)


@triton.jit
def choose(
    tokens,
    parts,
    bits,
    scratch,
    p,
    DETAILS: tl.constexpr,
    WITH_LIMITS: tl.constexpr,
    WARPS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Steps 2, 4 and 5 of a valid row. WITH_LIMITS: the limits of the kept tokens are needed too."""
    keep_all(scratch.limits)
    if is_greedy(p):
        drawn = choose_first(tokens, scratch, STEPS)
    elif not has_filters(p):
        drawn = choose_from_all(tokens, parts, bits, scratch, DETAILS, WARPS, STEPS)
    else:
        total = tl.full((), 0, tl.int64)
        if needs_total(p):
            total = total_of(scratch.masses, tl.cdiv(tokens.size, STEPS * LANE), WARPS)
        shortlist = shortlist_of(tokens, total, scratch, p, STEPS)
        is_listed = is_usable(shortlist, p)
        size = tl.where(is_listed, shortlist.size, tokens.size)
        tokens = Tokens(tokens.x, scratch.ids, is_listed, size, tokens.m, tokens.inverse_temperature)
        if is_listed & (size <= COUNTED) & (not WITH_LIMITS):
            drawn = choose_counted(tokens, total, bits, scratch, p, DETAILS)
        else:
            keep_up_to(scratch.limits, tl.where(is_listed, shortlist.last_key, LAST_KEY))
            drawn = choose_by_limits(tokens, total, bits, scratch, p, DETAILS, WARPS, STEPS)
    return drawn


@triton.jit(noinline=True)
def entropy(tokens, limits, total):
    """Of the final distribution, in nats (step 6): float64."""
    surprisal = tl.full((), 0, tl.float64)
    for start in range(0, tokens.size, PART):
        x, ids = load(tokens, start, PART)
        w = tl.where(is_kept(x, ids, tokens, limits), mass(x, tokens), 0)
        surprisal -= tl.sum(w.to(tl.float64) * distances(x, tokens).to(tl.float64))
    return tl.log(total.to(tl.float64) / ONE) + surprisal / total.to(tl.float64)
