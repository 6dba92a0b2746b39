"""`alea bench gpu`: microseconds a draw on a GPU, compared with torch, FlashInfer and reading the logits once."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import samplers
from bench import records, runner
from bench.cases import FILTERS, Case
from bench.exactness.verify import verify
from bench.peers import GPU_PEERS
from bench.peers.alea import on_gpu
from bench.peers.base import SEED, DrawOnGpu, DrawTokens, GpuPeer
from bench.records import Record, four_digits, quantiles
from bench.speed.stopwatch import HostStopwatch, Stopwatch
from samplers.identity.draws import INTEGERS

KINDS, DTYPES = ("peaked", "flat"), ("float32", "bfloat16")  # the most important first
VOCABULARIES, BATCHES = (32_000, 128_256, 262_144), (1, 8, 64, 256, 1024)
QUICK_BATCHES = (1, 256)
TOY_VOCABULARIES, TOY_BATCHES = (100, 201), (1, 2)
TOY_EVERY = 9  # of the cases: each kind, dtype, vocabulary, batch and filter occurs
BACKEND = "triton"  # explicit: no other backend is timed instead
COUNTERS = ("launches", "waits", "temporary_bytes")  # of a call, by the stopwatch
COLUMNS = ("microseconds", *COUNTERS)
ONE_READ = "alea, one read"
DISTINCT = 8  # rows that are made for a batch; the others are these, rolled
SECONDS = 240
CAPTION = (
    "alea's median in µs, replayed as a graph with an empty L2 cache; the share of it that reading the logits once "
    "would take at the bandwidth of a copy; and the time of the faster chain of torch as a multiple of alea's."
)
TOY_CAPTION = "Toy sizes in Triton's interpreter, by the host's clock: it runs. This says nothing about any GPU."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    quick = "peaked rows of one vocabulary in float32, batches 1 and 256"
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help=f"when to stop; default {SECONDS}")
    out = "where gpu.jsonl is written; default bench/results"
    parser.add_argument("--out", type=Path, default=records.RESULTS, metavar="FOLDER", help=out)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--dry-run", action="store_true", help="list the cases in their order, measure none")
    parser.add_argument("--toy", action="store_true", help="without a GPU: a few tiny cases in Triton's interpreter")


def run(arguments: argparse.Namespace) -> int:
    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be > 0, got {arguments.seconds}")
    chosen = list(cases(arguments.quick, arguments.toy))
    if arguments.dry_run:
        print("\n".join(map(str, chosen)))
        return 0
    if arguments.toy and arguments.out.resolve() == records.RESULTS.resolve():
        raise ValueError(f"--out must be another folder with --toy, got {arguments.out}, where the records of GPUs are")
    watch = toy_stopwatch() if arguments.toy else stopwatch()
    shared, deadline = environment(watch), time.monotonic() + arguments.seconds

    def measure(case: Case) -> Record | None:
        return measured(watch, shared, case) if time.monotonic() <= deadline else None

    found = runner.collect("gpu", chosen, measure, True, folder=arguments.out)
    runner.print_table("µs a draw", table(found), TOY_CAPTION if arguments.toy else CAPTION, left=2)
    for case in chosen[len(found) :]:
        print(f"left out: {case}")
    return 0


def cases(quick: bool = False, toy: bool = False) -> Iterator[Case]:
    """The most important first; those of the same rows one after the other."""
    kinds, dtypes = (KINDS[:1], DTYPES[:1]) if quick else (KINDS, DTYPES)
    chosen = itertools.product(kinds, dtypes, *sizes(quick, toy), FILTERS)
    for kind, dtype, vocabulary, batch, filters in itertools.islice(chosen, 0, None, TOY_EVERY if toy else 1):
        yield Case(kind, vocabulary, batch, filters, dtype)


def sizes(quick: bool, toy: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Vocabularies and batches."""
    if toy:
        return TOY_VOCABULARIES, TOY_BATCHES[:1] if quick else TOY_BATCHES
    return (VOCABULARIES[1:2], QUICK_BATCHES) if quick else (VOCABULARIES, BATCHES)


def stopwatch() -> Stopwatch:
    if not torch.cuda.is_available():
        raise RuntimeError(
            "alea bench gpu needs a GPU: torch.cuda.is_available() is False; --dry-run lists its cases; --toy measures "
            "some, of tiny sizes, in Triton's interpreter"
        )
    return Stopwatch()


def toy_stopwatch() -> Stopwatch:
    """Makes Triton interpret: nothing has imported it so far."""
    os.environ["TRITON_INTERPRET"] = "1"
    return HostStopwatch()


def environment(watch: Stopwatch) -> Record:
    """The fields that all records of a run share, besides their provenance."""
    machine = records.provenance()["machine"] | {"gpu": watch.name, "l2": watch.l2}
    return {"machine": machine, "toy": watch.toy, "bandwidth": four_digits(watch.bandwidth())}


def measured(watch: Stopwatch, shared: Record, case: Case) -> Record:
    skipped = dict(unfit_peers(case.kind, case.filters, case.dtype, watch.device))
    x = rows(case.kind, case.vocabulary, case.batch, case.dtype, watch.device)
    position = torch.zeros((), dtype=torch.int64, device=watch.device)
    verify_rows(case, x)
    found = {"alea": figures_of(on_gpu(case, x, position, BACKEND), watch)}
    if not case.params.top_k:  # else no row is weighed
        with reading_once():
            verify_rows(case, x)
            found[ONE_READ] = figures_of(on_gpu(case, x, position, BACKEND), watch)
    for name in [name for name in GPU_PEERS if name not in skipped]:
        try:
            found[name] = figures_of(GPU_PEERS[name](case, x, position), watch)
        except torch.OutOfMemoryError as error:
            skipped[name] = str(error)
    size = x.numel() * x.element_size()
    return {
        **asdict(case),
        "bytes": size,
        "read_limit": four_digits(1e6 * size / shared["bandwidth"]),  # µs
        **{column: {name: figures[column] for name, figures in found.items()} for column in COLUMNS},
        "skipped": skipped,
        **shared,
    }


@contextmanager
def reading_once() -> Iterator[None]:
    """The way that is switched off until it is seen to be equal and faster, on a GPU."""
    from samplers.kernels import one_read  # not earlier: it imports Triton, which may have to interpret

    with mock.patch.object(one_read, "is_used", lambda *_: True):
        yield


def figures_of(draw: DrawOnGpu, watch: Stopwatch) -> Record:
    """By the record's columns; None where the platform doesn't know."""
    return {"microseconds": times(draw, watch)} | {name: getattr(watch, name)(draw) for name in COUNTERS}


def times(draw: DrawOnGpu, watch: Stopwatch) -> Record:
    """waited: called from Python and waited for. cold, hot: replayed as a graph, where the call can be one."""
    waited, replay = watch.waited(draw), watch.captured(draw)
    seconds = {"waited": waited, "cold": watch.cold(replay or draw), "hot": watch.hot(replay or draw)}
    return {name: quantiles(values) for name, values in seconds.items()} | {"graph": replay is not None}


@functools.lru_cache(maxsize=1)
def rows(kind: str, vocabulary: int, batch: int, dtype: str, device: torch.device) -> Tensor:
    """[B, V]: the few that a case makes, repeated, each time rolled; every row has its own memory."""
    few = Case(kind, vocabulary, min(batch, DISTINCT), dtype=dtype).logits.to(device)
    x = torch.empty((batch, vocabulary), dtype=few.dtype, device=device)
    for number, row in enumerate(x):
        row.copy_(few[number % DISTINCT].roll(7919 * (number // DISTINCT)))
    return x


@functools.cache
def unfit_peers(kind: str, filters: str, dtype: str, device: torch.device) -> dict[str, str]:
    """The peers that can't draw such rows, or draw them wrongly, with the reason: `verify` on four rows.

    Its thousands of draws would take Triton's interpreter an hour: without a GPU, they are the C++ backend's.
    Raises: RuntimeError where alea's draws are wrong: then nothing is timed.
    """
    case, reasons = Case(kind, VOCABULARIES[0], 4, filters, dtype), dict[str, str]()
    for name, peer in {"alea": on_gpu, **GPU_PEERS}.items():
        drawer = functools.partial(drawing, peer, device)
        try:
            reasons |= verify(case, {name: drawer(case)}, {name: drawer})
        except Exception as error:  # whatever may be wrong with a peer, alea can be timed
            if name == "alea":
                raise
            reasons[name] = f"{type(error).__name__}: {error}"
    return reasons


def drawing(peer: GpuPeer, device: torch.device, case: Case) -> DrawTokens:
    """A GPU's peer as `verify` wants it, its tokens on the host."""
    position = torch.zeros((), dtype=torch.int64, device=device)
    draw_on_gpu = peer(case, case.logits.to(device), position)

    def draw(step: int) -> Tensor:
        position.fill_(step)
        return draw_on_gpu().cpu()

    return draw


def verify_rows(case: Case, x: Tensor) -> None:
    """The first and the last row of the batch draw the tokens that the reference draws from them alone."""
    ends = [0, case.batch - 1]
    ours = samplers.sample(x, case.params, seed=SEED, backend=BACKEND)
    exact = samplers.sample(x[ends].cpu(), case.params, seed=SEED, stream=ends, backend="reference")
    for name in INTEGERS:
        found, expected = getattr(ours, name)[ends].tolist(), getattr(exact, name).tolist()
        if found != expected:
            raise RuntimeError(f"{name} must be the reference's {expected}, got {found} ({case}); nothing was measured")


def table(found: Sequence[Record]) -> runner.Rows:
    """A line a batch, a column the filters."""
    filters, lines = list(dict.fromkeys(record["filters"] for record in found)), []
    names = ("kind", "dtype", "vocabulary", "batch")
    for (kind, dtype, vocabulary, batch), group in itertools.groupby(found, lambda r: tuple(r[n] for n in names)):
        cells = {record["filters"]: cell(record) for record in group}
        lines.append([kind, dtype, f"{vocabulary:,}", f"{batch:,}", *(cells.get(name, "") for name in filters)])
    return ["rows", "dtype", "V", "batch", *filters], lines


def cell(record: Record) -> str:
    cold = {name: figures["cold"]["p50"] for name, figures in record["microseconds"].items()}
    ours, theirs = cold["alea"], min((value for name, value in cold.items() if name.startswith("torch")), default=None)
    return f"{ours:,.1f} {record['read_limit'] / ours:.0%}" + (f" {theirs / ours:.1f}×" if theirs else "")


def main(argv: Sequence[str] | None = None) -> int:
    """For `bench/gpu.sh`: nothing has to be installed."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.gpu", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
