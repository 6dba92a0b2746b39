"""`alea bench sample`: microseconds a draw on the CPU, compared with the peers and with reading the rows."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from itertools import product

import torch

from bench import runner
from bench.cases import FILTERS, STORYTELLERS, Case
from bench.exactness.verify import kept, verify
from bench.peers import OURS, PEERS, READING, TWO_THREADS
from bench.peers.base import DrawTokens, Peer, Unavailable
from bench.peers.user import imported
from bench.records import Record
from bench.speed import goals, threads
from bench.speed.counters import counted, under_its_name
from bench.speed.timing import cold_seconds, microseconds, seconds_a_call

COLD_ROUNDS = 7
ALONE, ALONE_SECONDS = ("kernel", "alea"), 5e-3  # timed in long loops too, undisturbed by the peers
COUNTED = ("alea", "torch", "torch.compile", "transformers")  # by torch's profiler; of alea, its torch part
FIGURES = ("operators", "computing_operators", "host_syncs", "allocated_bytes")
CAPTION = (
    "Medians of interleaved rounds in one process, with p20 and p80; one call draws a token for each row. Hot: the "
    "same rows at every call, so they and the code are warm in the caches. Cold: one call after all was pushed out of "
    "them. kernel: the C++ backend alone, its input laid out before; alea: the public samplers.sample with its checks. "
    "max is no sampler but torch's x.max() over the same rows, the read limit: the cost of reading them once; the last "
    "ratio is how many times as long a call takes. Operators and allocated bytes: where torch's profiler sees them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = "of rows: peaked, flat, tied, normal, real; default peaked, with --check all but real"
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=kinds)
    sizes = "default 32000 128256; real rows have the storyteller's 4096"
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help=sizes)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], metavar="B", help="default 1 16")
    parser.add_argument("--filters", nargs="+", metavar="NAME", help="none, k50+p.9, p.9, all; default these four")
    parser.add_argument("--dtype", default="float32", help="of the logits: float32 (default) or bfloat16")
    peer = "a sampler of your own, sampler(logits, params, seed) -> tokens; may be given again"
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:NAME", help=peer)
    runner.add_options(parser, "sample", "three rounds of the first vocabulary and batch size")
    parser.add_argument("--check", action="store_true", help="say which goals hold; exit 1 if one does not")


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    peers = PEERS | {spec: imported(spec) for spec in arguments.peer}
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
        peers |= {"torch.compile": too_slow_for_quick}
    torch.set_num_threads(arguments.threads)
    measure = partial(measured, rounds=arguments.rounds, peers=peers)
    records = runner.collect("sample", cases(arguments), measure, arguments.save, show)
    runner.say(CAPTION)
    return goals.check("sample", records) if arguments.check else 0


def cases(arguments: argparse.Namespace) -> list[Case]:
    kinds = arguments.kinds or (("peaked", "flat", "tied", "normal") if arguments.check else ("peaked",))
    chosen = []
    for kind in kinds:
        vocabularies = [STORYTELLERS] if kind == "real" else arguments.vocabulary
        parts = product(vocabularies, arguments.batch, arguments.filters or FILTERS)
        chosen += [Case(kind, *part, arguments.dtype) for part in parts]
    return chosen


def too_slow_for_quick(case: Case) -> DrawTokens:
    raise Unavailable("it compiles for half a minute; without --quick it is measured")


def measured(case: Case, rounds: int, peers: Mapping[str, Peer] = PEERS) -> Record:
    torch.manual_seed(0)
    compared = OURS | dict(peers)
    draws, skipped = prepared(compared, case)
    failed = verify(case, draws, compared)
    timed = prepared(READING, case)[0] | {name: draw for name, draw in draws.items() if name not in failed}
    named = timed | {"alea": under_its_name(timed["alea"])}
    spread = {name: timed[name] for name in ("kernel", TWO_THREADS) if TWO_THREADS in timed}
    counts = {name: counted(named[name]) for name in COUNTED if name in named}
    return {
        **asdict(case),
        "bytes": case.logits.numel() * case.logits.element_size(),
        "kept": kept(case),
        "rounds": rounds,
        "microseconds": microseconds(seconds_a_call(timed, rounds)),
        "two_threads": threads.on_free_cores(spread, rounds) if spread else None,
        "alone_microseconds": microseconds(
            seconds_a_call({name: timed[name] for name in ALONE if name in timed}, rounds, ALONE_SECONDS)
        ),
        "cold_microseconds": microseconds(cold_seconds(timed, min(rounds, COLD_ROUNDS))),
        **{figure: {name: count[figure] for name, count in counts.items()} for figure in FIGURES},
        "skipped": skipped,
        "failed": failed,
    }


def prepared(peers: Mapping[str, Peer], case: Case) -> tuple[dict[str, DrawTokens], dict[str, str]]:
    """The draws of those that can draw the case; for the others, the reason why not."""
    draws, skipped = {}, {}
    for name, peer in peers.items():
        try:
            draws[name] = peer(case)
        except Unavailable as reason:
            skipped[name] = str(reason)
    return draws, skipped


def show(record: Record) -> None:
    title = "{kind} rows in {dtype}, V = {vocabulary:,}, batch {batch}, {filters}: {kept:,} kept".format(**record)
    runner.print_table(title, table(record))


def table(record: Record) -> runner.Rows:
    """A line a sampler."""
    headings = ["", "hot µs", "p20", "p80", "cold µs", "÷ alea", "÷ max", "operators", "allocated"]
    hot, cold, lines = record["microseconds"], record["cold_microseconds"], []
    for name, q in hot.items():
        times = [f"{q[p]:,.1f}" for p in ("p50", "p20", "p80")]
        ratios = [f"{q['p50'] / hot[other]['p50']:.3g}" if other in hot else "–" for other in ("alea", "max")]
        known = name in record["operators"]
        counts = [str(record["operators"][name]), size(record["allocated_bytes"][name])] if known else ["–", "–"]
        lines.append([name, *times, f"{cold[name]['p50']:,.1f}", *ratios, *counts])
    return headings, lines + [[name, "failed"] for name in record["failed"]]


def size(count: int) -> str:
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.0f} kB"
