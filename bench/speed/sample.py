"""`alea bench sample`: microseconds a draw, beside what else draws tokens on a CPU and beside reading the rows."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from typing import Any

from bench import measure, runner
from bench.speed import goals
from bench.speed.counters import counted, named

HELP = "microseconds a sampling call on the CPU, beside its peers and beside reading the rows"
LEAST_SECONDS = 200e-6  # of one measurement; faster calls are repeated
COLD_ROUNDS = 7
EVICTED = 1 << 27  # bytes read between two calls on cold caches, more than any CPU's caches hold
COUNTED = (
    "alea",
    "torch",
    "torch.compile",
    "transformers",
)  # whose work torch's profiler sees; of alea, its torch part
CAPTION = (
    "Medians of interleaved rounds in one process, with p20 and p80; one call draws a token for each row. Hot: the "
    "same rows at every call, so they and the code are warm in the caches. Cold: one call after all was pushed out of "
    "them. kernel: the C++ backend alone, all that it is given laid out before; alea: the public samplers.sample "
    "with its checks. max is no sampler but torch's x.max() over the same rows, the read limit: what reading them once "
    "costs; the last column is how many times as long a call takes. Operators and allocated bytes: where torch's "
    "profiler sees them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = "of rows: peaked, flat, tied, normal, real; default peaked, with --check peaked flat tied"
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=kinds)
    sizes = "default 32000 128256; real rows have the storyteller's 4096"
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help=sizes)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], metavar="B", help="default 1 16")
    parser.add_argument("--filters", nargs="+", metavar="NAME", help="none, k50+p.9, p.9, all; default these four")
    parser.add_argument("--dtype", default="float32", help="of the logits: float32 (default) or bfloat16")
    peer = "a sampler of your own, sampler(logits, params, seed) -> tokens; may be given again"
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:NAME", help=peer)
    runner.add_options(parser, "sample", "three rounds of the first vocabulary and batch size")
    parser.add_argument("--check", action="store_true", help="tell which goals hold; exit 1 if one does not")


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    peers = peers_of(tuple(arguments.peer))
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
        peers = peers | {"torch.compile": too_slow_for_quick}
    measured = partial(measured_case, rounds=arguments.rounds, peers=peers)
    records = runner.collect("sample", cases(arguments), measured, arguments.save, show)
    tell(CAPTION)
    return show_goals(records) if arguments.check else 0


def cases(arguments: argparse.Namespace) -> list[Any]:
    import torch

    from bench.rows import FILTERS, STORYTELLERS, Case

    torch.set_num_threads(arguments.threads)
    kinds = arguments.kinds or (("peaked", "flat", "tied") if arguments.check else ("peaked",))
    chosen = []
    for kind in kinds:
        vocabularies = [STORYTELLERS] if kind == "real" else arguments.vocabulary
        parts = product(vocabularies, arguments.batch, arguments.filters or FILTERS)
        chosen += [Case(kind, *part, arguments.dtype) for part in parts]
    return chosen


@cache
def peers_of(specs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The peers that are known here, and a user's own."""
    from bench.peers import PEERS, named

    return PEERS | {spec: named(spec) for spec in specs}


def too_slow_for_quick(case: Any) -> Any:
    from bench.peers import Unavailable

    raise Unavailable("it compiles for half a minute; without --quick it is measured")


def measured_case(case: Any, rounds: int, peers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    import torch

    from bench.exactness.verify import kept, verify
    from bench.peers import LIMITS, OURS

    torch.manual_seed(0)
    contestants = OURS | dict(peers_of() if peers is None else peers)
    draws, skipped = prepared(contestants, case)
    failed = verify(case, draws, contestants)
    limits, _ = prepared(LIMITS, case)
    timed = limits | {name: draw for name, draw in draws.items() if name not in failed}
    hot, cold = seconds_a_call(timed, rounds), cold_seconds(timed, min(rounds, COLD_ROUNDS))
    ours = {"alea": named(timed["alea"])}
    counts = {name: counted(ours.get(name, timed[name])) for name in COUNTED if name in timed}
    here = measure.circumstances()
    here["versions"]["llama-cpp-python"] = measure.installed("llama-cpp-python")
    return {
        "benchmark": "sample",
        "kind": case.kind,
        "vocabulary": case.vocabulary,
        "batch": case.batch,
        "filters": case.filters,
        "dtype": case.dtype,
        "bytes": case.logits.numel() * case.logits.element_size(),
        "kept": kept(case),
        "rounds": rounds,
        "microseconds": {name: measure.quantiles([1e6 * s for s in times]) for name, times in hot.items()},
        "cold_microseconds": {name: measure.quantiles([1e6 * s for s in times]) for name, times in cold.items()},
        **{figure: {name: count[figure] for name, count in counts.items()} for figure in FIGURES},
        "skipped": skipped,
        "failed": failed,
        **here,
    }


FIGURES = ("operators", "computing_operators", "host_syncs", "allocated_bytes")


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


def cold_seconds(draws: Mapping[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """By contestant, one call a round, its rows and code pushed out of the caches before."""
    import torch

    ballast = torch.zeros(EVICTED // 4)
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for step in range(rounds):
        for name, draw in draws.items():
            ballast.sum()
            began = time.perf_counter()
            draw(step)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def show(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "{kind} rows in {dtype}, V = {vocabulary:,}, batch {batch}, {filters}: {kept:,} kept".format(**record)
    table = Table(title=title, title_justify="left")
    hot, cold = record["microseconds"], record["cold_microseconds"]
    headings = ("", "hot µs", "p20", "p80", "cold µs", "÷ alea", "÷ max", "operators", "allocated")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for name, q in hot.items():
        times = [f"{q[p]:,.1f}" for p in ("p50", "p20", "p80")]
        ratios = [f"{q['p50'] / hot[other]['p50']:.3g}" if other in hot else "–" for other in ("alea", "max")]
        known = name in record["operators"]
        counts = [str(record["operators"][name]), size(record["allocated_bytes"][name])] if known else ["–", "–"]
        table.add_row(name, *times, f"{cold[name]['p50']:,.1f}", *ratios, *counts)
    for name in record["failed"]:
        table.add_row(name, "failed", *[""] * (len(headings) - 2))
    Console(width=None if Console().is_terminal else WIDTH).print(table)
    for word in ("skipped", "failed"):
        for name, reason in record[word].items():
            tell(f"{word}: {name} ({reason})")


WIDTH = 100  # of a table in a file or pipe, for which rich would take 80


def size(count: int) -> str:
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.0f} kB"


def tell(text: str) -> None:
    from rich.console import Console

    Console().print(text, highlight=False)


def show_goals(records: list[dict[str, Any]]) -> int:
    verdicts = list(goals.verdicts(records))
    for verdict in verdicts:
        tell(verdict)
    return int(any(verdict.startswith(goals.MISSED) for verdict in verdicts))
