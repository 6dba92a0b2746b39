"""The kept tokens of a row as limits, which decide for any token whether it is kept.

With limits instead of a list, no stage moves tokens, and programs share only a few integers per row.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.fixed_point import distance, surprisal, weight, widened
from samplers.kernels.keys import LAST, LAST_ID, LAST_KEY, key_of, order_of
from samplers.kernels.scratch import LIMITS

PART: tl.constexpr = tl.constexpr(512)  # tokens that a search reads at once


class Tokens(NamedTuple):
    """`size` tokens of a row: all of them, or those in a list of ids."""

    x: tl.tensor  # pointer to the row's logits
    ids: tl.tensor  # pointer to the list
    listed: tl.tensor  # bool, whether to use the list
    size: tl.tensor
    m: tl.tensor  # the row's greatest logit
    inverse_temperature: tl.tensor


# The limits of a row: int64 numbers in memory, which the stages write. A kept token is within all of them.
PREFIX: tl.constexpr = tl.constexpr(0)  # top-k and top-p: the last token in order
BY_MASS: tl.constexpr = tl.constexpr(1)  # whether any of the following limits is set
MIN_P: tl.constexpr = tl.constexpr(2)  # a cutoff is two numbers: the least mass, and the last token in order
MEAN: tl.constexpr = tl.constexpr(4)  # typical: D̄,
TYPICAL: tl.constexpr = tl.constexpr(5)  # and the last token by (|D - D̄|, id)
EPSILON: tl.constexpr = tl.constexpr(6)
ETA: tl.constexpr = tl.constexpr(8)


@triton.jit
def set_limit(limits, WHICH: tl.constexpr, value):
    """One thread stores. The barriers let the others first read the old value, and then see the new one."""
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
def keep_all(limits):
    """Keeps every token above -inf."""
    keep_up_to(limits, tl.full((), LAST_KEY, tl.int32))


@triton.jit
def keep_up_to(limits, last_key):
    """Keeps every token up to the int32 key."""
    for which in tl.static_range(BY_MASS, LIMITS):
        tl.store(limits + which, LAST if which == TYPICAL else 0)
    set_limit(limits, PREFIX, order_of(last_key, LAST_ID))


@triton.jit
def load(tokens, start, SIZE: tl.constexpr):
    """Logits and ids of `SIZE` tokens from start on; the logits beyond the last token are -inf."""
    i = start + tl.arange(0, SIZE)
    exists = i < tokens.size
    ids = i
    if tokens.listed:
        ids = tl.load(tokens.ids + i, mask=exists, other=0)
    return widened(tl.load(tokens.x + ids, mask=exists, other=-float("inf"))), ids


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
    kept = order <= tl.load(limits + PREFIX)  # never true for -inf
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
    """Mass times surprisal, in nats."""
    d = distances(x, tokens)
    return (weight(d) * surprisal(d)) >> 24


@triton.jit(noinline=True)
def sum_over(tokens, limits, quantity: tl.constexpr):
    """The sum of a quantity (count, mass, energy) over the kept tokens: int64."""
    total = tl.full((), 0, tl.int64)
    for start in range(0, tokens.size, PART):
        x, ids = load(tokens, start, PART)
        total += tl.sum(tl.where(is_kept(x, ids, tokens, limits), quantity(x, tokens), 0))
    return total
