"""Runs a function in the processes of a group, joined by gloo."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 120  # after which a process that waits for the others is given up


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """[function(rank, *arguments) of each of `size` processes].

    Raises: RuntimeError with the text of every error; where one process fails, others mostly lose their connection.
    """
    context = get_context("fork")  # nothing is imported again
    with tempfile.TemporaryDirectory() as folder:
        ends = [context.Pipe(duplex=False) for _ in range(size)]
        store = Path(folder) / "store"
        processes = [
            context.Process(target=run, args=(store, rank, size, end, function, arguments), daemon=True)
            for rank, (_, end) in enumerate(ends)
        ]
        for process in processes:
            process.start()
        results: list[Any] = [receiver.recv() if receiver.poll(SECONDS) else "no answer" for receiver, _ in ends]
        for process in processes:
            process.join(5)
            process.kill()
    errors = [f"process {rank}: {result}" for rank, result in enumerate(results) if isinstance(result, str)]
    if errors:
        raise RuntimeError("\n".join(errors))
    return [result[0] for result in results]


def run(
    store: Path, rank: int, size: int, end: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        end.send((function(rank, *arguments),))
        dist.destroy_process_group()
    except BaseException:
        end.send(traceback.format_exc())
