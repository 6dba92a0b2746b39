"""`alea bench growth`: how a call's time grows with the vocabulary and with the batch, as a slope and a fixed part."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from bench import measure, runner
from bench.report import plain
from bench.speed.sample import seconds_a_call, tell

HELP = "how a sampling call's time grows with the vocabulary and the batch: µs per thousand logits + fixed"
VOCABULARIES = [1 << n for n in range(10, 21, 2)]  # 1,024 to 1,048,576, one row
BATCHES = [1 << n for n in range(0, 11, 2)]  # 1 to 1,024, of short rows
SHORT = 4096  # tokens of a row in the scan of batches
CONTESTANTS = ("kernel", "alea", "reference", "torch", "transformers")
CHECKED = 1 << 16  # logits of a case up to which peers' draws are judged; ours are held to the reference in all
CAPTION = (
    "Medians of rounds in which a contestant's sizes take turns, hot caches, peaked rows. The line fitted is the one "
    "of least relative error, so that small calls count as much as large ones."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"some of {', '.join(CONTESTANTS)}; default all of them"
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), metavar="NAME", help=names)
    parser.add_argument("--filters", nargs="+", default=["k50+p.9", "p.9"], metavar="NAME", help="default k50+p.9 p.9")
    runner.add_options(parser, "growth", "three rounds, three sizes, ours and torch's with k50+p.9", rounds=7)


def run(arguments: argparse.Namespace) -> int:
    import torch

    runner.check_options(arguments)
    runner.check_names("contestants", arguments.contestants, CONTESTANTS)
    vocabularies, batches = VOCABULARIES, BATCHES
    if arguments.quick:
        arguments.rounds, arguments.filters, arguments.contestants = 3, ["k50+p.9"], ["alea", "torch"]
        vocabularies, batches = VOCABULARIES[::2], BATCHES[::2]
    torch.set_num_threads(arguments.threads)
    scans = {"vocabulary": [(v, 1) for v in vocabularies], "batch": [(SHORT, b) for b in batches]}
    cases = product(scans, arguments.filters, arguments.contestants)
    runner.collect("growth", cases, partial(measured, scans=scans, rounds=arguments.rounds), arguments.save, show)
    tell(CAPTION)
    return 0


def measured(case: tuple[str, str, str], scans: Mapping[str, Sequence[tuple[int, int]]], rounds: int) -> dict[str, Any]:
    """One contestant's record of one scan."""
    from bench.rows import Case

    scan, filters, name = case
    sizes, contestant = scans[scan], contestants()[name]
    cases = {size: Case("peaked", *size, filters) for size in sizes}
    draws = {f"{v} {b}": contestant(case) for (v, b), case in cases.items()}
    for one, draw in zip(cases.values(), draws.values(), strict=True):
        check(name, one, draw, contestant)
    seconds = seconds_a_call(draws, rounds)
    points: list[dict[str, Any]] = [
        {"vocabulary": v, "batch": b, "microseconds": measure.quantiles([1e6 * s for s in seconds[f"{v} {b}"]])}
        for v, b in sizes
    ]
    slope, fixed = fit([v * b for v, b in sizes], [point["microseconds"]["p50"] for point in points])
    return {
        "benchmark": "growth",
        "contestant": name,
        "filters": filters,
        "scan": scan,
        "points": points,
        "fit": {"us_per_thousand": float(f"{slope:.4g}"), "fixed_us": float(f"{fixed:.4g}")},
        "rounds": rounds,
        **measure.circumstances(),
    }


def contestants() -> dict[str, Any]:
    from bench.peers import OURS, PEERS

    return OURS | PEERS | {"reference": reference}


def reference(case: Any) -> Any:
    """The definition in NumPy, as a backend of the public entry."""
    import samplers
    from bench.peers import SEED

    rows = case.logits.numpy()
    return lambda step: samplers.sample(rows, case.params, seed=SEED, position=step, backend="reference").tokens


def check(name: str, case: Any, draw: Any, contestant: Any) -> None:
    """Raises: RuntimeError where what would be timed is wrong."""
    from bench.exactness.verify import verify, verify_integers
    from bench.peers import OURS

    if name in OURS:
        verify_integers(case, {name: draw})
    elif name != "reference" and case.vocabulary * case.batch <= CHECKED:
        for failed, reason in verify(case, {name: draw}, {name: contestant}).items():
            raise RuntimeError(f"{failed} {reason} ({case}); nothing was measured")


def fit(logits: Sequence[int], microseconds: Sequence[float]) -> tuple[float, float]:
    """Slope per thousand logits and fixed part of the line of least relative error.

    >>> slope, fixed = fit([1000, 10_000, 100_000], [12.0, 30.0, 210.0])
    >>> round(slope, 6), round(fixed, 6)
    (2.0, 10.0)
    """
    import numpy as np

    times = np.asarray(microseconds)
    columns = np.stack([np.asarray(logits) / 1000, np.ones(len(times))], axis=1) / times[:, None]
    slope, fixed = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)[0]
    return float(slope), float(fixed)


def show(record: dict[str, Any]) -> None:
    """The line that the scan came to, and its points."""
    slope, fixed = record["fit"]["us_per_thousand"], record["fit"]["fixed_us"]
    times = {point[record["scan"]]: plain(f"{point['microseconds']['p50']:,.3g}") for point in record["points"]}
    points = ", ".join(f"{size:,}: {time}" for size, time in times.items())
    print(f"{record['contestant']}, {record['filters']}, by {record['scan']}:")
    print(f"  {slope:.3g} µs per thousand logits {'+' if fixed >= 0 else '-'} {abs(fixed):.3g} µs fixed   ({points})")
