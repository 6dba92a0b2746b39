"""The tokens that are left of a row: not a list but limits, which say of any token whether it is kept.

So that nothing has to be moved from stage to stage, and blocks need not agree on more than a few integers a row.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.fixed_point import distance, surprisal, weight, widened
from samplers.kernels.keys import LAST, LAST_ID, key_of, order_of

PART: tl.constexpr = tl.constexpr(256)  # tokens that a search looks at together


class Tokens(NamedTuple):
    """Tokens to be looked at: `size` of a row of logits, all of them or those that a list of ids names."""

    x: tl.tensor  # pointer to the row's logits
    ids: tl.tensor  # pointer to the list
    listed: tl.tensor  # bool, whether the list counts
    size: tl.tensor
    m: tl.tensor  # the row's greatest logit
    inverse_temperature: tl.tensor


# A row's limits: int64 numbers in memory, where a stage leaves what it found. A token is kept that is within all.
PREFIX: tl.constexpr = tl.constexpr(0)  # top-k and top-p: the last token in order
BY_MASS: tl.constexpr = tl.constexpr(1)  # whether any of the following has acted
MIN_P: tl.constexpr = tl.constexpr(2)  # a cutoff is two numbers: the least mass, and the last token in order
MEAN: tl.constexpr = tl.constexpr(4)  # typical: D̄,
TYPICAL: tl.constexpr = tl.constexpr(5)  # and the last token by (|D - D̄|, id)
EPSILON: tl.constexpr = tl.constexpr(6)
ETA: tl.constexpr = tl.constexpr(8)
LIMITS: tl.constexpr = tl.constexpr(10)


@triton.jit
def set_limit(limits, WHICH: tl.constexpr, value):
    """One thread stores; the barriers let all others read what stood there before, and see what stands there now."""
    tl.debug_barrier()
    tl.store(limits + WHICH, value)
    tl.debug_barrier()


@triton.jit
def set_cutoff(limits, WHICH: tl.constexpr, least, first):
    """Kept: a mass of at least `least`, and every token in order up to `first`."""
    tl.store(limits + WHICH + 1, first)
    set_limit(limits, WHICH, least)
    set_limit(limits, BY_MASS, 1)


@triton.jit
def keep_everything(limits, last_key):
    """Keeps every token up to the int32 key; LAST_KEY: all above -inf.

    Each number is stored once: the programs of a row may do this at the same time.
    """
    for which in tl.static_range(BY_MASS, LIMITS):
        tl.store(limits + which, LAST if which == TYPICAL else 0)
    set_limit(limits, PREFIX, order_of(last_key, LAST_ID))


@triton.jit
def load(tokens, start, SIZE: tl.constexpr):
    """Logits and ids of `SIZE` tokens from start on; -inf where there is none."""
    i = start + tl.arange(0, SIZE)
    there = i < tokens.size
    ids = i
    if tokens.listed:
        ids = tl.load(tokens.ids + i, mask=there, other=0)
    return widened(tl.load(tokens.x + ids, mask=there, other=-float("inf"))), ids


@triton.jit
def distances(x, tokens):
    return distance(x, tokens.m, tokens.inverse_temperature)


@triton.jit
def typicality(x, tokens, limits):
    """Distance from typical: |D - D̄|, int64."""
    return tl.abs(surprisal(distances(x, tokens)) - tl.load(limits + MEAN))


@triton.jit
def is_within(order, w, limits, CUTOFF: tl.constexpr):
    return (w >= tl.load(limits + CUTOFF)) | (order <= tl.load(limits + CUTOFF + 1))


@triton.jit
def is_kept(x, ids, tokens, limits):
    order = order_of(key_of(x), ids)
    kept = order <= tl.load(limits + PREFIX)  # never so for -inf
    if tl.load(limits + BY_MASS) != 0:
        w = mass(x, tokens)
        kept &= is_within(order, w, limits, MIN_P)
        kept &= order_of(typicality(x, tokens, limits), ids) <= tl.load(limits + TYPICAL)
        kept &= is_within(order, w, limits, EPSILON) & is_within(order, w, limits, ETA)
    return kept


@triton.jit
def count(x, tokens):
    return tl.full(x.shape, 1, tl.int64)


@triton.jit
def mass(x, tokens):
    return weight(distances(x, tokens))


@triton.jit
def energy(x, tokens):
    """Mass times surprisal, in nats of the weight's unit."""
    d = distances(x, tokens)
    return (weight(d) * surprisal(d)) >> 24


@triton.jit(noinline=True)
def sum_over(tokens, limits, what: tl.constexpr):
    """The sum of `what` (count, mass, energy) over the kept tokens: int64."""
    total = tl.full((), 0, tl.int64)
    for start in range(0, tokens.size, PART):
        x, ids = load(tokens, start, PART)
        total += tl.sum(tl.where(is_kept(x, ids, tokens, limits), what(x, tokens), 0))
    return total
