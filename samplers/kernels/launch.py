"""The kernels and their launches.

With many rows, one program per row does everything. With few rows, many programs share a row in two launches, to use
the whole GPU; the last program that has weighed its part chooses. Both sum integers, so the results are identical.
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
    Scratch,
    Shortlist,
    choose,
    empty_shortlist,
    entropy,
    greatest,
    inverse_temperature_of,
    is_valid,
    temperature_of,
    weigh,
    write_maxima,
)

CAPACITY = 4096  # of a row's list of ids; a row that needs more is read as a whole
STATE: tl.constexpr = tl.constexpr(3)  # int64 numbers per row that its programs share
PROGRAMS_PER_SM = 2
GREATEST: tl.constexpr = tl.constexpr(float.fromhex("0x1.fffffep+127"))
# Triton fuses only the operations that are written as fma.
OPTIONS = {"num_warps": 16, "enable_fp_fusion": False}


class Rows(NamedTuple):
    """The inputs: pointers, and the step from one row to the next (0: one entry for all rows)."""

    x: torch.Tensor  # [B, V]
    stride: int
    vocabulary: int
    table: torch.Tensor  # int64 [R, WIDTH], parameters
    table_step: int
    seed: torch.Tensor  # int64; in memory, so each replay of a captured graph reads new values
    seed_step: int
    position: torch.Tensor
    position_step: int
    stream: torch.Tensor
    stream_step: int


class Workspace(NamedTuple):
    """The memory of all rows: one `Scratch` after the other."""

    maxima: torch.Tensor
    masses: torch.Tensor
    ids: torch.Tensor
    capacity: int  # ids per row
    limits: torch.Tensor
    state: torch.Tensor


class Output(NamedTuple):
    """The outputs: integers [4, B] (token, weight, total, kept), floats [3, B] (logprob, entropy, max)."""

    integers: torch.Tensor
    floats: torch.Tensor
    batch: int


@triton.jit
def scratch_of(workspace, row, vocabulary):
    tiles = tl.cdiv(vocabulary, TILE)
    return Scratch(
        workspace.maxima + row * tiles * (TILE // GROUP),
        workspace.masses + row * tiles,
        workspace.ids + row * workspace.capacity,
        workspace.capacity,
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
    """The row's tokens with their maximum, its parameters, and the shortlist of the tokens from begin to end."""
    p = rows.table + row * rows.table_step * WIDTH
    inverse_temperature = inverse_temperature_of(p)
    tokens = tokens_of(rows, row, scratch, 0.0, inverse_temperature)
    tokens = tokens_of(rows, row, scratch, greatest(tokens, scratch), inverse_temperature)
    shortlist = empty_shortlist()
    if is_valid(tokens):
        shortlist = weigh(tokens, begin, end, p, scratch, SHARED)
    return tokens, p, shortlist


@triton.jit
def finish(rows, row, tokens, p, shortlist, scratch, out, DETAILS: tl.constexpr):
    """Steps 4 to 6 of a weighed row; -1, zeros and NaN if it is invalid."""
    token = tl.full((), -1, tl.int64)
    w, total, kept = token * 0, token * 0, token * 0
    logprob = tl.full((), float("nan"), tl.float32)
    nats = logprob
    if is_valid(tokens):
        token, tokens, total, kept = choose(tokens, shortlist, p, bits_of(rows, row), scratch)
        token = tl.minimum(token, rows.vocabulary - 1)  # greater only if another stream writes the row meanwhile
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
    """One program per row does everything. Grid (B,)."""
    row = tl.program_id(0).to(tl.int64)
    scratch = scratch_of(workspace, row, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), 0, rows.vocabulary, scratch)
    tl.debug_barrier()  # makes the stores of each thread visible to all
    tokens, p, shortlist = weighed(rows, row, 0, rows.vocabulary, scratch, SHARED=False)
    tl.debug_barrier()
    finish(rows, row, tokens, p, shortlist, scratch, out, DETAILS)


@triton.jit
def maxima_kernel(rows, workspace, part):
    """The first launch of two: the maxima of one part of a row. Grid (B, parts); part is a multiple of TILE."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(workspace, row, rows.vocabulary)
    if begin == 0:
        for i in tl.static_range(STATE):
            tl.store(scratch.state + i, 0)
    end = tl.minimum(begin + part, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), begin, end, scratch)


@triton.jit
def choice_kernel(rows, workspace, out, part, DETAILS: tl.constexpr):
    """The second launch of two: weighs one part of a row; the last program to finish chooses. Grid (B, parts)."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(workspace, row, rows.vocabulary)
    end = tl.minimum(begin + part, rows.vocabulary)
    tokens, p, shortlist = weighed(rows, row, begin, end, scratch, SHARED=True)
    tl.atomic_add(scratch.state + 1, shortlist.finite)
    tl.debug_barrier()  # completes this program's stores before it counts itself done: Triton orders only scalars
    done = tl.atomic_add(scratch.state + 2, 1)
    tl.debug_barrier()
    if done == tl.num_programs(1) - 1:
        size, finite = tl.load(scratch.state, volatile=True), tl.load(scratch.state + 1, volatile=True)
        shortlist = Shortlist(shortlist.last_key, size, finite)
        finish(rows, row, tokens, p, shortlist, scratch, out, DETAILS)


@triton.jit
def filtered_kernel(rows, out, limits, filtered):
    """filtered float32 [B, V]: x / T if kept, else -inf. Grid (B, tiles)."""
    row, start = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE
    p = rows.table + row * rows.table_step * WIDTH
    inverse_temperature = inverse_temperature_of(p)
    m = tl.load(out.floats + 2 * out.batch + row)
    ids = start + tl.arange(0, TILE)
    in_row = ids < rows.vocabulary
    x = widened(tl.load(rows.x + row * rows.stride + ids, mask=in_row, other=-INFINITY))
    kept = in_row & False
    if tl.load(out.integers + row) >= 0:
        tokens = Tokens(rows.x, rows.x, False, rows.vocabulary, m, inverse_temperature)
        kept = is_kept(x, ids, tokens, limits + row * LIMITS)
    scaled = tl.div_rn(x, temperature_of(p) + tl.zeros_like(x))
    scaled = tl.minimum(tl.maximum(scaled, -GREATEST), GREATEST)
    tl.store(filtered + row * rows.vocabulary + ids, tl.where(kept, scaled, -INFINITY), mask=in_row)


@triton.jit
def weights_kernel(d, w, size, BLOCK: tl.constexpr):
    """W of each d [N]. Grid (N / BLOCK,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(w + i, weight(tl.load(d + i, mask=i < size, other=0.0)), mask=i < size)


def filter_logits(rows: Rows, size: int) -> tuple[torch.Tensor, Output]:
    """Steps 1 to 4: x / T if kept, else -inf, float32 [B, V]; and the output of the draw."""
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
    block = 32 * int(OPTIONS["num_warps"])  # one weight per thread
    weights_kernel[(triton.cdiv(len(d), block),)](d, w, len(d), block, **OPTIONS)
    return w


def sample(rows: Rows, size: int, details: bool, limits: torch.Tensor | None = None) -> Output:
    """Steps 1 to 6; entropy only with details. limits: int64 [B, LIMITS], receives the limits of the kept tokens."""
    device, tiles = rows.x.device, triton.cdiv(rows.vocabulary, TILE.value)
    out = Output(
        torch.empty((4, size), dtype=torch.int64, device=device),
        torch.empty((3, size), dtype=torch.float32, device=device),
        size,
    )
    workspace = Workspace(
        torch.empty((size, tiles * TILE.value // GROUP.value), dtype=torch.float32, device=device),
        torch.empty((size, tiles), dtype=torch.int64, device=device),
        torch.empty((size, CAPACITY), dtype=torch.int32, device=device),
        CAPACITY,
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
    """The number of programs that share a row: enough to fill the GPU, one if the rows alone fill it."""
    wanted = PROGRAMS_PER_SM * multiprocessors(device.index) if device.type == "cuda" else 1
    return max(1, min(tiles, wanted // max(1, size)))


@functools.cache
def multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
