"""Microseconds of calls on a GPU, between CUDA events, with an empty or a warm cache; also as graphs.

Also counts of a call: launches, waits, memory. Where Triton interprets, a stopwatch of the host takes its place.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]
SECONDS = 0.08  # of one measurement
FEWEST, MOST = 3, 200  # runs in it
TURNS = 10  # calls between two events where short ones follow each other
HEAD_START = 300_000  # GPU clock cycles, in which the host gets ahead: from then on nothing waits for it
TOY_RUNS = 2  # on the host: as few as have quantiles


class Stopwatch:
    """One GPU, and a buffer that pushes everything else out of its L2 cache."""

    toy = False
    copied = 1 << 30  # bytes

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.device = torch.device("cuda")
        self.name = properties.name
        self.l2 = properties.L2_cache_size
        self.buffer = torch.zeros(max(4 * self.l2, 1 << 28) // 4, device="cuda")

    def empty_cache(self) -> None:
        """By reading: written lines would be put away during the next call, and cost it time."""
        self.buffer.sum()

    def bandwidth(self) -> float:
        """Bytes a second, read and written, of a copy from and to the memory of the device."""
        source = torch.zeros(self.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        times = sorted(self.hot(lambda: target.copy_(source)))
        return 2e6 * len(source) / times[len(times) // 2]

    def captured(self, call: Call) -> Call | None:
        """The call as a graph to be replayed; None where it waits for the GPU, which no graph can."""
        if self.waits(call):
            return None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def waits(self, call: Call) -> bool | None:
        """Whether the host waits for the GPU in the call; tried on a separate stream, as captures need it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()  # compiles, and lays out the parameters
            waits = waits_for_the_gpu(call)
        torch.cuda.current_stream().wait_stream(side)
        return waits

    def launches(self, call: Call) -> int | None:
        """Kernels, copies and fills of a call: the nodes of its graph, as torch.profiler would slow the next timing.

        None without a graph, or where torch (before 2.8) doesn't show it.
        """
        if not hasattr(torch.cuda.CUDAGraph, "raw_cuda_graph") or self.waits(call):
            return None
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        try:
            with torch.cuda.graph(graph):
                call()
            return nodes(graph.raw_cuda_graph(), driver())
        except RuntimeError:  # a missing count must not cost the times
            return None

    def temporary_bytes(self, call: Call) -> int | None:
        """The most that torch's allocator has lent at any time in a call, its result included."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before

    def cold(self, call: Call) -> list[float]:
        """One call each, the L2 emptied before."""
        return between_events(call, self.runs(call), 1, self.empty_cache)

    def hot(self, call: Call) -> list[float]:
        """Calls that follow each other: the L2 cache holds as much of the rows as it can."""
        runs = self.runs(call)
        return between_events(call, runs, TURNS if runs == MOST else 1, lambda: torch.cuda._sleep(HEAD_START))

    def waited(self, call: Call) -> list[float]:
        """From the call to its result, the launch included, by the host's clock."""
        times = []
        for _ in range(self.runs(call)):
            torch.cuda.synchronize()
            began = time.perf_counter()
            call()
            torch.cuda.synchronize()
            times.append(1e6 * (time.perf_counter() - began))
        return times

    def runs(self, call: Call) -> int:
        """As many as a measurement has time for, after two calls to warm up."""
        for _ in range(2):
            torch.cuda.synchronize()
            began = time.perf_counter()
            call()
            torch.cuda.synchronize()
        return max(FEWEST, min(MOST, int(SECONDS / (time.perf_counter() - began))))


class HostStopwatch(Stopwatch):
    """The host's clock, for a benchmark where Triton interprets; its figures say nothing about a GPU."""

    toy = True
    copied = 1 << 24

    def __init__(self) -> None:
        self.device, self.name, self.l2 = torch.device("cpu"), "Triton interpreter", 0

    def captured(self, call: Call) -> None:
        """The host has no graphs."""

    def waited(self, call: Call) -> list[float]:
        times = []
        for _ in range(TOY_RUNS):
            began = time.perf_counter()
            call()
            times.append(1e6 * (time.perf_counter() - began))
        return times

    cold = hot = waited

    def unknown(self, call: Call) -> None:
        """Nothing is launched, waited for or lent by a GPU's allocator."""

    waits = launches = temporary_bytes = unknown


def waits_for_the_gpu(call: Call) -> bool:
    """Asked beforehand: a capture that fails would leave torch's streams in disorder."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def driver() -> ctypes.CDLL | None:
    """CUDA's own library, which torch's graphs can be shown to; None on other platforms."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def nodes(graph: int, driver: ctypes.CDLL | None) -> int | None:
    """The number of nodes of a cudaGraph_t; None where it is unknown."""
    count = ctypes.c_size_t()
    if driver is None or driver.cuGraphGetNodes(ctypes.c_void_p(graph), None, ctypes.byref(count)):
        return None
    return count.value


def between_events(call: Call, runs: int, turns: int, before: Call) -> list[float]:
    """Microseconds a call, one value a run of `turns` calls; `before` keeps the GPU busy while the host gets ahead."""
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for begin, end in marks:
        before()
        begin.record()
        for _ in range(turns):
            call()
        end.record()
    torch.cuda.synchronize()
    return [1e3 * begin.elapsed_time(end) / turns for begin, end in marks]
