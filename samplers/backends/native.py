"""The C++ backend: passes a batch to `csrc/` and returns its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from samplers.backends.contract import Columns, Filtered
from samplers.batch import Array, Batch
from samplers.params import PackedParams, SamplingParams

try:
    import samplers._native as _native

    _reason = "ok"
except ModuleNotFoundError:
    _reason = "not built for this Python: install a C++17 compiler and reinstall (pip -v shows its log)"
except ImportError as error:
    _reason = f"built, but can't be loaded: {error}"

N = TypeVar("N", bound=np.generic)
Output = TypeVar("Output")
Biases: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def state() -> str:
    """ "ok", or the reason why the extension can't run."""
    return _reason


def sample(batch: Batch, details: bool) -> Columns:
    batch = batch.by_row
    rows, params = logits_of(batch.rows), batch.params.layout(parameters)
    keys = on_host(batch.seed), on_host(batch.position), on_host(batch.stream)
    return Columns(*_native.sample(rows, params, penalties(batch), *keys, details, threads()))


def one_step(output: type[Output]) -> Callable[[object, object, object, object, object], Output | None]:
    """`samplers.sample` for plain tensors, parameters and two integers, in one step: csrc/one_step.h.

    output: SampleOutput. The function returns one, or None if the arguments are anything else or a row is invalid.
    """
    found = _native.one_step(output, SamplingParams, PackedParams) if _reason == "ok" else None
    return found or (lambda logits, params, seed, position, allowed: None)


def filter_logits(batch: Batch) -> Filtered:
    batch = batch.by_row
    return _native.filter_logits(logits_of(batch.rows), batch.params.layout(parameters), penalties(batch), threads())


def threads() -> int:
    """As many as torch uses; a small batch uses fewer."""
    return torch.get_num_threads()


def weights(d: torch.Tensor) -> torch.Tensor:
    """W of float32 d in [-60, 0] on the CPU, int64 of the same shape."""
    return torch.from_numpy(_native.weights(d.numpy(force=True).ravel())).view(d.shape)


def parameters(packed: PackedParams) -> _native.Parameters:
    return _native.Parameters(packed.table)


def logits_of(rows: Array) -> NDArray[np.generic]:
    """The logits [B, V] in place, as C++ reads them: bfloat16 as the same bits in int16."""
    if isinstance(rows, np.ndarray):
        return rows
    rows = rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows
    return rows.numpy(force=True) if rows.is_cuda or rows.is_neg() else rows.numpy()  # force costs a microsecond


def on_host(value: int | Array | None) -> int | NDArray[np.int64] | None:
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value


def penalties(batch: Batch) -> _native.Penalties | None:
    """The inputs of step 0, with lists as values and offsets; None if nothing changes the logits."""
    packed, history = batch.params, batch.history_rows
    if history is None and batch.allowed is None and packed.greatest_biased < 0:
        return None
    return _native.Penalties(
        *packed.layout(biases),
        None if history is None else concatenated(history, np.int64),
        None if history is None else offsets(history),
        batch.host("history_start"),
        batch.mask,
    )


def biases(packed: PackedParams) -> Biases:
    """The logit biases as ids, values and offsets."""
    lists = [p.logit_bias or {} for p in packed.params]
    ids = concatenated([list(bias.keys()) for bias in lists], np.int64)
    values = concatenated([list(bias.values()) for bias in lists], np.float32)
    return ids, values, offsets(lists)


def concatenated(lists: Sequence[Sequence[float] | NDArray[np.int64]], dtype: type[N]) -> NDArray[N]:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(row, dtype) for row in lists)])


def offsets(lists: Sequence[Sequence[float] | Mapping[int, float] | NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, lists)])
