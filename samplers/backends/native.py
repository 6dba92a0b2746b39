"""The C++ backend: hands a batch to `csrc/` and its columns back."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch

from samplers.params import SamplingParams

try:
    _native: Any = import_module("samplers._native")
    _reason = "ok"
except ModuleNotFoundError:
    _native, _reason = None, "not built for this Python: install a C++17 compiler and reinstall (pip -v shows its log)"
except ImportError as error:
    _native, _reason = None, f"built, but can't be loaded: {error}"


def state() -> str:
    """ "ok", or why the extension can't run."""
    return _reason


def sample(batch: Any, details: bool) -> tuple[Any, ...]:
    """As `samplers.reference.sampler.sample`, bit for bit in tokens, weight, total and kept."""
    keys = (on_host(batch.seed), on_host(batch.position), on_host(batch.stream))
    return _native.sample(array(batch.rows), parameters(batch.params), changes(batch), *keys, details, threads())


def filter_logits(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """As `samplers.reference.sampler.filter_logits`."""
    return _native.filter_logits(array(batch.rows), parameters(batch.params), changes(batch), threads())


def threads() -> int:
    """As many as torch uses; only a batch that is worth it is spread over them."""
    return torch.get_num_threads()


def parameters(packed: Any) -> Any:
    """As C++ reads them, laid out at their first use."""
    if "native" not in packed.layouts:
        packed.layouts["native"] = _native.Parameters(packed.table)
    return packed.layouts["native"]


def array(rows: Any) -> np.ndarray:
    """Logits [B, V] as C++ reads them, in place: the bits of a bfloat16 as int16."""
    if isinstance(rows, np.ndarray):
        return rows
    rows = rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows
    return rows.numpy(force=True) if rows.is_cuda or rows.is_neg() else rows.numpy()  # force costs a microsecond


def on_host(value: Any) -> Any:
    """An integer, an array, or None."""
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value


def changes(batch: Any) -> Any:
    """What changes the logits, lists as values and offsets; None where nothing does."""
    packed, history = batch.params, batch.history_rows
    if history is None and batch.allowed is None and packed.greatest_biased < 0:
        return None
    if "native biases" not in packed.layouts:
        packed.layouts["native biases"] = biases(packed.rows)
    return _native.Changes(
        *packed.layouts["native biases"],
        *((None, None) if history is None else (concatenated(history, np.int64), offsets(history))),
        batch.host("history_start"),
        batch.mask,
    )


def biases(rows: tuple[SamplingParams, ...]) -> tuple[np.ndarray, ...]:
    """The biases of all rows: ids, values, offsets."""
    lists = [p.logit_bias or {} for p in rows]
    ids = concatenated([list(bias.keys()) for bias in lists], np.int64)
    values = concatenated([list(bias.values()) for bias in lists], np.float32)
    return ids, values, offsets(lists)


def concatenated(lists: Any, dtype: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(row, dtype) for row in lists)])


def offsets(lists: Any) -> np.ndarray:
    return np.cumsum([0, *map(len, lists)])
