"""How the work on a batch is divided among programs: data, by the GPU and the shape of the batch."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from samplers.kernels.scratch import words_of
from samplers.kernels.streaming import LANE

PROGRAMS_PER_SM = 8  # of a launch with many rows: some run while others wait for memory


class Way(NamedTuple):
    """The shape of the programs that read the rows."""

    warps: int  # of a program, each with a chunk of logits
    steps: int  # of a chunk: loads of 128 logits

    @property
    def tile(self) -> int:
        """The logits that a program reads at once."""
        return self.warps * self.steps * LANE.value


# The largest programs first: a batch takes the first way that gives every SM a program.
WAYS = (Way(8, 8), Way(4, 8), Way(1, 8), Way(1, 2))
ONE_READ = Way(4, 16)  # holds a tile in registers
CHOICE_REGISTERS = 240  # of a thread: left alone, some versions of the compiler spill to use fewer
CHOICE_WARPS = 4  # of the program that chooses the token of a row: two fit an SM


class Division(NamedTuple):
    """The division of each row of a batch."""

    way: Way
    tiles: int  # of a program
    parts: int  # programs of a row
    words: int  # int64 numbers of a row's scratch


@functools.lru_cache(1024)
def division(size: int, vocabulary: int, device: torch.device, one_read: bool = False) -> Division:
    """The division for a batch of `size` rows."""
    sms = multiprocessors(device)
    ways = (ONE_READ,) if one_read else WAYS
    way = next((way for way in ways if size * -(-vocabulary // way.tile) >= sms), ways[-1])
    tiles = -(-vocabulary // way.tile)
    tiles_of_a_part = 1 if one_read else max(1, size * tiles // (PROGRAMS_PER_SM * sms))
    return Division(way, tiles_of_a_part, -(-tiles // tiles_of_a_part), words_of(vocabulary, way.steps))


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
