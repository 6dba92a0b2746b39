"""The Triton backend: lays out a batch on its device and launches the kernels. Nothing here waits for the GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton

from samplers.backends.contract import Columns, Filtered
from samplers.batch import Array, Batch, on_device
from samplers.kernels import launch, programs
from samplers.kernels.fixed_point import ONE
from samplers.kernels.launch import Number, Rows
from samplers.kernels.penalties import Penalties, penalise
from samplers.kernels.sampler import WIDTH
from samplers.params import PLAIN, PackedParams
from samplers.reference.filters import stages


def sample(batch: Batch, details: bool) -> Columns:
    """all_valid is None: finding out would wait for the GPU."""
    device = device_of(batch)
    with current(device):
        rows = rows_of(batch, device)
        out = launch.sample(rows, details).output
        model = model_logprobs(batch, rows, out.tokens) if details else None
        entropy = out.entropy if details else None
        return Columns(out.tokens, out.weight, out.total, out.kept, out.logprobs, model, entropy, None)


def filter_logits(batch: Batch) -> Filtered:
    device = device_of(batch)
    with current(device):
        filtered, out = launch.filter_logits(rows_of(batch, device))
        return filtered, out.tokens >= 0


def model_logprobs(batch: Batch, rows: Rows, tokens: torch.Tensor) -> torch.Tensor:
    """ln of each token's probability under softmax of the untouched logits (step 6): float32 [B]."""
    x = logits_of(batch, tokens.device)
    plain = PLAIN.packed.layout(table, tokens.device)
    plain_rows = rows._replace(x=x, table=plain, slots=None, has_totals=True, has_filters=False)
    out = launch.sample(plain_rows, details=False).output
    total, m = out.total.double(), out.m.double()
    logit = x.gather(1, tokens.clamp(min=0)[:, None])[:, 0].double()
    valid = (tokens >= 0) & (total > 0)
    return torch.where(valid, logit - m - torch.log(total / ONE.value), torch.nan).float()


def device_of(batch: Batch) -> torch.device:
    device = batch.rows.device if isinstance(batch.rows, torch.Tensor) else torch.device("cpu")
    if device.type == "cpu" and isinstance(launch.choose_kernel, triton.JITFunction):
        raise RuntimeError(
            "backend 'triton' must have its logits on a GPU, got them on the CPU; with TRITON_INTERPRET=1, set before "
            "Python starts, it runs there too"
        )
    return device


def current(device: torch.device) -> AbstractContextManager[None]:
    """Makes the device current: Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def rows_of(batch: Batch, device: torch.device) -> Rows:
    """The batch after step 0, as the kernels read it."""
    packed = batch.params
    numbers, has_totals, has_filters = packed.layout(inputs, device)
    x = penalised(batch, logits_of(batch, device), numbers)
    return Rows(
        x,
        numbers,
        None if packed.slots is None else on_device(packed.slots, device),
        number_of(batch.seed, device),
        number_of(batch.position, device),
        number_of(0 if batch.stream is None else batch.stream, device),
        flags_of(batch),
        has_totals,
        has_filters,
    )


def number_of(value: int | Array, device: torch.device) -> Number:
    if isinstance(value, int):
        return Number(None, value)
    tensor = on_device(value, device)
    return Number(tensor, int(len(tensor) > 1))


def flags_of(batch: Batch) -> int:
    """How the kernels find the seed and the stream of a row."""
    flags: int = programs.SEED_BY_SLOT.value if batch.is_by_slot(batch.seed) else 0
    if batch.stream is None:
        flags |= programs.STREAM_IS_ROW.value
    elif batch.is_by_slot(batch.stream):
        flags |= programs.STREAM_BY_SLOT.value
    return flags


def inputs(packed: PackedParams, device: torch.device) -> tuple[torch.Tensor, bool, bool]:
    """The parameters on the device, whether any row needs its total mass, and whether any has a filter.

    A table that the caller changes on the device may come to need both.
    """
    if packed.device_table is not None:
        return packed.device_table, True, True
    has_totals = any(p.temperature > 0 and not p.top_k for p in packed.distinct)
    has_filters = any(p.temperature == 0 or any(stages(p)) for p in packed.distinct)
    return table(packed, device), has_totals, has_filters


def logits_of(batch: Batch, device: torch.device) -> torch.Tensor:
    """The logits [B, V], with those of each row adjacent in memory."""
    x = batch.logits_on(device)
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def penalised(batch: Batch, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """x if nothing changes it, else a float32 copy after step 0."""
    packed, device = batch.params, x.device
    history = batch.history_on(device) if packed.uses_history else None
    biased = packed.greatest_biased >= 0
    if batch.size == 0 or (history is None and batch.allowed is None and not biased):
        return x
    starts = batch.history_start
    return penalise(
        x,
        Penalties(
            packed.layout(biases, batch.vocabulary, device) if biased else None,
            batch.allowed_on(device),
            history,
            starts if isinstance(starts, int) else on_device(starts, device),
            None if packed.slots is None else on_device(packed.slots, device),
        ),
        numbers,
    )


def table(packed: PackedParams, device: torch.device) -> torch.Tensor:
    """The packed parameters as int64 [R, WIDTH]."""
    return on_device(packed.table.view("int64").reshape(len(packed.params), WIDTH.value), device)


def biases(packed: PackedParams, vocabulary: int, device: torch.device) -> torch.Tensor:
    """The logit_bias of every token: float32 [R, V], 0 if it has none."""
    added = torch.zeros((len(packed.params), vocabulary))
    for row, p in zip(added, packed.params, strict=True):
        if p.logit_bias:
            row[list(p.logit_bias)] = torch.tensor(list(p.logit_bias.values()), dtype=torch.float32)
    return added.to(device, non_blocking=True)
