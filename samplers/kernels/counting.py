"""Filters on a short list of tokens: each token counts those before it, so no filter searches.

A search takes some eleven rounds, which wait for each other; a count is one loop over the list.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.fixed_point import distance, surprisal, weight, widened
from samplers.kernels.keys import key_of, order_of
from samplers.kernels.scratch import COUNTED

AT_ONCE: tl.constexpr = tl.constexpr(8)  # tokens that are compared with all others at once
AFTER_ALL: tl.constexpr = tl.constexpr((1 << 63) - 1)  # the key of a cut token: before none


class Counted(NamedTuple):
    """Up to COUNTED tokens in registers, one a thread, and the memory in which they see each other: [COUNTED]."""

    ids: tl.tensor  # int64
    x: tl.tensor  # float32
    d: tl.tensor  # float32
    w: tl.tensor  # int64
    size: tl.tensor  # tokens that exist
    keys: tl.tensor  # pointer, int64
    weights: tl.tensor  # pointer, int64


@triton.jit
def counted(tokens, scratch):
    """The listed tokens, and whether each exists."""
    i = tl.arange(0, COUNTED)
    exists = i < tokens.size
    ids = tl.load(tokens.ids + i, mask=exists, other=0).to(tl.int64)
    x = widened(tl.load(tokens.x + ids, mask=exists, other=-float("inf")))
    d = distance(x, tokens.m, tokens.inverse_temperature)
    return Counted(ids, x, d, weight(d), tokens.size, scratch.keys, scratch.weights), exists


@triton.jit
def before(c, kept, keys):
    """For each token, the number and the mass of the kept tokens with a lesser key."""
    i = tl.arange(0, COUNTED)
    tl.debug_barrier()  # all threads have read what is overwritten now
    tl.store(c.keys + i, tl.where(kept, keys, AFTER_ALL))
    tl.store(c.weights + i, c.w)
    tl.debug_barrier()
    number = tl.zeros([COUNTED], tl.int32)
    mass = tl.zeros([COUNTED], tl.int64)
    for start in range(0, c.size, AT_ONCE):
        for j in tl.static_range(AT_ONCE):
            is_before = tl.load(c.keys + start + j) < keys
            number += is_before.to(tl.int32)
            mass += tl.where(is_before, tl.load(c.weights + start + j), 0)
    return number, mass


@triton.jit
def by_logit(c):
    return key_of(c.x).to(tl.int64)


@triton.jit
def by_order(c):
    return order_of(key_of(c.x), c.ids)


@triton.jit
def mass_of(c, kept):
    return tl.sum(tl.where(kept, c.w, 0))


@triton.jit
def energy_of(c, kept):
    return tl.sum(tl.where(kept, (c.w * surprisal(c.d)) >> 24, 0))
