"""The kernels as they are launched.

Many rows: one program a row does everything. Few rows: many programs share a row in two launches, so that all of the
GPU works; the last program to have weighed its part chooses. Either way the sums are of integers, so the bits agree.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from samplers.kernels.fixed_point import weight, widened
from samplers.kernels.kept import LIMITS, Tokens, is_kept, mass
from samplers.kernels.philox import random_bits
from samplers.kernels.sampler import (
    GROUP,
    INFINITY,
    TILE,
    WIDTH,
    Found,
    Scratch,
    choose,
    entropy,
    greatest,
    inverse_temperature_of,
    is_valid,
    nothing_found,
    temperature_of,
    weigh,
    write_maxima,
)

ROOM = 4096  # ids in a row's list; a row that needs more is looked at as a whole
STATE: tl.constexpr = tl.constexpr(3)  # int64 numbers that the programs of a row share
PROGRAMS_PER_SM = 2
GREATEST: tl.constexpr = tl.constexpr(float.fromhex("0x1.fffffep+127"))
# Nothing is fused but what is written as fma.
OPTIONS = {"num_warps": 16, "enable_fp_fusion": False}


class Rows(NamedTuple):
    """What is read: pointers, and how far apart the entries of two rows are (0: one for all)."""

    x: torch.Tensor  # [B, V]
    stride: int
    vocabulary: int
    table: torch.Tensor  # int64 [R, 11], parameters
    table_step: int
    seed: torch.Tensor  # int64; in memory, so that a captured graph draws afresh at each replay
    seed_step: int
    position: torch.Tensor
    position_step: int
    stream: torch.Tensor
    stream_step: int


class Workspace(NamedTuple):
    """The memory of all rows: a `Scratch` for each, one behind the other."""

    maxima: torch.Tensor
    masses: torch.Tensor
    ids: torch.Tensor
    room: int  # ids of one row
    limits: torch.Tensor
    state: torch.Tensor


class Output(NamedTuple):
    """What is written: integers [4, B] (token, weight, total, kept), floats [3, B] (logprob, entropy, max)."""

    integers: torch.Tensor
    floats: torch.Tensor
    batch: int


@triton.jit
def scratch_of(workspace, row, vocabulary):
    tiles = tl.cdiv(vocabulary, TILE)
    return Scratch(
        workspace.maxima + row * tiles * (TILE // GROUP),
        workspace.masses + row * tiles,
        workspace.ids + row * workspace.room,
        workspace.room,
        workspace.limits + row * LIMITS,
        workspace.state + row * STATE,
    )


@triton.jit
def tokens_of(rows, row, scratch, m, inverse_temperature):
    """All tokens of a row."""
    return Tokens(rows.x + row * rows.stride, scratch.ids, False, rows.vocabulary, m, inverse_temperature)


@triton.jit
def bits_of(rows, row):
    seed = tl.load(rows.seed + row * rows.seed_step)
    position = tl.load(rows.position + row * rows.position_step)
    return random_bits(seed, position, tl.load(rows.stream + row * rows.stream_step))


@triton.jit
def weighed(rows, row, begin, end, scratch, SHARED: tl.constexpr):
    """The row's tokens with their maximum, its parameters, and what `weigh` found from begin to end."""
    p = rows.table + row * rows.table_step * WIDTH
    inverse_temperature = inverse_temperature_of(p)
    tokens = tokens_of(rows, row, scratch, 0.0, inverse_temperature)
    tokens = tokens_of(rows, row, scratch, greatest(tokens, scratch), inverse_temperature)
    found = nothing_found()
    if is_valid(tokens):
        found = weigh(tokens, begin, end, p, scratch, SHARED)
    return tokens, p, found


@triton.jit
def finish(rows, row, tokens, p, found, scratch, out, DETAILS: tl.constexpr):
    """Steps 4 to 6 of a row that has been weighed; -1, zeros and NaN where it is invalid."""
    token = tl.full((), -1, tl.int64)
    w, total, kept = token * 0, token * 0, token * 0
    logprob = tl.full((), float("nan"), tl.float32)
    nats = logprob
    if is_valid(tokens):
        token, tokens, total, kept = choose(tokens, found, p, bits_of(rows, row), scratch)
        token = tl.minimum(token, rows.vocabulary - 1)  # beyond it only if another stream writes the row meanwhile
        x = widened(tl.load(tokens.x + token))
        w = mass(x, tokens)
        logprob = tl.log(w.to(tl.float64) / total.to(tl.float64)).to(tl.float32)
        if DETAILS:
            nats = entropy(tokens, scratch.limits, total).to(tl.float32)
    tl.store(out.integers + row, token)
    tl.store(out.integers + out.batch + row, w)
    tl.store(out.integers + 2 * out.batch + row, total)
    tl.store(out.integers + 3 * out.batch + row, kept)
    tl.store(out.floats + row, logprob)
    tl.store(out.floats + out.batch + row, nats)
    tl.store(out.floats + 2 * out.batch + row, tokens.m)


@triton.jit
def row_kernel(rows, workspace, out, DETAILS: tl.constexpr):
    """One program a row does everything. Grid (B,)."""
    row = tl.program_id(0).to(tl.int64)
    scratch = scratch_of(workspace, row, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), 0, rows.vocabulary, scratch)
    tl.debug_barrier()  # what some threads stored, all will load
    tokens, p, found = weighed(rows, row, 0, rows.vocabulary, scratch, SHARED=False)
    tl.debug_barrier()
    finish(rows, row, tokens, p, found, scratch, out, DETAILS)


@triton.jit
def maxima_kernel(rows, workspace, part):
    """The first launch of two: the maxima of a row's part. Grid (B, parts); part is a multiple of TILE."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(workspace, row, rows.vocabulary)
    if begin == 0:
        for i in tl.static_range(STATE):
            tl.store(scratch.state + i, 0)
    end = tl.minimum(begin + part, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), begin, end, scratch)


@triton.jit
def choice_kernel(rows, workspace, out, part, DETAILS: tl.constexpr):
    """The second launch of two: weighs a row's part; the last program to have done so chooses. Grid (B, parts)."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(workspace, row, rows.vocabulary)
    end = tl.minimum(begin + part, rows.vocabulary)
    tokens, p, found = weighed(rows, row, begin, end, scratch, SHARED=True)
    tl.atomic_add(scratch.state + 1, found.finite)
    tl.debug_barrier()  # what this program stored stands before its ticket: Triton orders only scalars
    done = tl.atomic_add(scratch.state + 2, 1)
    tl.debug_barrier()
    if done == tl.num_programs(1) - 1:
        listed, finite = tl.load(scratch.state, volatile=True), tl.load(scratch.state + 1, volatile=True)
        found = Found(found.last_key, listed, finite)
        finish(rows, row, tokens, p, found, scratch, out, DETAILS)


@triton.jit
def filtered_kernel(rows, out, limits, filtered):
    """filtered float32 [B, V]: x / T where kept, -inf elsewhere. Grid (B, tiles)."""
    row, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE
    p = rows.table + row * rows.table_step * WIDTH
    inverse_temperature = inverse_temperature_of(p)
    m = tl.load(out.floats + 2 * out.batch + row)
    place = start + tl.arange(0, TILE)
    there = place < rows.vocabulary
    x = widened(tl.load(rows.x + row * rows.stride + place, mask=there, other=-INFINITY))
    kept = there & False
    if tl.load(out.integers + row) >= 0:
        tokens = Tokens(rows.x, rows.x, False, rows.vocabulary, m, inverse_temperature)
        kept = is_kept(x, place, tokens, limits + row * LIMITS)
    scaled = tl.div_rn(x, temperature_of(p) + tl.zeros_like(x))
    scaled = tl.minimum(tl.maximum(scaled, -GREATEST), GREATEST)
    tl.store(filtered + row * rows.vocabulary + place, tl.where(kept, scaled, -INFINITY), mask=there)


@triton.jit
def weights_kernel(d, w, size, BLOCK: tl.constexpr):
    """W alone, of each d [N]. Grid (N / BLOCK,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(w + i, weight(tl.load(d + i, mask=i < size, other=0.0)), mask=i < size)


def filter_logits(rows: Rows, size: int) -> tuple[torch.Tensor, Output]:
    """Steps 1 to 4: x / T where kept, -inf elsewhere, float32 [B, V]; and the output of the draw."""
    device = rows.x.device
    limits = torch.empty((size, LIMITS.value), dtype=torch.int64, device=device)
    out = sample(rows, size, details=False, limits=limits)
    filtered = torch.empty((size, rows.vocabulary), dtype=torch.float32, device=device)
    if size:
        grid = (size, triton.cdiv(rows.vocabulary, TILE.value))
        filtered_kernel[grid](rows, out, limits, filtered, **OPTIONS)
    return filtered, out


def weights(d: torch.Tensor) -> torch.Tensor:
    """As `samplers.reference.fixed_point.weights`: float32 d [N] in [-60, 0] -> int64 [N]."""
    w = torch.empty(d.shape, dtype=torch.int64, device=d.device)
    block = 32 * int(OPTIONS["num_warps"])  # one weight a thread
    weights_kernel[(triton.cdiv(len(d), block),)](d, w, len(d), block, **OPTIONS)
    return w


def sample(rows: Rows, size: int, details: bool, limits: torch.Tensor | None = None) -> Output:
    """Steps 1 to 6; entropy with details alone. limits: int64 [B, LIMITS], where to leave what is kept."""
    device, tiles = rows.x.device, triton.cdiv(rows.vocabulary, TILE.value)
    out = Output(
        torch.empty((4, size), dtype=torch.int64, device=device),
        torch.empty((3, size), dtype=torch.float32, device=device),
        size,
    )
    workspace = Workspace(
        torch.empty((size, tiles * TILE.value // GROUP.value), dtype=torch.float32, device=device),
        torch.empty((size, tiles), dtype=torch.int64, device=device),
        torch.empty((size, ROOM), dtype=torch.int32, device=device),
        ROOM,
        torch.empty((size, LIMITS.value), dtype=torch.int64, device=device) if limits is None else limits,
        torch.empty((size, STATE.value), dtype=torch.int64, device=device),
    )
    parts = parts_of_a_row(size, tiles, device)
    if size == 0:
        return out
    if parts == 1:
        row_kernel[(size,)](rows, workspace, out, details, **OPTIONS)
        return out
    part = triton.cdiv(tiles, parts) * TILE.value
    grid = (size, triton.cdiv(rows.vocabulary, part))
    maxima_kernel[grid](rows, workspace, part, **OPTIONS)
    choice_kernel[grid](rows, workspace, out, part, details, **OPTIONS)
    return out


def parts_of_a_row(size: int, tiles: int, device: torch.device) -> int:
    """How many programs share a row: enough for the whole GPU, one where the rows are enough."""
    wanted = PROGRAMS_PER_SM * multiprocessors(device.index) if device.type == "cuda" else 1
    return max(1, min(tiles, wanted // max(1, size)))


@functools.cache
def multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
