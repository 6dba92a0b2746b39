"""`alea bench isa`: what a draw costs with each instruction set that the C++ backend has passes for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import measure, runner

HELP = "the C++ backend's time by instruction set: AVX-512, AVX2 with FMA, and the baseline, which has no fma"
VOCABULARY, KINDS, FILTERS = 128_256, ("peaked", "normal"), ("none", "p.9", "k50+p.9")
HEADINGS = ["rows", "filters"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    runner.add_options(parser, "isa", "three rounds", rounds=101)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from bench.rows import Case
    from samplers.backends import implementation

    runner.check_options(arguments)
    implementation("native", on_gpu=False)
    torch.set_num_threads(arguments.threads)
    rounds = 3 if arguments.quick else arguments.rounds
    cases = [Case(kind, VOCABULARY, filters=filters) for kind in KINDS for filters in FILTERS]
    records = runner.collect("isa", cases, partial(measured, rounds=rounds), arguments.save, lambda _: None)
    if not records:
        return 0
    headings, table = rows(records)
    caption = f"µs a row of V = {VOCABULARY:,}, in parentheses × the first; hot caches, medians of interleaved rounds."
    runner.print_table("by instruction set", headings, table, caption)
    return 0


def measured(case: Any, rounds: int) -> dict[str, Any]:
    """The record of a case; each instruction set is held to the reference first."""
    from bench.exactness.verify import verify_integers
    from bench.peers.alea import kernel
    from samplers import _native

    draw = kernel(case)
    draws = {isa: partial(draw_with, isa, draw) for isa in _native.available_isas()}
    try:
        for isa, one in draws.items():
            verify_integers(case, {isa: one})
        steps = {isa: partial(one, 0) for isa, one in draws.items()}
        seconds = measure.interleaved(steps, rounds)
    finally:
        _native.use_isa("auto")
    return {
        "benchmark": "isa",
        "kind": case.kind,
        "vocabulary": case.vocabulary,
        "filters": case.filters,
        "microseconds": {isa: measure.quantiles([1e6 * s for s in times]) for isa, times in seconds.items()},
        "rounds": rounds,
        **measure.circumstances(),
    }


def draw_with(isa: str, draw: Callable[[int], Any], step: int) -> Any:
    from samplers import _native

    _native.use_isa(isa)
    return draw(step)


def rows(records: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line a case: medians by instruction set, as multiples of the best one's too."""
    isas = list(records[0]["microseconds"])
    lines = []
    for record in records:
        medians = [record["microseconds"][isa]["p50"] for isa in isas]
        cells = [f"{median:,.0f} ({median / medians[0]:.1f} ×)" for median in medians]
        lines.append([record["kind"], record["filters"], *cells])
    return [*HEADINGS, *isas], lines
