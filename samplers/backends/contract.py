"""The contract of a backend: two functions of a batch, with the same integers on every backend."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from samplers.batch import Array, Batch


class Columns(NamedTuple):
    """One number per row, [B]: NumPy arrays, or tensors on the logits' device."""

    tokens: Array  # int64; -1 in an invalid row
    weight: Array  # int64
    total: Array  # int64
    kept: Array  # int32
    logprobs: Array  # float32
    model_logprobs: Array | None  # float32; None without details
    entropy: Array | None  # float32, nats; None without details
    all_valid: bool | None  # None on a GPU: finding out would wait for the device


Filtered: TypeAlias = tuple[Array, Array]  # x / T if kept, else -inf: float32 [B, V]; whether rows are valid: bool [B]


class Backend(Protocol):
    """A module of this folder."""

    def sample(self, batch: Batch, details: bool) -> Columns:
        """Steps 0 to 6 of docs/definition.md for each row."""

    def filter_logits(self, batch: Batch) -> Filtered:
        """Steps 0 to 4 of docs/definition.md for each row."""
