"""The checked arguments of a call. Backends read them from here, on the host or on the logits' device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from samplers.cached_property import cached_property
from samplers.params import MAX_VOCABULARY, PackedParams, SamplingParams, pack

Array: TypeAlias = "NDArray[Any] | torch.Tensor"
Params: TypeAlias = "SamplingParams | Sequence[SamplingParams] | PackedParams | None"
Integers: TypeAlias = "int | Sequence[int] | NDArray[Any] | torch.Tensor"
History: TypeAlias = "Array | Sequence[Sequence[int]] | None"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Batch:
    """B rows of logits over V tokens, and the arguments that belong to each row.

    Only type and shape of tensors on a GPU are checked: reading their values would wait for the GPU.

    rows: [B, V], the caller's memory, read and never written. allowed: bool [V] or [B, V], or bits in int32 [W] or
    [B, W] with W = ceil(V / 32), or None. seed, position, history_start: int, or int64 [1] or [B]. stream: the same, or
    None for the row numbers.
    """

    def __init__(
        self,
        logits: Any,
        params: Params = None,
        history: History = None,
        history_start: Integers = 0,
        allowed: Array | None = None,
        seed: Integers = 0,
        position: Integers = 0,
        stream: Integers | None = None,
    ) -> None:
        self.rows = rows_of(logits)
        self.size, self.vocabulary = int(self.rows.shape[0]), int(self.rows.shape[1])
        self.params = packed_for(params, self.size, self.vocabulary)
        self.history = None if history is None else history_of(history, self.size)
        self.history_start = starts_of(history_start, self.size)
        self.allowed = None if allowed is None else mask_of(allowed, self.size, self.vocabulary)
        slots = 0 if self.params.slots is None else len(self.params.params)
        self.seed = integers("seed", seed, self.size, slots)
        self.position = integers("position", position, self.size)
        self.stream = None if stream is None else integers("stream", stream, self.size, slots)

    @property
    def by_row(self) -> Batch:
        """The same batch, with parameters, seed and stream for each row instead of each slot."""
        if self.params.slots is None:
            return self
        batch = copy.copy(self)
        slots = to_numpy("index", self.params.slots)
        batch.params = PackedParams(tuple(self.params.row(i) for i in range(self.size)))
        if self.is_by_slot(self.seed):
            batch.seed = to_numpy("seed", self.seed)[slots]
        if self.is_by_slot(self.stream):
            batch.stream = to_numpy("stream", self.stream)[slots]
        return batch

    def is_by_slot(self, value: int | Array | None) -> bool:
        """Whether a seed or stream has a number for each slot."""
        if self.params.slots is None or value is None or isinstance(value, int):
            return False
        return len(value) == len(self.params.params) > 1

    @property
    def on_gpu(self) -> bool:
        return on_gpu(self.rows)

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """The logits as float32 [B, V] on the host. Read-only: this may be the caller's memory."""
        rows = self.rows
        return to_numpy("logits", rows.float()) if isinstance(rows, torch.Tensor) else np.asarray(rows, np.float32)

    @cached_property
    def history_rows(self) -> list[NDArray[np.int64]] | None:
        """One int64 array of ids per row; None if no penalty uses them."""
        if self.history is None or not self.params.uses_history:
            return None
        history = self.history
        return list(to_numpy("history", history)) if isinstance(history, torch.Tensor) else history

    @cached_property
    def mask(self) -> NDArray[np.bool_ | np.int32] | None:
        """`allowed` on the host, with one row or B."""
        return None if self.allowed is None else np.atleast_2d(to_numpy("allowed", self.allowed))

    def host(self, name: str) -> NDArray[Any]:
        """`seed`, `position`, `stream` (uint64) or `history_start` (int64): [B]."""
        value = getattr(self, name)
        value = np.arange(self.size) if value is None else to_numpy(name, value)
        value = np.broadcast_to(value, self.size)
        return value if name == "history_start" else value.astype(np.int64).view(np.uint64)

    def logits_on(self, device: torch.device) -> torch.Tensor:
        """The logits [B, V] in their original type."""
        return on_device(self.rows, device)

    def history_on(self, device: torch.device) -> torch.Tensor | None:
        """int64 [B, L], padded with -1 on the right; None if no penalty uses it."""
        if isinstance(self.history, torch.Tensor):
            return self.history
        return None if self.history_rows is None else on_device(padded(self.history_rows), device)

    def allowed_on(self, device: torch.device) -> torch.Tensor | None:
        """bool or int32, as `allowed`."""
        return None if self.allowed is None else on_device(self.allowed, device)

    def outputs(self, columns: Sequence[Array | None]) -> list[Any]:
        """A backend's columns as the caller's type of array, on the logits' device; None stays None."""
        if isinstance(self.rows, np.ndarray):
            return [None if column is None else to_numpy("output", column) for column in columns]
        if isinstance(columns[0], torch.Tensor):  # by the contract of backends, on the logits' device
            return list(columns)
        tensors = [None if column is None else torch.from_numpy(column) for column in columns]
        if not self.rows.is_cuda:
            return tensors
        return [None if tensor is None else tensor.to(self.rows.device) for tensor in tensors]


def on_gpu(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.is_cuda


def rows_of(logits: Any) -> Array:
    """The logits as (B, V), in their original type and memory."""
    if isinstance(logits, torch.Tensor):
        if logits.dtype not in FLOATS:
            raise TypeError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
        if not holds_data(logits):
            raise TypeError(f"logits must be a dense tensor that holds data, got {described(logits)}")
        logits = logits.detach() if logits.requires_grad else logits
    elif isinstance(logits, np.ndarray):
        refuse_masked("logits", logits)
        if logits.dtype not in (np.float32, np.float16):
            raise TypeError(f"logits must be float32 or float16 in NumPy, got {logits.dtype}")
    else:
        raise TypeError(f"logits must be a torch.Tensor or numpy.ndarray, got {type(logits).__name__}")
    shape = logits.shape
    if len(shape) not in (1, 2):
        raise ValueError(f"logits must have shape (B, V) or (V,), got {tuple(shape)}")
    if not 1 <= shape[-1] <= MAX_VOCABULARY:
        raise ValueError(f"logits must have a vocabulary of 1 to {MAX_VOCABULARY}, got {shape[-1]}")
    return logits[None] if len(shape) == 1 else logits


def holds_data(tensor: torch.Tensor) -> bool:
    """False for a tensor that is sparse or nested, has only a shape (meta, fake) or wraps another one (torch.func)."""
    if tensor.is_nested or type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return False
    try:
        return tensor.data_ptr() != 0 or (tensor.numel() == 0 and not tensor.is_meta)
    except RuntimeError:
        return False


def described(tensor: torch.Tensor) -> str:
    """In words; repr() would read the data, and not every kind has a shape."""
    shape = "nested" if tensor.is_nested else tuple(tensor.shape)
    return f"a {type(tensor).__name__} of {tensor.dtype}, {shape}, on {tensor.device}"


def packed_for(params: Params, size: int, vocabulary: int) -> PackedParams:
    packed = pack(params)
    if packed.slots is not None:
        if len(packed.slots) != size:
            raise ValueError(f"params must have an index for each of the {size} rows, got {len(packed.slots)}")
    elif len(packed.params) not in (1, size):
        raise ValueError(f"params must be one or {size} (one a row), got {len(packed.params)}")
    if packed.greatest_biased >= vocabulary:
        raise ValueError(f"logit_bias: a token id must be < {vocabulary}, got {packed.greatest_biased}")
    return packed


def starts_of(history_start: Integers, size: int) -> int | Array:
    starts = integers("history_start", history_start, size)
    least = starts if isinstance(starts, int) else 0 if on_gpu(starts) else np.min(starts, initial=0)
    if least < 0:
        raise ValueError(f"history_start must be in 0 .. 2^63 - 1, got {history_start!r}")
    return starts


def mask_of(allowed: Any, size: int, vocabulary: int) -> Array:
    words = -(-vocabulary // 32)
    accepted = f"bool ({vocabulary},) or ({size}, {vocabulary}), or bits in int32 ({words},) or ({size}, {words})"
    mask = allowed if on_gpu(allowed) else to_numpy("allowed", allowed, accepted)
    if mask.dtype not in (torch.bool, bool, torch.int32, np.int32):
        raise TypeError(f"allowed must be {accepted}, got {mask.dtype}")
    width = vocabulary if mask.dtype in (torch.bool, bool) else words
    if tuple(mask.shape) not in ((width,), (size, width)):
        raise ValueError(f"allowed must be {accepted}, got {mask.dtype} {tuple(mask.shape)}")
    return mask


def integers(name: str, value: Integers, size: int, slots: int = 0) -> int | Array:
    """One int64, or one for each row or slot, taken mod 2^64. An int stays an int, and a GPU tensor on its GPU."""
    if type(value) is int:
        return signed(value)
    accepted = f"an integer or int64 ({size},)"
    if on_gpu(value):
        if value.dtype not in INTEGER_TYPES:
            raise TypeError(f"{name} must be {accepted}, got {value!r}")
        array: Any = value.to(torch.int64).contiguous()  # the kernels assume a stride of 1
    else:
        numbers: Any = value
        has_bools = False
        if isinstance(value, (list, tuple)):
            has_bools = any(
                isinstance(v, (bool, np.bool_)) for v in value
            )  # NumPy reads them as 0 and 1 among integers
            numbers = [signed(v) if type(v) is int else v for v in value]  # Python integers of any size
        array = to_numpy(name, numbers, accepted)
        if has_bools or (array.dtype.kind not in "iu" and array.size):
            raise TypeError(f"{name} must be {accepted}, got {value!r}")
        array = array.astype(np.int64, copy=False)
    if tuple(array.shape) not in ((), (size,), (slots or size,)):
        raise ValueError(f"{name} must be an integer or of shape ({size},), got shape {tuple(array.shape)}")
    return array.reshape(1) if array.ndim == 0 else array


def signed(value: int) -> int:
    """The int64 that equals the value mod 2^64."""
    return (value + 2**63) % 2**64 - 2**63


def history_of(history: Any, size: int) -> list[NDArray[np.int64]] | torch.Tensor:
    """One int64 array of ids per row; a tensor (B, L) if the history is on a GPU."""
    form = "int64 (B, L) padded with -1, or a list of sequences of token ids"
    if on_gpu(history):
        rows: Any = history.to(torch.int64).reshape(1, -1) if history.ndim == 1 else history.to(torch.int64)
        if history.dtype not in INTEGER_TYPES or rows.ndim != 2:
            raise TypeError(f"history must be {form}, got {history.dtype} with shape {tuple(history.shape)}")
    elif isinstance(history, (torch.Tensor, np.ndarray)):
        rows = list(np.atleast_2d(to_numpy("history", history, form)))
    elif isinstance(history, Sequence):
        rows = [to_numpy("history", row, form) for row in history]
    else:
        raise TypeError(f"history must be {form}, got {type(history).__name__}")
    if len(rows) != size:
        raise ValueError(f"history must have one row for each of the {size} rows of logits, got {len(rows)}")
    if isinstance(rows, torch.Tensor):
        return rows
    for row in rows:
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise TypeError(f"history must be {form}, got a row of {row.dtype} with shape {row.shape}")
        if row.size and row.min() < -1:
            raise ValueError(f"history must hold token ids >= 0, or -1 for padding, got {int(row.min())}")
    return [row.astype(np.int64) for row in rows]


def padded(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of different lengths as one array [B, L], padded with -1 on the right."""
    array = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array


def on_device(value: Array, device: torch.device) -> torch.Tensor:
    """A tensor unchanged; an array as a tensor on the device, for which nothing waits."""
    if isinstance(value, torch.Tensor):
        return value
    is_writable = value.flags.writeable and value.strides[-1] > 0  # torch requires this, though nothing here writes
    tensor = torch.from_numpy(value if is_writable else value.copy())
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        tensor = tensor.pin_memory()  # a driver may wait for the stream before it copies other memory
    return tensor.to(device, non_blocking=True)


def to_numpy(name: str, value: Any, form: str = "an array") -> NDArray[Any]:
    """The value as an array on the host. Raises: TypeError that names the argument and its form."""
    refuse_masked(name, value)
    if isinstance(value, torch.Tensor) and not holds_data(value):
        raise TypeError(f"{name} must be {form}, as a dense tensor that holds data, got {described(value)}")
    try:
        return value.detach().resolve_neg().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name} must be {form}, got {value!r}") from None


def refuse_masked(name: str, value: Any) -> None:
    """Masked values would be read as if they were not masked."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: fill it first, as with numpy.ma.filled")
