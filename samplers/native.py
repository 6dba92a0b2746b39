"""The C++ backend: hands a batch to `csrc/` and its columns back."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

from samplers.params import SamplingParams
from samplers.reference.fixed_point import fraction

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


def sample(batch: Any, details: bool) -> tuple[np.ndarray, ...]:
    """As `samplers.reference.sampler.sample`, bit for bit in tokens, weight, total and kept."""
    return _native.sample(laid_out(batch), batch.host("seed"), batch.host("position"), batch.host("stream"), details)


def filter_logits(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """As `samplers.reference.sampler.filter_logits`."""
    return _native.filter_logits(laid_out(batch))


def laid_out(batch: Any) -> Any:
    """The batch as C++ reads it: parameters as a struct a row, lists as values and offsets."""
    packed = batch.params
    if "native" not in packed.layouts:
        packed.layouts["native"] = params_layout(packed.rows)
    history = batch.history_rows
    return _native.Batch(
        np.require(batch.x, requirements=["C", "A"]),  # contiguous and aligned
        *packed.layouts["native"],
        *((None, None) if history is None else (concatenated(history, np.int64), offsets(history))),
        batch.host("history_start"),
        batch.mask,
    )


def params_layout(rows: tuple[SamplingParams, ...]) -> tuple[np.ndarray, ...]:
    """Structs [R], then the biases of all rows: ids, values, offsets."""
    biases = [p.logit_bias or {} for p in rows]
    ids = concatenated([list(bias.keys()) for bias in biases], np.int64)
    values = concatenated([list(bias.values()) for bias in biases], np.float32)
    return np.array([struct(p) for p in rows], _native.params_dtype), ids, values, offsets(biases)


def struct(p: SamplingParams) -> tuple[float | int | bool, ...]:
    """One row's fields in the order of `alea::Params`."""
    q = (p.top_p, p.min_p, p.typical_p, p.epsilon_cutoff, p.eta_cutoff, math.sqrt(p.eta_cutoff))
    return (
        p.temperature or 1.0,
        1 / p.temperature if p.temperature else 0.0,
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
        min(p.top_k, 2**31),
        min(p.min_tokens_to_keep, 2**31),
        *(min(fraction(value), 2**64 - 1) for value in q),  # the cut of 2^64 changes no bound: masses are < 2^64
        p.top_p < 1,
        p.min_p > 0,
        p.typical_p < 1,
        p.epsilon_cutoff > 0,
        p.eta_cutoff > 0,
    )


def concatenated(lists: Any, dtype: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(row, dtype) for row in lists)])


def offsets(lists: Any) -> np.ndarray:
    return np.cumsum([0, *map(len, lists)])
