"""The Triton backend: lays a batch out on its device and launches the kernels; nothing here waits for the GPU.

Many rows: one program a row does everything. Few rows: many programs share a row in two launches, so that all of the
GPU works; the last program to have weighed its part chooses. Either way the sums are of integers, so the bits agree.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from samplers.kernels.fixed_point import ONE, weight, widened
from samplers.kernels.kept import LIMITS, Tokens, is_kept, mass
from samplers.kernels.penalties import penalised_rows
from samplers.kernels.philox import random_bits
from samplers.kernels.sampler import (
    GROUP,
    INFINITY,
    OFF,
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

    x: Any  # [B, V]
    stride: Any
    vocabulary: Any
    table: Any  # int64 [R, 11], parameters
    table_step: Any
    seed: Any  # int64; in memory, so that a captured graph draws afresh at each replay
    seed_step: Any
    position: Any
    position_step: Any
    stream: Any
    stream_step: Any


class Memory(NamedTuple):
    """What the programs of a launch write down for each other: room for a `Scratch` a row, one behind the other."""

    maxima: Any
    masses: Any
    ids: Any
    room: Any  # ids of one row
    limits: Any
    state: Any


class Output(NamedTuple):
    """What is written: integers [4, B] (token, weight, total, kept), floats [3, B] (logprob, entropy, max)."""

    integers: Any
    floats: Any
    batch: Any


@triton.jit
def scratch_of(memory, row, vocabulary):
    tiles = tl.cdiv(vocabulary, TILE)
    return Scratch(
        memory.maxima + row * tiles * (TILE // GROUP),
        memory.masses + row * tiles,
        memory.ids + row * memory.room,
        memory.room,
        memory.limits + row * LIMITS,
        memory.state + row * STATE,
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
def row_kernel(rows, memory, out, DETAILS: tl.constexpr):
    """One program a row does everything. Grid (B,)."""
    row = tl.program_id(0).to(tl.int64)
    scratch = scratch_of(memory, row, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), 0, rows.vocabulary, scratch)
    tl.debug_barrier()  # what some threads stored, all will load
    tokens, p, found = weighed(rows, row, 0, rows.vocabulary, scratch, SHARED=False)
    tl.debug_barrier()
    finish(rows, row, tokens, p, found, scratch, out, DETAILS)


@triton.jit
def maxima_kernel(rows, memory, part):
    """The first launch of two: the maxima of a row's part. Grid (B, parts); part is a multiple of TILE."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(memory, row, rows.vocabulary)
    if begin == 0:
        for i in tl.static_range(STATE):
            tl.store(scratch.state + i, 0)
    end = tl.minimum(begin + part, rows.vocabulary)
    write_maxima(tokens_of(rows, row, scratch, 0.0, 1.0), begin, end, scratch)


@triton.jit
def choice_kernel(rows, memory, out, part, DETAILS: tl.constexpr):
    """The second launch of two: weighs a row's part; the last program to have done so chooses. Grid (B, parts)."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * part
    scratch = scratch_of(memory, row, rows.vocabulary)
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


def sample(batch: Any, details: bool) -> tuple[Any, ...]:
    """As `samplers.reference.sampler.sample`, bit for bit in tokens, weight, total and kept; tensors on the device.

    Whether all rows are valid is left to whoever asks (None): to know it is to wait for the GPU.
    """
    device = device_of(batch)
    with on(device):
        rows, size = laid_out(batch, device)
        out = launch(rows, size, details)
        tokens, weights, totals, kept = out.integers
        columns = (tokens, weights, totals, kept.to(torch.int32), out.floats[0])
        if not details:
            return *columns, None, None, None
        return *columns, model_logprob(batch, device, tokens, rows), out.floats[1], None


def filter_logits(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """As `samplers.reference.sampler.filter_logits`."""
    device = device_of(batch)
    with on(device):
        rows, size = laid_out(batch, device)
        limits = torch.empty((size, LIMITS.value), dtype=torch.int64, device=device)
        out = launch(rows, size, details=False, limits=limits)
        filtered = torch.empty((size, rows.vocabulary), dtype=torch.float32, device=device)
        if size:
            grid = (size, triton.cdiv(rows.vocabulary, TILE.value))
            filtered_kernel[grid](rows, out, limits, filtered, **OPTIONS)
        return filtered, out.integers[0] >= 0


def weights(d: torch.Tensor) -> torch.Tensor:
    """As `samplers.reference.fixed_point.weights`: float32 d [N] in [-60, 0] -> int64 [N]."""
    w = torch.empty(d.shape, dtype=torch.int64, device=d.device)
    block = 32 * int(OPTIONS["num_warps"])  # one weight a thread
    weights_kernel[(triton.cdiv(len(d), block),)](d, w, len(d), block, **OPTIONS)
    return w


def launch(rows: Rows, size: int, details: bool, limits: torch.Tensor | None = None) -> Output:
    """The launcher of everything that draws."""
    device, tiles = rows.x.device, triton.cdiv(rows.vocabulary, TILE.value)
    out = Output(
        torch.empty((4, size), dtype=torch.int64, device=device),
        torch.empty((3, size), dtype=torch.float32, device=device),
        size,
    )
    memory = Memory(
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
        row_kernel[(size,)](rows, memory, out, details, **OPTIONS)
        return out
    part = triton.cdiv(tiles, parts) * TILE.value
    grid = (size, triton.cdiv(rows.vocabulary, part))
    maxima_kernel[grid](rows, memory, part, **OPTIONS)
    choice_kernel[grid](rows, memory, out, part, details, **OPTIONS)
    return out


def parts_of_a_row(size: int, tiles: int, device: torch.device) -> int:
    """How many programs share a row: enough for the whole GPU, one where the rows are enough."""
    wanted = PROGRAMS_PER_SM * multiprocessors(device.index) if device.type == "cuda" else 1
    return max(1, min(tiles, wanted // max(1, size)))


@functools.cache
def multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def device_of(batch: Any) -> torch.device:
    device = batch.logits.device if isinstance(batch.logits, torch.Tensor) else torch.device("cpu")
    if device.type == "cpu" and isinstance(row_kernel, triton.JITFunction):
        raise RuntimeError(
            "backend 'triton' must have its logits on a GPU, got them on the CPU; with TRITON_INTERPRET=1, set before "
            "Python starts, it runs there too"
        )
    return device


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the device the current one, where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def laid_out(batch: Any, device: torch.device) -> tuple[Rows, int]:
    """A batch as the kernels read it, after step 0."""
    x = contiguous_rows(batch.tensor("logits", device))
    table = table_of(batch.params, device)
    keys = [batch.tensor(name, device) for name in ("seed", "position", "stream")]
    steps = [int(len(key) > 1) for key in keys]
    columns = [value for pair in zip(keys, steps, strict=True) for value in pair]
    x = penalised_rows(batch, x, table, device)
    return Rows(x, x.stride(0), x.shape[1], table, int(len(table) > 1), *columns), len(x)


def contiguous_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows may lie anywhere; the logits of one lie side by side."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def table_of(packed: Any, device: torch.device) -> torch.Tensor:
    """The parameters' numbers, int64 [R, 11]; kept with the parameters: laid out once, used at every step."""
    key = f"triton table {device}"
    if key not in packed.layouts:
        table = torch.from_numpy(packed.table.view("int64").reshape(len(packed.rows), WIDTH.value))
        packed.layouts[key] = table.to(device, non_blocking=True)
    return packed.layouts[key]


@functools.cache
def no_filters(device: torch.device) -> torch.Tensor:
    """A table whose one row leaves softmax(logits) as it is."""
    ones = 0x3F8000003F800000  # two float32
    return torch.tensor([[ones, 0x3F800000, 0, 0, 1, OFF.value, 0, OFF.value, 0, 0, 0]], device=device)


def model_logprob(batch: Any, device: torch.device, tokens: torch.Tensor, rows: Rows) -> torch.Tensor:
    """ln of each token's probability under softmax of the untouched logits (step 6): float32 [B]."""
    x = contiguous_rows(batch.tensor("logits", device))
    plain = rows._replace(x=x, stride=x.stride(0), table=no_filters(device), table_step=0)
    out = launch(plain, len(x), details=False)
    total, m = out.integers[2].double(), out.floats[2].double()
    logit = x.gather(1, tokens.clamp(min=0)[:, None])[:, 0].double()
    valid = (tokens >= 0) & (total > 0)
    return torch.where(valid, logit - m - torch.log(total / ONE.value), torch.nan).float()
