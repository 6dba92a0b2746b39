"""The messages between the processes of a group: each is counted, with its bytes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Collectives:
    """group: a process group, None for the default one.

    order: the ranks by the place of their part in the vocabulary; what is gathered comes in this order. place: that of
    this process in it. count: the messages so far. bytes_gathered, bytes_summed: what this process has given to them.
    """

    def __init__(self, group: Any = None) -> None:
        if not dist.is_initialized():
            raise RuntimeError("samplers.sharded needs torch.distributed: call torch.distributed.init_process_group")
        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        self.order = list(range(self.size))
        self.count = self.bytes_gathered = self.bytes_summed = 0

    def sort(self, starts: list[int]) -> None:
        """Sets the order. starts: of each rank's part of the vocabulary."""
        self.order.sort(key=lambda rank: starts[rank])

    @property
    def place(self) -> int:
        return self.order.index(self.rank)

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, in order: [R, ...]."""
        self.count += 1
        self.bytes_gathered += tensor.nbytes
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous(), group=self.group)
        return torch.stack([parts[rank] for rank in self.order])

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of the tensors of all processes, in place."""
        self.count += 1
        self.bytes_summed += tensor.nbytes
        dist.all_reduce(tensor, group=self.group)
        return tensor
