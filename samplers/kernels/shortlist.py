"""The shortlist: the tokens that the first filter may keep, found through the maxima of groups of logits.

Only groups whose maximum passes are read again: a few of 128 logits, not the row. The list is in no order: each token
takes the next free place. No result depends on the order.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.fixed_point import ONE, widened
from samplers.kernels.keys import LAST_KEY, key_of
from samplers.kernels.scratch import CAPACITY, LISTED, PICKED
from samplers.kernels.search import WAYS
from samplers.kernels.streaming import INFINITY, groups_of, ids_of_group

MAXIMA: tl.constexpr = tl.constexpr(512)  # that are read at once
GROUPS: tl.constexpr = tl.constexpr(16)  # that are read at once


class Shortlist(NamedTuple):
    last_key: tl.tensor  # int32, tokens up to this key are listed
    size: tl.tensor  # int32, their number; more than CAPACITY if some found no place


@triton.jit
def key_below(least, m, temperature):
    """A key that no token of mass `least` or more exceeds, with a margin for the rounding of d and w."""
    d = tl.log(least.to(tl.float64) / ONE) - 1e-3
    x = (m.to(tl.float64) + d * temperature.to(tl.float64)).to(tl.float32) + 0.0
    return tl.minimum(key_of(x) + 1, LAST_KEY)


@triton.jit
def groups_up_to(keys, maxima, groups):
    """For each of keys [WAYS], the number of groups whose maximum is up to it."""
    counts = tl.zeros([WAYS], tl.int64)
    for start in range(0, groups, MAXIMA):
        i = start + tl.arange(0, MAXIMA)
        of_groups = key_of(tl.load(maxima + i, mask=i < groups, other=-INFINITY)).to(tl.int64)
        counts += tl.sum((of_groups[:, None] <= keys[None, :]).to(tl.int64), axis=0)
    return counts


@triton.jit
def key_of_greatest(k, m, maxima, groups):
    """A key that k groups reach, so at least k tokens do; a key that at most 2k groups reach if ties do not prevent it.

    It only limits the shortlist, so the search ends as soon as the number of groups is in that range.
    """
    low, high = key_of(m).to(tl.int64), tl.full((), LAST_KEY, tl.int64)
    reached = 2 * k + 1
    while (low < high) & (reached > 2 * k):
        step = (high - low) // WAYS + 1
        keys = tl.minimum(low + step * (tl.arange(0, WAYS) + 1) - 1, high)
        counts = groups_up_to(keys, maxima, groups)
        short = tl.minimum(tl.sum((counts < k).to(tl.int64)), WAYS - 1)
        low = tl.minimum(low + short * step, high)
        high = tl.minimum(low + step - 1, high)
        reached = tl.min(tl.where(counts < k, tl.max(counts), counts))
    return high.to(tl.int32)


@triton.jit
def append(ids, chosen, counter, list_, capacity):
    """Gives each chosen id the next free place of a list, as far as its capacity allows."""
    place = tl.atomic_add(counter + tl.zeros_like(ids), 1, mask=chosen, sem="relaxed", scope="cta")
    tl.store(list_ + place, ids, mask=chosen & (place < capacity))


@triton.jit
def pick_groups(last_key, groups, scratch):
    """Lists the groups whose maximum is up to the key; returns their number."""
    for start in range(0, groups, MAXIMA):
        group = start + tl.arange(0, MAXIMA)
        maxima = tl.load(scratch.maxima + group, mask=group < groups, other=-INFINITY)
        append(group, key_of(maxima) <= last_key, scratch.counters + PICKED, scratch.picked, groups)
    tl.debug_barrier()
    return tl.load(scratch.counters + PICKED, volatile=True).to(tl.int32)


@triton.jit
def load_groups(x, size, start, picked, scratch, STEPS: tl.constexpr):
    """Logits and ids of GROUPS picked groups from the start-th on: [GROUPS, GROUP]; -inf where there are fewer."""
    i = start + tl.arange(0, GROUPS)
    group = tl.load(scratch.picked + i, mask=i < picked, other=0)
    ids = ids_of_group(group, STEPS)
    return widened(tl.load(x + ids, mask=(i < picked)[:, None] & (ids < size), other=-INFINITY)), ids


@triton.jit
def reset(scratch):
    """Empties both lists. The barriers let all threads finish with them before, and see them empty after."""
    tl.debug_barrier()
    tl.store(scratch.counters + LISTED, 0)
    tl.store(scratch.counters + PICKED, 0)
    tl.debug_barrier()


@triton.jit
def list_tokens(tokens, last_key, scratch, STEPS: tl.constexpr):
    """Lists the tokens up to the key; stops soon after the list is full."""
    reset(scratch)
    picked = pick_groups(last_key, groups_of(tokens.size, STEPS), scratch)
    size = tl.full((), 0, tl.int32)
    start = tl.full((), 0, tl.int32)
    while (start < picked) & (size <= CAPACITY):
        x, ids = load_groups(tokens.x, tokens.size, start, picked, scratch, STEPS)
        append(ids, key_of(x) <= last_key, scratch.counters + LISTED, scratch.ids, CAPACITY)
        tl.debug_barrier()
        size = tl.load(scratch.counters + LISTED, volatile=True).to(tl.int32)
        start += GROUPS
    return Shortlist(last_key, size)


@triton.jit
def first_greatest(tokens, scratch, STEPS: tl.constexpr):
    """Step 2: the first id whose logit is the greatest."""
    reset(scratch)
    picked = pick_groups(key_of(tokens.m), groups_of(tokens.size, STEPS), scratch)
    first = tl.full((), 1 << 20, tl.int32)
    for start in range(0, picked, GROUPS):
        x, ids = load_groups(tokens.x, tokens.size, start, picked, scratch, STEPS)
        first = tl.minimum(first, tl.min(tl.min(tl.where(x == tokens.m, ids, 1 << 20), axis=1), axis=0))
    return first.to(tl.int64)
