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

    @property
    def used(self) -> int:
        """How many blocks have users."""
        return len(self.users) - len(self.free)

    def give_back(self, block: int) -> None:
        """One user less; a block without users is free."""
        self.users[block] -= 1
        if not self.users[block]:
            self.free.append(block)

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

    Row r of `table` lists the blocks of sequence r: entry j holds its positions 16 j .. 16 j + 15. `lengths` counts the
    positions that each row has written. `owned` names an entry of each row whose block no other row has, or NONE.
    """

    def __init__(self, blocks: Blocks, batch: int, length: int) -> None:
        self.set(blocks, np.full((batch, -(-length // SLOTS)), NONE, np.int32), np.zeros(batch, np.int64))

    def set(self, blocks: Blocks, table: np.ndarray, lengths: np.ndarray) -> None:
        self.blocks, self.table, self.lengths = blocks, table, lengths
        self.owned = np.full(len(table), NONE)

    def __del__(self) -> None:
        if "table" in self.__dict__ and not sys.is_finalizing():  # NumPy is half gone then
            self.blocks.release(self.table)

    def __copy__(self) -> BlockCache:
        return self.select(list(range(len(self.table))))

    def prepare(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Give each row blocks of its own for the positions that it is about to write, int64 [N] each.

        Raises: ValueError unless each row's positions ascend, one after the other, from at most its length.
        """
        entries = positions // SLOTS
        goes_on = (self.owned[rows] == entries) & (self.lengths[rows] == positions)
        if goes_on.all() and (rows[:-1] < rows[1:]).all():
            return  # one more token of some rows, as at most steps of a decode
        pairs = list(zip(rows.tolist(), positions.tolist(), strict=True))
        self.check(pairs)
        for row, entry in dict.fromkeys((row, position // SLOTS) for row, position in pairs):
            self.own(row, entry)

    def check(self, pairs: list[tuple[int, int]]) -> None:
        begun: dict[int, int] = {}
        for row, position in pairs:
            if position >= self.table.shape[1] * SLOTS:
                raise ValueError(f"positions must be below {self.table.shape[1] * SLOTS}, got {position}")
            most = begun.get(row, int(self.lengths[row]))
            if not (position == most or (row not in begun and 0 <= position < most)):
                raise ValueError(f"positions of a row must follow each other: row {row} has {most}, got {position}")
            begun[row] = position + 1

    def own(self, row: int, entry: int) -> None:
        """A block that is shared is copied: the row may still read what it does not write."""
        block = int(self.table[row, entry])
        if block == NONE:
            self.table[row, entry] = self.blocks.take()
        elif self.blocks.users[block] > 1:
            self.table[row, entry] = self.blocks.copy(block)
            self.blocks.users[block] -= 1
        self.owned[row] = entry

    def wrote(self, rows: np.ndarray, positions: np.ndarray) -> None:
        self.lengths[rows] = np.maximum(self.lengths[rows], positions + 1)  # a row's last position is its greatest

    def select(self, rows: list[int]) -> BlockCache:
        """A new cache whose row i continues row rows[i] of this one; it copies no block."""
        chosen = object.__new__(BlockCache)
        chosen.set(self.blocks, self.table[rows], self.lengths[rows])
        self.blocks.share(chosen.table)
        self.owned[:] = NONE
        return chosen

    def repeat(self, times: int) -> BlockCache:
        """A new cache that repeats each row `times` times, for several continuations of one prompt."""
        return self.select([row for row in range(len(self.table)) for _ in range(times)])

    def begin(self, row: int, blocks: list[int]) -> None:
        """Begin a row anew, with full blocks that hold the first positions of its text."""
        self.blocks.release(self.table[row])
        self.table[row] = NONE
        self.table[row, : len(blocks)] = blocks
        self.blocks.share(self.table[row])
        self.lengths[row], self.owned[row] = len(blocks) * SLOTS, NONE

    def replace(self, row: int, blocks: list[int]) -> None:
        """Use these blocks for the first positions of a row, which hold the same numbers as its own."""
        for entry, block in enumerate(blocks):
            own = int(self.table[row, entry])
            if own != block:
                self.blocks.users[block] += 1
                self.blocks.give_back(own)
                self.table[row, entry] = block

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its place. The order of rows does not affect any result."""
        rows = list(range(len(self.table) - 1))
        if row < len(rows):
            rows[row] = len(rows)
        self.reorder(rows, 0)

    def reorder(self, rows: list[int], used: int) -> None:
        """Row i becomes the former row rows[i]: each beam continues its parent's row.

        len(rows) rows remain; a row may occur several times or not at all.
        """
        former = self.table
        self.set(self.blocks, former[rows], self.lengths[rows])
        self.blocks.share(self.table)
        self.blocks.release(former)
