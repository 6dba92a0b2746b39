"""Oracle: what each process was told to do."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from bench.processes import in_processes


def test_results_come_by_rank():
    assert in_processes(3, lambda rank, value: 10 * rank + value, 7) == [7, 17, 27]


def test_the_error_of_one_process_is_not_hidden_by_the_others():
    with pytest.raises(RuntimeError, match="this one fails"):
        in_processes(2, one_fails)


def one_fails(rank: int) -> None:
    if rank == 1:
        raise ValueError("this one fails")
    dist.all_reduce(torch.ones(1))
