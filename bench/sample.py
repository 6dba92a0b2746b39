"""`alea bench sample`: microseconds a draw, beside what else draws tokens on a CPU and beside reading the rows."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

from bench import goals, measure

HELP = "microseconds a sampling call on the CPU, beside llama.cpp, transformers, plain torch and a bare pass"
LEAST_SECONDS = 200e-6  # of one measurement; faster calls are repeated
CAPTION = (
    "Medians of interleaved rounds in one process, with p20 and p80; one call draws a token for each row. The "
    "rows are the same at every call, so they and the code are warm in the caches. kernel: the C++ backend alone, "
    "all that it is given laid out before; alea: the public samplers.sample with its checks. max is no sampler but "
    "torch's x.max() over the same rows: what reading them costs."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = "of rows: peaked, flat, tied, normal; default peaked, with --check peaked flat tied"
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=kinds)
    parser.add_argument(
        "--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help="default 32000 128256"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], metavar="B", help="default 1 16")
    parser.add_argument("--filters", nargs="+", metavar="NAME", help="none, k50+p.9, p.9, all; default these four")
    parser.add_argument("--dtype", default="float32", help="of the logits: float32 (default) or bfloat16")
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="default 21")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch; default 1")
    parser.add_argument("--quick", action="store_true", help="three rounds of the first vocabulary and batch size")
    parser.add_argument("--check", action="store_true", help="tell which goals hold; exit 1 if one does not")
    parser.add_argument("--save", action="store_true", help="append the records to bench/results/sample.jsonl")


def run(arguments: argparse.Namespace) -> int:
    for name, least in (("rounds", 2), ("threads", 1)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be >= {least}, got {getattr(arguments, name)}")
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
    records = []
    for record in measured(arguments):
        show(record)
        records.append(record)
    tell(CAPTION)
    if arguments.save:
        print(f"saved to {measure.append('sample', records)}")
    return show_goals(records) if arguments.check else 0


def measured(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record a case."""
    import torch

    from bench.cases import FILTERS, Case

    torch.set_num_threads(arguments.threads)
    kinds = arguments.kinds or (("peaked", "flat", "tied") if arguments.check else ("peaked",))
    sizes = arguments.vocabulary, arguments.batch
    chosen = [Case(*values, arguments.dtype) for values in product(kinds, *sizes, arguments.filters or FILTERS)]
    for case in chosen:
        yield measured_case(case, arguments.rounds)


def measured_case(case: Any, rounds: int) -> dict[str, Any]:
    import torch

    from bench.peers import LIMITS, OURS, PEERS
    from bench.verify import kept, verify

    torch.manual_seed(0)
    draws, skipped = prepared(OURS | PEERS, case)
    verify(case, draws, OURS | PEERS)
    limits, _ = prepared(LIMITS, case)
    seconds = seconds_a_call(limits | draws, rounds)
    here = measure.circumstances()
    here["versions"]["llama-cpp-python"] = measure.installed("llama-cpp-python")
    return {
        "benchmark": "sample",
        "kind": case.kind,
        "vocabulary": case.vocabulary,
        "batch": case.batch,
        "filters": case.filters,
        "dtype": case.dtype,
        "kept": kept(case),
        "rounds": rounds,
        "microseconds": {name: measure.quantiles([1e6 * s for s in times]) for name, times in seconds.items()},
        "skipped": skipped,
        **here,
    }


def prepared(contestants: Mapping[str, Any], case: Any) -> tuple[dict[str, Callable[[int], Any]], dict[str, str]]:
    """Those that can draw the case, ready to; and why the others can't."""
    from bench.peers import Unavailable

    draws, skipped = {}, {}
    for name, contestant in contestants.items():
        try:
            draws[name] = contestant(case)
        except Unavailable as reason:
            skipped[name] = str(reason)
    return draws, skipped


def seconds_a_call(
    draws: Mapping[str, Callable[[int], Any]], rounds: int, least: float = LEAST_SECONDS
) -> dict[str, list[float]]:
    """By contestant, one value a round; each measurement repeats its call until it takes at least so many seconds."""
    repeats = {name: repeats_of(draw, least) for name, draw in draws.items()}
    calls = {name: partial(repeat, draw, itertools.count(), repeats[name]) for name, draw in draws.items()}
    seconds = measure.interleaved(calls, rounds)
    return {name: [s / repeats[name] for s in times] for name, times in seconds.items()}


def repeats_of(draw: Callable[[int], Any], least: float) -> int:
    """How often to call in one measurement; by the fourth call, as the first set things up and find cold caches."""
    for step in range(3):
        draw(step)
    began = time.perf_counter()
    draw(3)
    return max(1, math.ceil(least / (time.perf_counter() - began)))


def repeat(draw: Callable[[int], Any], steps: Iterator[int], times: int) -> None:
    """Every call at a new position, as a text is written."""
    for step in itertools.islice(steps, times):
        draw(step)


def show(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "{kind} rows in {dtype}, V = {vocabulary:,}, batch {batch}, {filters}: {kept:,} kept".format(**record)
    table = Table(title=title, title_justify="left")
    times = record["microseconds"]
    ours = [name for name in ("kernel", "alea") if name in times]
    for heading in ("", "µs a call", "p20", "p80", *(f"÷ {name}" for name in (*ours, "max"))):
        table.add_column(heading, justify="right" if heading else "left")
    for name, q in times.items():
        microseconds = [f"{q[p]:,.1f}" for p in ("p50", "p20", "p80")]
        table.add_row(name, *microseconds, *(f"{q['p50'] / times[other]['p50']:.3g}" for other in (*ours, "max")))
    Console().print(table)
    for name, reason in record["skipped"].items():
        print(f"skipped: {name} ({reason})")


def tell(text: str) -> None:
    from rich.console import Console

    Console().print(text, highlight=False)


def show_goals(records: list[dict[str, Any]]) -> int:
    verdicts = list(goals.verdicts(records))
    for verdict in verdicts:
        tell(verdict)
    return int(any(verdict.startswith(goals.MISSED) for verdict in verdicts))
