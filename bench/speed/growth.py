"""`alea bench growth`: the growth of a call's time with the vocabulary and the batch, as a slope and a fixed part."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch

from bench import runner
from bench.cases import Case
from bench.exactness.verify import verify, verify_integers
from bench.peers import OURS, PEERS
from bench.peers.alea import reference
from bench.peers.base import DrawTokens, Peer
from bench.records import Record, four_digits, three_digits
from bench.speed.timing import microseconds, seconds_a_call

VOCABULARIES = [1 << n for n in range(10, 21, 2)]  # 1,024 to 1,048,576, one row
BATCHES = [1 << n for n in range(0, 11, 2)]  # 1 to 1,024, of short rows
SHORT = 4096  # tokens of a row in the scan of batches
SAMPLERS = ("kernel", "alea", "reference", "torch", "transformers")
CHECKED = 1 << 16  # logits of a case up to which peers' draws are judged; ours are compared with the reference in all
CAPTION = (
    "Medians of rounds in which a sampler's sizes take turns, hot caches, peaked rows. The fitted line is the one of "
    "least relative error, so that small calls count as much as large ones."
)

Size = tuple[int, int]  # V, B


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"some of {', '.join(SAMPLERS)}; default all of them"
    parser.add_argument("--contestants", nargs="+", default=list(SAMPLERS), metavar="NAME", help=names)
    parser.add_argument("--filters", nargs="+", default=["k50+p.9", "p.9"], metavar="NAME", help="default k50+p.9 p.9")
    runner.add_options(parser, "growth", "three rounds, three sizes, ours and torch's with k50+p.9", rounds=7)


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    runner.check_names("contestants", arguments.contestants, SAMPLERS)
    vocabularies, batches = VOCABULARIES, BATCHES
    if arguments.quick:
        arguments.rounds, arguments.filters, arguments.contestants = 3, ["k50+p.9"], ["alea", "torch"]
        vocabularies, batches = VOCABULARIES[::2], BATCHES[::2]
    torch.set_num_threads(arguments.threads)
    scans = {"vocabulary": [(v, 1) for v in vocabularies], "batch": [(SHORT, b) for b in batches]}
    cases = product(scans, arguments.filters, arguments.contestants)
    measure = partial(measured, scans=scans, rounds=arguments.rounds)
    runner.collect("growth", cases, measure, arguments.save, show)
    runner.say(CAPTION)
    return 0


def measured(scanned: tuple[str, str, str], scans: Mapping[str, Sequence[Size]], rounds: int) -> Record:
    """The record of one sampler in one scan."""
    scan, filters, name = scanned
    peer = (OURS | PEERS | {"reference": reference})[name]
    cases = {f"{v} {b}": Case("peaked", v, b, filters) for v, b in scans[scan]}
    draws = {size: peer(case) for size, case in cases.items()}
    for size, case in cases.items():
        check(name, case, draws[size], peer)
    times = microseconds(seconds_a_call(draws, rounds))
    slope, fixed = fit([c.vocabulary * c.batch for c in cases.values()], [times[size]["p50"] for size in cases])
    return {
        "contestant": name,
        "filters": filters,
        "scan": scan,
        "points": [
            {"vocabulary": case.vocabulary, "batch": case.batch, "microseconds": times[size]}
            for size, case in cases.items()
        ],
        "fit": {"us_per_thousand": four_digits(slope), "fixed_us": four_digits(fixed)},
        "rounds": rounds,
    }


def check(name: str, case: Case, draw: DrawTokens, peer: Peer) -> None:
    """Raises: RuntimeError where the draws to be timed are wrong."""
    if name in OURS:
        verify_integers(case, {name: draw})
    elif name != "reference" and case.vocabulary * case.batch <= CHECKED:
        for failed, reason in verify(case, {name: draw}, {name: peer}).items():
            raise RuntimeError(f"{failed} {reason} ({case}); nothing was measured")


def fit(logits: Sequence[int], microseconds: Sequence[float]) -> tuple[float, float]:
    """Slope per thousand logits and fixed part of the line of least relative error.

    >>> slope, fixed = fit([1000, 10_000, 100_000], [12.0, 30.0, 210.0])
    >>> round(slope, 6), round(fixed, 6)
    (2.0, 10.0)
    """
    times = np.asarray(microseconds)
    columns = np.stack([np.asarray(logits) / 1000, np.ones(len(times))], axis=1) / times[:, None]
    slope, fixed = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)[0]
    return float(slope), float(fixed)


def show(record: Record) -> None:
    """The fitted line of the scan, and its points."""
    slope, fixed = record["fit"]["us_per_thousand"], record["fit"]["fixed_us"]
    points = ", ".join(f"{p[record['scan']]:,}: {three_digits(p['microseconds']['p50'])}" for p in record["points"])
    print(f"{record['contestant']}, {record['filters']}, by {record['scan']}:")
    print(f"  {slope:.3g} µs per thousand logits {'+' if fixed >= 0 else '-'} {abs(fixed):.3g} µs fixed   ({points})")
