"""The rows of the batch: what the model has read of each choice, in the cache of the exact pass or of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.block_cache import SLOTS, BlockCache
from model.exact import Part
from model.kv_cache import KVCache, Slots
from model.llama import Llama
from model.serve.engine.prefix_cache import PrefixCache


class Rows(Protocol):
    """most_positions: of a choice that there is memory for at all."""

    most_positions: int

    def reserve(self, row: int, positions: int) -> bool:
        """Set memory aside for a row's greatest length; False where there is not enough at present."""

    def reuse(self, row: int, ids: list[int]) -> int:
        """Take over what was read for another text that begins alike; returns the number of tokens."""

    def read(self, parts: Sequence[Part]) -> Tensor:
        """Run the model -> the stream after the last norm, part after part: [N, E]."""

    def keep(self, row: int, ids: list[int]) -> None:
        """Remember what was read of a row, for `reuse`."""

    def release(self, row: int) -> None: ...

    @property
    def usage(self) -> float:
        """The share of the memory that rows hold or have set aside."""


def rows_of(model: Llama, count: int, positions: int | None) -> Rows:
    """positions: that the cache holds for all rows together, None for `count` whole windows, or what fits in memory."""
    return BlockRows(model, count, positions) if model.is_packed else SlotRows(model, count)


class BlockRows:
    """Rows of the exact pass. One pass of the model reads all parts, because nothing depends on the batch."""

    def __init__(self, model: Llama, count: int, positions: int | None) -> None:
        self.model, window = model, model.config.max_position_embeddings
        self.cache: BlockCache = model.exact_pass.new_cache(count, window)
        self.blocks = self.cache.blocks
        self.prefixes = PrefixCache(self.blocks)
        self.capacity = blocks_for(positions) if positions else self.default_capacity(count, window)
        self.most_positions = min(window, self.capacity * SLOTS)
        self.reserved = [0] * count  # blocks of each row

    def default_capacity(self, count: int, window: int) -> int:
        fitting = available_memory() // 2 // (4 * self.blocks.size)
        return max(1, min(count * blocks_for(window), fitting))

    def reserve(self, row: int, positions: int) -> bool:
        wanted = blocks_for(positions)
        if sum(self.reserved) + wanted > self.capacity:
            return False
        self.reserved[row] = wanted
        return True

    def reuse(self, row: int, ids: list[int]) -> int:
        found = self.prefixes.match(ids)
        self.cache.begin(row, found)
        return len(found) * SLOTS

    def read(self, parts: Sequence[Part]) -> Tensor:
        self.make_room(sum(blocks_for(part.start + len(part.ids)) - blocks_for(part.start) for part in parts))
        return self.model.exact_pass.read_parts(parts, self.cache)

    def make_room(self, wanted: int) -> None:
        """Reservations never exceed the capacity, so what is too much are blocks that only `prefixes` uses."""
        excess = self.blocks.used + wanted - self.capacity
        if excess > 0:
            self.prefixes.evict(excess)

    def keep(self, row: int, ids: list[int]) -> None:
        self.cache.replace(row, self.prefixes.add(ids, self.cache.table[row].tolist()))

    def release(self, row: int) -> None:
        self.cache.begin(row, [])
        self.reserved[row] = 0

    @property
    def usage(self) -> float:
        return sum(self.reserved) / self.capacity


class SlotRows:
    """Rows of a model that torch runs: a slot for every position of the window, and nothing is reused.

    One token of every row up to the last that is in use goes through the model at once; prompts go alone.
    """

    def __init__(self, model: Llama, count: int) -> None:
        self.model, self.most_positions = model, model.config.max_position_embeddings
        cache = model.new_cache(count, self.most_positions)
        assert isinstance(cache, KVCache)
        self.cache = cache
        self.lengths = [0] * count
        self.is_used = [False] * count

    def reserve(self, row: int, positions: int) -> bool:
        self.is_used[row] = True
        return True

    def reuse(self, row: int, ids: list[int]) -> int:
        return 0

    def read(self, parts: Sequence[Part]) -> Tensor:
        singles = {part.row: part.ids[0] for part in parts if len(part.ids) == 1}
        together = self.read_singles(singles) if singles else torch.empty(0)
        hidden = [together[part.row][None] if part.row in singles else self.read_alone(part) for part in parts]
        for part in parts:
            self.lengths[part.row] = part.start + len(part.ids)
        return torch.cat(hidden)

    def read_singles(self, tokens: dict[int, int]) -> Tensor:
        """Rows between those asked for read a 0, which is overwritten before it is seen."""
        count = max(tokens) + 1
        slots = Slots.ragged(self.lengths[:count], self.model.device)
        ids = torch.tensor([[tokens.get(row, 0)] for row in range(count)], device=self.model.device)
        return self.model.hidden(ids, self.cache.part(slice(0, count)), slots)[:, 0]

    def read_alone(self, part: Part) -> Tensor:
        slots = Slots.aligned(1, part.start, len(part.ids), self.model.device)
        ids = torch.tensor([part.ids], device=self.model.device)
        return self.model.hidden(ids, self.cache.part(slice(part.row, part.row + 1)), slots)[0]

    def keep(self, row: int, ids: list[int]) -> None:
        pass

    def release(self, row: int) -> None:
        self.lengths[row], self.is_used[row] = 0, False

    @property
    def usage(self) -> float:
        return sum(self.is_used) / len(self.is_used)


def blocks_for(positions: int) -> int:
    return -(-positions // SLOTS)


def available_memory() -> int:
    """Bytes that this machine can still give."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 1 << 33  # elsewhere nobody says
