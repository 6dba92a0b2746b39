"""The key-value cache of the exact forward pass: blocks of 16 positions, and a table of each sequence's blocks.

Sequences that begin alike share their blocks (Kwon et al. 2023, PagedAttention). A block that is shared is copied when
one of its sequences writes to it, so a fork costs no copy but that of its last block.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

SLOTS = 16  # positions in a block
SLAB = 1 << 26  # bytes that are asked for at a time; the system gives memory only to the pages that are written
NONE = -1


class Blocks:
    """Memory in blocks of the same size, and how many sequences use each."""

    def __init__(self, size: int) -> None:
        self.size = size  # float32 numbers in a block
        self.shift = max(0, (SLAB // (4 * size)).bit_length() - 1)  # a slab has 2^shift blocks
        self.slabs: list[np.ndarray] = []
        self.users = np.zeros(0, np.int32)  # of each block
        self.free: list[int] = []

    def take(self) -> int:
        """A block for one sequence; its numbers are undefined."""
        if not self.free:
            count = 1 << self.shift
            first = len(self.users)
            self.slabs.append(torch.empty(count * self.size).numpy())  # torch aligns it to 64 bytes
            self.users = np.append(self.users, np.zeros(count, np.int32))
            self.free.extend(reversed(range(first, first + count)))
        block = self.free.pop()
        self.users[block] = 1
        return block

    def share(self, table: np.ndarray) -> None:
        """One more user for each block of a table, as often as it stands there."""
        np.add.at(self.users, table[table != NONE], 1)

    def release(self, table: np.ndarray) -> None:
        """One user less; blocks without users are free."""
        used = table[table != NONE]
        np.subtract.at(self.users, used, 1)
        self.free.extend(block for block in np.unique(used).tolist() if self.users[block] == 0)

    def copy(self, block: int) -> int:
        copy = self.take()
        self.numbers(copy)[:] = self.numbers(block)
        return copy

    def numbers(self, block: int) -> np.ndarray:
        slab, place = self.slabs[block >> self.shift], block & ((1 << self.shift) - 1)
        return slab[place * self.size : (place + 1) * self.size]


class BlockCache:
    """Keys and values of `batch` sequences, up to `length` positions each; the interface of `KVCache`.

    Row r of `table` lists the blocks of sequence r: entry j holds its positions 16 j .. 16 j + 15.
    """

    def __init__(self, blocks: Blocks, batch: int, length: int) -> None:
        self.set(blocks, np.full((batch, -(-length // SLOTS)), NONE, np.int32))

    def set(self, blocks: Blocks, table: np.ndarray) -> None:
        self.blocks, self.table = blocks, table
        self.owned = np.full(len(table), NONE)  # an entry of each row whose block no other row has, the last written

    def __del__(self) -> None:
        if not sys.is_finalizing():  # NumPy is half gone then
            self.blocks.release(self.table)

    def own(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Give each row blocks of its own for the positions that it is about to write, int64 [N] each."""
        entries = positions // SLOTS
        if (self.owned[rows] == entries).all():
            return  # as at most steps of a decode
        if entries.max() >= self.table.shape[1]:
            raise ValueError(f"positions must be below {self.table.shape[1] * SLOTS}, got {positions.max()}")
        for row, entry, position in zip(rows.tolist(), entries.tolist(), positions.tolist(), strict=True):
            if self.owned[row] != entry:
                self.own_entry(row, entry, is_new=position % SLOTS == 0)

    def own_entry(self, row: int, entry: int, is_new: bool) -> None:
        """is_new: whether nothing that the row reads is in the block."""
        block = int(self.table[row, entry])
        if block == NONE:
            self.table[row, entry] = self.blocks.take()
        elif self.blocks.users[block] > 1:
            self.table[row, entry] = self.blocks.take() if is_new else self.blocks.copy(block)
            self.blocks.users[block] -= 1
        self.owned[row] = entry

    def select(self, rows: list[int]) -> BlockCache:
        """A new cache whose row i continues row rows[i] of this one; it copies no block."""
        chosen = object.__new__(BlockCache)
        chosen.set(self.blocks, self.table[rows])
        self.blocks.share(chosen.table)
        self.owned[:] = NONE
        return chosen

    def repeat(self, times: int) -> BlockCache:
        """A new cache that repeats each row `times` times, for several continuations of one prompt."""
        return self.select([row for row in range(len(self.table)) for _ in range(times)])

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its place. The order of rows does not affect any result."""
        self.blocks.release(self.table[row])
        for rows in (self.table, self.owned):
            rows[row] = rows[-1]
        self.table, self.owned = np.ascontiguousarray(self.table[:-1]), self.owned[:-1]

    def reorder(self, rows: list[int], used: int) -> None:
        """Row i becomes the former row rows[i]: each beam continues its parent's row.

        len(rows) rows remain; a row may occur several times or not at all.
        """
        former = self.table
        self.set(self.blocks, former[rows])
        self.blocks.share(self.table)
        self.blocks.release(former)
