"""The maximum and the mass of a row in one launch that reads the row from memory once.

A program keeps its part of the row in registers while it waits for the maxima of the other parts: one read instead of
two, and 25 machine instructions a logit in all. Programs take their parts by ticket: when one has a ticket, all before
it are running, so the parts that it waits for are never behind it in the queue.

Triton's interpreter runs one program after the other, so there a row must fit one part. No GPU has run this yet, so
nothing uses it: `SEEN` is empty.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from samplers.kernels.fixed_point import distance, weight
from samplers.kernels.streaming import INFINITY, LANE, greater_or_nan, load_step

# Where a GPU has been seen to draw the same, and faster: (compute capability, dtype of the logits).
SEEN: set[tuple[tuple[int, int], torch.dtype]] = set()

TICKETS: tl.constexpr = tl.constexpr(0)  # the counters of a launch: parts taken,
ROWS: tl.constexpr = tl.constexpr(1)  # and for each row, parts with a maximum plus parts with a mass


@triton.jit
def take_part(counters, parts):
    """The row and the part of this program. The last one resets the counter for the next launch."""
    ticket = tl.atomic_add(counters + TICKETS, 1)
    if ticket == tl.num_programs(0) - 1:
        tl.store(counters + TICKETS, 0)
    return (ticket // parts).to(tl.int64), ticket % parts


@triton.jit
def wait_for_maxima(arrived, parts):
    """Until all programs of the row have stored their maximum."""
    tl.debug_barrier()  # completes this program's stores: Triton orders only scalars
    tl.atomic_add(arrived, 1, sem="acq_rel")
    while tl.atomic_add(arrived, 0, sem="acquire") < parts:
        pass
    tl.debug_barrier()


@triton.jit
def load_part(x, start, size, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The logits of a part, a tensor [WARPS, LANE] a step, and the greatest of each place."""
    logits = ()
    greatest = tl.full([WARPS, LANE], -INFINITY, tl.float32)
    for j in tl.static_range(STEPS):
        step = load_step(x + start, j, size - start, WARPS, STEPS, WHOLE=False)
        logits = logits + (step,)  # type: ignore[assignment]  # noqa: RUF005 (Triton cannot unpack)
        greatest = greater_or_nan(greatest, step)
    return logits, greatest


@triton.jit
def mass_of_part(logits, m, inverse_temperature, WARPS: tl.constexpr, STEPS: tl.constexpr):
    """The mass of each chunk, and the number of logits above -inf."""
    mass = tl.zeros([WARPS, LANE], tl.int64)
    gap = tl.zeros([WARPS, LANE], tl.float32)
    for j in tl.static_range(STEPS):
        mass += weight(distance(logits[j], m, inverse_temperature))
        gap += logits[j]
    finite = tl.full((), WARPS * STEPS * LANE, tl.int32)
    if not (tl.abs(tl.sum(gap)) < INFINITY):
        finite = count_finite(logits, WARPS, STEPS)
    return tl.sum(mass, axis=1), finite


@triton.jit
def count_finite(logits, WARPS: tl.constexpr, STEPS: tl.constexpr):
    number = tl.zeros([WARPS, LANE], tl.int32)
    for j in tl.static_range(STEPS):
        number += (logits[j] > -INFINITY).to(tl.int32)
    return tl.sum(number)


@triton.jit
def is_last(arrived, parts):
    """Whether this program is the last of its row to have weighed its part. It resets the counter."""
    tl.debug_barrier()
    is_last = tl.atomic_add(arrived, 1, sem="acq_rel") == 2 * parts - 1
    if is_last:
        tl.store(arrived, 0)
    tl.debug_barrier()
    return is_last


def is_used(device: torch.device, dtype: torch.dtype) -> bool:
    return bool(SEEN) and device.type == "cuda" and (torch.cuda.get_device_capability(device), dtype) in SEEN


def counters(device: torch.device, size: int) -> torch.Tensor:
    """The counters of a launch. They are kept for each stream, whose launches follow one another."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return zeros(device, stream, triton.next_power_of_2(size))


@functools.lru_cache(64)
def zeros(device: torch.device, stream: int, size: int) -> torch.Tensor:
    """Each launch leaves them zero."""
    return torch.zeros(ROWS.value + size, dtype=torch.int32, device=device)
