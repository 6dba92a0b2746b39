"""The key-value cache: two preallocated tensors, written in place, never copied to grow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import LlamaConfig


class KVCache:
    """Keys and values of `batch` sequences, up to `length` positions each.

    Slot j of a row holds position j of that row, so rows of different lengths need no padding mask: a query at
    position i sees slots 0..i, and later slots are overwritten before they are seen.
    """

    def __init__(self, config: LlamaConfig, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)  # [layers, B, H_kv, length, D]
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, slots: Slots, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store key and value [B, H_kv, L, D] at `slots`; return the slots in use, [B, H_kv, slots.end, D]."""
        for store, new in ((self.keys[layer], key), (self.values[layer], value)):
            if slots.start is not None:
                store[:, :, slots.start : slots.end] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                store[rows, :, slots.positions] = new.transpose(1, 2)
        return self.keys[layer, :, :, : slots.end], self.values[layer, :, :, : slots.end]

    def part(self, rows: slice) -> KVCache:
        """Some rows, in the same memory."""
        part = object.__new__(KVCache)
        part.keys, part.values = self.keys[:, rows], self.values[:, rows]
        return part

    def repeat(self, times: int) -> KVCache:
        """A new cache that repeats each row `times` times, for several continuations of one prompt."""
        copy = object.__new__(KVCache)
        copy.keys = self.keys.repeat_interleave(times, dim=1)
        copy.values = self.values.repeat_interleave(times, dim=1)
        return copy

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its place. The order of rows does not affect any result."""
        last = self.keys.shape[1] - 1
        for name in ("keys", "values"):
            store = getattr(self, name)
            if row != last:
                store[:, row] = store[:, last]
            setattr(self, name, store[:, :last])

    def reorder(self, rows: list[int], used: int) -> None:
        """Row i becomes the former row rows[i], in slots 0 .. used - 1: each beam continues its parent's row.

        len(rows) rows remain; a row may occur several times or not at all.
        """
        if rows == list(range(self.keys.shape[1])):
            return
        for name in ("keys", "values"):
            store = getattr(self, name)
            chosen = store[:, rows, :, :used]  # a copy
            if len(rows) > store.shape[1]:
                store = store.new_zeros(store.shape[0], len(rows), *store.shape[2:])
            store[:, : len(rows), :, :used] = chosen
            setattr(self, name, store[:, : len(rows)])


class Slots:
    """The slots that one forward pass writes: `positions` int64 [B, L].

    start: first slot, if all rows write to the same slots, else None. end: one past the last slot written.
    lengths: where rows end in padding, the slots before it; else None.
    """

    def __init__(self, positions: Tensor, start: int | None, end: int, lengths: list[int] | None = None) -> None:
        self.positions, self.start, self.end, self.lengths = positions, start, end, lengths

    @classmethod
    def aligned(cls, batch: int, start: int, count: int, device: torch.device) -> Slots:
        """Slots start .. start + count - 1 in every row."""
        positions = torch.arange(start, start + count, device=device).expand(batch, count)
        return cls(positions, start, start + count)

    @classmethod
    def prompts(cls, lengths: list[int], device: torch.device) -> Slots:
        """Slots 0 .. length - 1 of rows of several lengths, padded to the longest."""
        aligned = cls.aligned(len(lengths), 0, max(lengths), device)
        aligned.lengths = lengths if len(set(lengths)) > 1 else None
        return aligned

    @classmethod
    def ragged(cls, lengths: Sequence[int], device: torch.device) -> Slots:
        """One slot per row, at the row's own length in tokens."""
        if len(set(lengths)) == 1:
            return cls.aligned(len(lengths), lengths[0], 1, device)
        positions = torch.tensor(lengths, device=device)[:, None]
        return cls(positions, None, max(lengths) + 1)
