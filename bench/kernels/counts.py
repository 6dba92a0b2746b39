"""What a draw costs beside the kernels' instructions: launches, operations, host time, rounds of a search, passes.

Counted without a GPU. The host's work is that for a GPU, with launches that do nothing; rounds and passes are calls in
Triton's interpreter.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.cases import FILTERS
from bench.kernels.variants import Counted
from bench.records import Record
from samplers import sample, sampler
from samplers.backends import triton
from samplers.identity.rows import row
from samplers.kernels import launch, shortlist, wide_top_p
from samplers.kernels import sampler as kernels_sampler

VOCABULARY, BATCH = 128_256, 8
ROUNDS, CALLS = 21, 200  # of the host's time
SEARCHES = [(shortlist, "groups_up_to")]  # functions that are a round of the search for the shortlist's limit
PASSES = [  # functions that read the row once
    (wide_top_p, "sums_up_to"),
    (wide_top_p, "list_between"),
    (wide_top_p, "nth_of_key"),
    (kernels_sampler, "write_kept_masses"),
]
ALLOCATION = "empty"
VIEWS = ("as_strided", "view", "slice", "detach", "alias")  # operations that launch nothing


class Operations(TorchDispatchMode):
    """Counts torch's operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class NoLaunch:
    """Stands for a compiled kernel."""

    def __init__(self) -> None:
        self.launches = 0

    def get(self, key: object) -> NoLaunch:
        hash(key)
        return self

    def __getitem__(self, grid: object) -> NoLaunch:
        return self

    def __call__(self, *arguments: object) -> None:
        self.launches += 1


@contextmanager
def as_on_a_gpu() -> Iterator[NoLaunch]:
    """The Triton backend takes tensors on the CPU as if they were on a GPU; launches do nothing."""
    stub = NoLaunch()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(triton, "device_of", lambda _: torch.device("cpu")))
        stack.enter_context(mock.patch.object(sampler, "implementation", lambda *_: triton))
        for kernel in (launch.MAXIMA, launch.WEIGH, launch.ONE_READ, launch.CHOOSE):
            stack.enter_context(mock.patch.object(kernel, "compiled", stub))
        yield stub


def host_work(case: Counted) -> Record:
    """Of one call: launches, allocations, other operations than views, and its time.

    The time is also given as a multiple of that of torch.empty, which compares machines.
    """
    x = torch.zeros(BATCH, VOCABULARY)
    with as_on_a_gpu() as stub:

        def call(step: int) -> None:
            sample(x, FILTERS[case.filters], seed=7, position=step, backend="triton", on_invalid="mark")

        call(0)
        stub.launches = 0
        with Operations() as operations:
            call(1)
        launches = stub.launches
        seconds, empties = [], []
        for _ in range(ROUNDS):
            seconds.append(seconds_of(call))
            empties.append(seconds_of(lambda step: torch.empty((5, BATCH), dtype=torch.int64)))
    others = {name: n for name, n in operations.names.items() if name not in (ALLOCATION, *VIEWS)}
    microseconds = statistics.median(seconds) * 1e6
    return {
        "launches": launches,
        "allocations": operations.names[ALLOCATION],
        "operations": sum(others.values()),
        "microseconds": round(microseconds, 1),
        "times_empty": round(statistics.median(seconds) / statistics.median(empties), 1),
    }


def seconds_of(call: Any) -> float:
    began = time.perf_counter()
    for step in range(CALLS):
        call(step)
    return (time.perf_counter() - began) / CALLS


def searches(case: Counted) -> Record:
    """Rounds and passes of a draw, in a process that has started with TRITON_INTERPRET=1."""
    x = row(case.kind, VOCABULARY, np.random.default_rng(0))
    with calls_of(SEARCHES) as rounds, calls_of(PASSES) as passes:
        sample(x, FILTERS[case.filters], seed=1, backend="triton")
    return {"search_rounds": sum(rounds.values()), "passes": sum(passes.values())}


@contextmanager
def calls_of(functions: list[tuple[Any, str]]) -> Iterator[Counter[str]]:
    """Counts the calls of functions within the kernels."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **keywords)

        return call

    with ExitStack() as stack:
        for module, name in functions:
            stack.enter_context(mock.patch.object(module, name, counting(name, getattr(module, name))))
        yield calls
