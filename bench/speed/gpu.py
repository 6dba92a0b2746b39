"""`python -m bench.speed.gpu`: microseconds a draw on a GPU, beside torch, FlashInfer and reading the logits once."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import measure
from model import files

if TYPE_CHECKING:
    import torch

    from bench.peers.gpu import Call, Contestant
    from bench.rows import Case
    from bench.speed.stopwatch import Stopwatch

HELP = "microseconds a sampling call on a GPU, beside torch, FlashInfer and reading the logits once"
KINDS, DTYPES = ("peaked", "flat"), ("float32", "bfloat16")  # the most important first
VOCABULARIES, BATCHES = (32_000, 128_256, 262_144), (1, 8, 64, 256, 1024)
QUICK_BATCHES = (1, 256)
TOY_VOCABULARIES, TOY_BATCHES = (100, 201), (1, 2)
TOY_EVERY = 9  # of the cases: some with each kind, dtype, vocabulary, batch and filter
BACKEND = "triton"  # by name: no other is timed in its place
COUNTERS = ("launches", "waits", "temporary_bytes")  # what the stopwatch counts in a call
DISTINCT = 8  # rows that are made for a batch; the others are these, rolled
SECONDS = 240
INTEGERS = ("tokens", "weight", "total", "kept")
CAPTION = (
    "alea's median in µs, replayed as a graph behind an emptied L2; how much of it reading the logits once would take "
    "at the bandwidth of a copy; and how many times that long the faster chain of torch takes."
)
TOY_CAPTION = "Toy sizes in Triton's interpreter, by the host's clock: that it runs, and nothing about any GPU."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    quick = "peaked rows of one vocabulary in float32, batches 1 and 256"
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help=f"when to stop; default {SECONDS}")
    parser.add_argument(
        "--out", type=Path, default=measure.RESULTS, metavar="FOLDER", help="where gpu.jsonl is written"
    )
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
    if arguments.toy and arguments.out.resolve() == measure.RESULTS.resolve():
        raise ValueError(f"--out must be another folder with --toy, got {arguments.out}, where the records of GPUs are")
    watch = toy_stopwatch() if arguments.toy else stopwatch()
    records = list(measured(chosen, watch, arguments.seconds, arguments.out / "gpu.jsonl"))
    show(records)
    for case in chosen[len(records) :]:
        print(f"left out: {case}")
    return 0


def cases(quick: bool = False, toy: bool = False) -> Iterator[Case]:
    """The most important first; those of the same rows one after the other."""
    from bench.rows import FILTERS, Case

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
    import torch

    from bench.speed.stopwatch import Stopwatch

    if not torch.cuda.is_available():
        raise RuntimeError(
            "bench.gpu needs a GPU: torch.cuda.is_available() is False; --dry-run lists its cases; --toy measures "
            "some, of tiny sizes, in Triton's interpreter"
        )
    return Stopwatch()


def toy_stopwatch() -> Stopwatch:
    """Makes Triton interpret, which it is told before it is imported."""
    os.environ["TRITON_INTERPRET"] = "1"
    from bench.speed.stopwatch import HostStopwatch

    return HostStopwatch()


def measured(chosen: Sequence[Case], watch: Stopwatch, seconds: float, path: Path) -> Iterator[dict[str, Any]]:
    """One record a case, written as soon as it is there, until the time is up or a Ctrl-C."""
    deadline = time.monotonic() + seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    here = circumstances(watch)
    with suppress(KeyboardInterrupt):
        for case in chosen:
            if time.monotonic() > deadline:
                return
            record = measured_case(case, watch, here["bandwidth"]) | here
            files.append(path, json.dumps(record) + "\n")
            yield record


def circumstances(watch: Stopwatch) -> dict[str, Any]:
    here = measure.circumstances()
    here["machine"] |= {"gpu": watch.name, "l2": watch.l2}
    here["versions"] |= {name: measure.installed(name) for name in ("triton", "flashinfer-python")}
    return here | {"toy": watch.toy, "bandwidth": float(f"{watch.bandwidth():.4g}")}


def measured_case(case: Case, watch: Stopwatch, bandwidth: float) -> dict[str, Any]:
    import torch

    from bench.peers.gpu import PEERS, alea

    skipped = dict(unfit_peers(case.kind, case.filters, case.dtype, watch.device))
    x, position = rows(case.kind, case.vocabulary, case.batch, case.dtype, watch.device), zero(watch.device)
    verify_rows(case, x)
    found = {"alea": figures(alea(case, x, position, BACKEND), watch)}
    for name in [name for name in PEERS if name not in skipped]:
        try:
            found[name] = figures(PEERS[name](case, x, position), watch)
        except torch.OutOfMemoryError as error:
            skipped[name] = str(error)
    size = x.numel() * x.element_size()
    return {
        "benchmark": "gpu",
        "kind": case.kind,
        "vocabulary": case.vocabulary,
        "batch": case.batch,
        "filters": case.filters,
        "dtype": case.dtype,
        "bytes": size,
        "read_limit": float(f"{1e6 * size / bandwidth:.4g}"),  # µs
        **{column: {name: one[column] for name, one in found.items()} for column in ("microseconds", *COUNTERS)},
        "skipped": skipped,
    }


def figures(call: Call, watch: Stopwatch) -> dict[str, Any]:
    """What a call takes, by the record's columns; None where the platform doesn't tell."""
    return {"microseconds": times(call, watch)} | {name: getattr(watch, name)(call) for name in COUNTERS}


def times(call: Call, watch: Stopwatch) -> dict[str, Any]:
    """waited: called from Python and waited for. cold, hot: replayed as a graph, where the call can be one."""
    waited, replay = watch.waited(call), watch.captured(call)
    figures = {"waited": waited, "cold": watch.cold(replay or call), "hot": watch.hot(replay or call)}
    return {name: measure.quantiles(values) for name, values in figures.items()} | {"graph": replay is not None}


def zero(device: torch.device) -> torch.Tensor:
    import torch

    return torch.zeros((), dtype=torch.int64, device=device)


@functools.lru_cache(maxsize=1)
def rows(kind: str, vocabulary: int, batch: int, dtype: str, device: torch.device) -> torch.Tensor:
    """[B, V]: the few that `bench.rows` makes, again and again, each time rolled, in memory of their own."""
    import torch

    from bench.rows import Case

    few = Case(kind, vocabulary, min(batch, DISTINCT), dtype=dtype).logits.to(device)
    x = torch.empty((batch, vocabulary), dtype=few.dtype, device=device)
    for number, row in enumerate(x):
        row.copy_(few[number % DISTINCT].roll(7919 * (number // DISTINCT)))
    return x


@functools.cache
def unfit_peers(kind: str, filters: str, dtype: str, device: torch.device) -> dict[str, str]:
    """The peers that can't draw such rows, or draw them wrongly, and why: `bench.exactness.verify` on four rows.

    Its thousands of draws would take Triton's interpreter an hour: without a GPU, they are the C++ backend's.
    RuntimeError where alea's draws are wrong: then nothing is timed.
    """
    from bench.exactness.verify import verify
    from bench.peers.gpu import PEERS, alea
    from bench.rows import Case

    case, reasons = Case(kind, VOCABULARIES[0], 4, filters, dtype), dict[str, str]()
    for name, contestant in {"alea": alea, **PEERS}.items():
        drawer = functools.partial(drawing, contestant, device)
        try:
            reasons |= verify(case, {name: drawer(case)}, {name: drawer})
        except Exception as error:  # whatever may be wrong with a peer, alea can be timed
            if name == "alea":
                raise
            reasons[name] = f"{type(error).__name__}: {error}"
    return reasons


def drawing(contestant: Contestant, device: torch.device, case: Case) -> Callable[[int], Any]:
    """What `bench.exactness.verify` asks for: step -> token ids on the host."""
    position = zero(device)
    call = contestant(case, case.logits.to(device), position)

    def draw(step: int) -> Any:
        position.fill_(step)
        return call().cpu()

    return draw


def verify_rows(case: Case, x: torch.Tensor) -> None:
    """The first and the last row of the batch draw what the reference draws from them alone."""
    import samplers
    from bench.peers import SEED

    some = [0, case.batch - 1]
    ours = samplers.sample(x, case.params, seed=SEED, backend=BACKEND)
    theirs = samplers.sample(x[some].cpu(), case.params, seed=SEED, stream=some, backend="reference")
    for name in INTEGERS:
        a, b = getattr(ours, name)[some].tolist(), getattr(theirs, name).tolist()
        if a != b:
            raise RuntimeError(f"{name} must be the reference's {b}, got {a} ({case}); nothing was measured")


def show(records: Sequence[dict[str, Any]]) -> None:
    """A line a batch, a column the filters."""
    filters = list(dict.fromkeys(record["filters"] for record in records))
    print(f"{'':32}" + "".join(f"{name:>22}" for name in filters))
    names = ("kind", "dtype", "vocabulary", "batch")
    for (kind, dtype, vocabulary, batch), group in itertools.groupby(records, lambda r: tuple(r[n] for n in names)):
        cells = {record["filters"]: cell(record) for record in group}
        print(f"{kind:8}{dtype:10}{vocabulary:>8,}{batch:>6,}" + "".join(f"{cells.get(f, ''):>22}" for f in filters))
    print(TOY_CAPTION if any(record["toy"] for record in records) else CAPTION)


def cell(record: dict[str, Any]) -> str:
    cold = {name: figures["cold"]["p50"] for name, figures in record["microseconds"].items()}
    ours, theirs = cold["alea"], min((value for name, value in cold.items() if name.startswith("torch")), default=None)
    return f"{ours:,.1f} {record['read_limit'] / ours:.0%}" + (f" {theirs / ours:.1f}×" if theirs else "")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.speed.gpu", description=HELP)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
