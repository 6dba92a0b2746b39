"""The memory of a row that its kernels and their programs share: one piece of one allocation."""

from typing import NamedTuple

import triton
import triton.language as tl

from samplers.kernels.streaming import LANE

CAPACITY: tl.constexpr = tl.constexpr(4096)  # of the list of ids; a row that needs more is read as a whole
COUNTED: tl.constexpr = tl.constexpr(256)  # tokens that are filtered by counting (counting.py)
MOST_WARPS: tl.constexpr = tl.constexpr(8)  # of a program; rows are padded to as many chunks
LIMITS: tl.constexpr = tl.constexpr(10)
COUNTERS: tl.constexpr = tl.constexpr(6)

# The counters.
DONE: tl.constexpr = tl.constexpr(0)  # programs that have weighed their part of the row
LISTED: tl.constexpr = tl.constexpr(1)  # ids in the list
PICKED: tl.constexpr = tl.constexpr(2)  # groups in the list of groups


class Scratch(NamedTuple):
    masses: tl.tensor  # int64, of each chunk
    limits: tl.tensor  # int64 [LIMITS], of the kept tokens
    counters: tl.tensor  # int64 [COUNTERS]
    keys: tl.tensor  # int64 [COUNTED]
    weights: tl.tensor  # int64 [COUNTED]
    ids: tl.tensor  # int32 [CAPACITY], the list of tokens
    maxima: tl.tensor  # float32, of each group
    picked: tl.tensor  # int32, the list of groups
    tops: tl.tensor  # float32, the greatest logit of each program's part
    finite: tl.tensor  # int32, logits above -inf of each program's part


@triton.jit
def chunks_of(size, STEPS: tl.constexpr):
    return tl.cdiv(size, STEPS * LANE * MOST_WARPS) * MOST_WARPS


@triton.jit
def scratch_of(scratch, words, row, size, STEPS: tl.constexpr):
    """The scratch of a row, which begins `words` int64 after that of the previous one."""
    chunks = chunks_of(size, STEPS)
    limits = scratch + row * words + chunks
    counters = limits + LIMITS
    keys = counters + COUNTERS
    ids = (keys + 2 * COUNTED).to(tl.pointer_type(tl.int32), bitcast=True)
    picked = ids + CAPACITY
    finite = picked + chunks * STEPS
    tops = (finite + chunks).to(tl.pointer_type(tl.float32), bitcast=True)
    return Scratch(limits - chunks, limits, counters, keys, keys + COUNTED, ids, tops + chunks, picked, tops, finite)


def words_of(size: int, steps: int) -> int:
    """The int64 numbers of a row's scratch, as `scratch_of` lays them out."""
    chunks = -(-size // (steps * LANE.value * MOST_WARPS.value)) * MOST_WARPS.value
    numbers_32_bits = CAPACITY.value + 2 * chunks * steps + 2 * chunks
    return chunks + LIMITS.value + COUNTERS.value + 2 * COUNTED.value + numbers_32_bits // 2
