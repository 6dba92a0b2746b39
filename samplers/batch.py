"""A call's arguments, checked and laid out by row: what every backend is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from samplers.params import MAX_VOCABULARY, PackedParams, SamplingParams, pack

Array: TypeAlias = "np.ndarray | torch.Tensor"
Params: TypeAlias = "SamplingParams | Sequence[SamplingParams] | PackedParams | None"
Integers: TypeAlias = "int | Sequence[int] | np.ndarray | torch.Tensor"
History: TypeAlias = "Array | Sequence[Sequence[int]] | None"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Batch:
    """B rows of logits over V tokens, and what belongs to each.

    x: float32 [B, V]. params: PackedParams of one row or B. history: int64 ids a row, or None.
    history_start: int64 [B]. allowed: bool [B, V], or None.
    """

    def __init__(
        self, logits: Any, params: Params, history: History, history_start: Integers, allowed: Array | None
    ) -> None:
        self.logits = logits
        self.x = float32_rows(logits)  # [B, V]
        self.size, self.vocabulary = self.x.shape
        self.params = pack(params)
        if len(self.params.rows) not in (1, self.size):
            raise ValueError(f"params must be one or {self.size} (one a row), got {len(self.params.rows)}")
        for p in self.params.rows:
            if p.logit_bias and max(p.logit_bias) >= self.vocabulary:
                raise ValueError(f"logit_bias: a token id must be < {self.vocabulary}, got {max(p.logit_bias)}")
        self.history = None if history is None else history_rows(history, self.size)
        self.history_start = self.integers("history_start", history_start)
        if self.size and self.history_start.min() < 0:
            raise ValueError(f"history_start must be in 0 .. 2^63 - 1, got {history_start!r}")
        self.allowed = None if allowed is None else self.mask(allowed)

    @property
    def on_gpu(self) -> bool:
        return isinstance(self.logits, torch.Tensor) and self.logits.is_cuda

    def mask(self, allowed: Any) -> np.ndarray:
        mask = to_numpy("allowed", allowed, "bool (B, V) or (V,)")
        if mask.dtype != bool:
            raise TypeError(f"allowed must be of dtype bool, got {mask.dtype}")
        if mask.shape not in ((self.vocabulary,), (self.size, self.vocabulary)):
            wanted = f"({self.vocabulary},) or ({self.size}, {self.vocabulary})"
            raise ValueError(f"allowed must have shape {wanted}, got {mask.shape}")
        return np.broadcast_to(mask, (self.size, self.vocabulary))

    def integers(self, name: str, value: Integers) -> np.ndarray:
        """int64 [B] from one integer or B of them."""
        array = to_numpy(name, value, f"an integer or int64 ({self.size},)")
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"{name} must be an integer or int64 ({self.size},), got {value!r}")
        if array.shape not in ((), (self.size,)):
            raise ValueError(f"{name} must be an integer or of shape ({self.size},), got shape {array.shape}")
        return np.full(self.size, array, np.int64) if array.ndim == 0 else array.astype(np.int64)

    def unsigned(self, name: str, value: Integers) -> np.ndarray:
        """uint64 [B], mod 2^64."""
        if isinstance(value, int) and not isinstance(value, bool):
            return np.full(self.size, value % 2**64, np.uint64)
        if isinstance(value, (list, tuple)):  # Python integers of any size
            value = [v % 2**64 if isinstance(v, int) and not isinstance(v, bool) else v for v in value]
        return self.integers(name, value).astype(np.uint64)

    def like_logits(self, array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(self.logits.device) if isinstance(self.logits, torch.Tensor) else array


def float32_rows(logits: Any) -> np.ndarray:
    """Logits as float32 (B, V); never the caller's memory written, though perhaps read in place."""
    if isinstance(logits, torch.Tensor):
        if logits.dtype not in FLOATS:
            raise TypeError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
        x = to_numpy("logits", logits.detach().float(), "a dense tensor that holds data")
    elif isinstance(logits, np.ndarray):
        if logits.dtype not in (np.float32, np.float16):
            raise TypeError(f"logits must be float32 or float16 in NumPy, got {logits.dtype}")
        x = np.asarray(logits, np.float32)
    else:
        raise TypeError(f"logits must be a torch.Tensor or numpy.ndarray, got {type(logits).__name__}")
    if x.ndim not in (1, 2):
        raise ValueError(f"logits must have shape (B, V) or (V,), got {tuple(x.shape)}")
    if not 1 <= x.shape[-1] <= MAX_VOCABULARY:
        raise ValueError(f"logits must have a vocabulary of 1 to {MAX_VOCABULARY}, got {x.shape[-1]}")
    return x[None] if x.ndim == 1 else x


def history_rows(history: Array | Sequence[Sequence[int]], batch: int) -> list[np.ndarray]:
    """One int64 array of ids a row."""
    form = "int64 (B, L) padded with -1, or a list of sequences of token ids"
    if isinstance(history, (torch.Tensor, np.ndarray)):
        rows = list(np.atleast_2d(to_numpy("history", history, form)))
    elif isinstance(history, Sequence):
        rows = [to_numpy("history", row, form) for row in history]
    else:
        raise TypeError(f"history must be {form}, got {type(history).__name__}")
    if len(rows) != batch:
        raise ValueError(f"history must have one row for each of the {batch} rows of logits, got {len(rows)}")
    for row in rows:
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise TypeError(f"history must be {form}, got a row of {row.dtype} with shape {row.shape}")
        if row.size and row.min() < -1:
            raise ValueError(f"history must hold token ids >= 0, or -1 for padding, got {int(row.min())}")
    return [row.astype(np.int64) for row in rows]


def to_numpy(name: str, value: Any, form: str) -> np.ndarray:
    """As an array, on the host. TypeError naming the argument and its form where that can't be."""
    try:
        return value.detach().resolve_neg().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name} must be {form}, got {value!r}") from None
