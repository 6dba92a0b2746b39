"""`alea bench isa`: the cost of a draw with each instruction set that the C++ backend has passes for."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from bench import runner
from bench.cases import Case
from bench.exactness.verify import verify_integers
from bench.peers.alea import kernel
from bench.peers.base import DrawTokens
from bench.records import Record
from bench.speed.timing import interleaved, microseconds
from samplers.backends import implementation

VOCABULARY, KINDS, FILTERS = 128_256, ("peaked", "normal"), ("none", "p.9", "k50+p.9")
CAPTION = f"Microseconds a row of {VOCABULARY:,} logits at T = 0.8, in parentheses as a multiple of the first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    runner.add_options(parser, "isa", "three rounds", rounds=101)


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    implementation("native", on_gpu=False)  # or says why it can't run
    torch.set_num_threads(arguments.threads)
    cases = [Case(kind, VOCABULARY, filters=filters) for kind in KINDS for filters in FILTERS]
    measure = partial(measured, rounds=3 if arguments.quick else arguments.rounds)
    records = runner.collect("isa", cases, measure, arguments.save)
    if records:
        runner.print_table("by instruction set", table(records), f"{CAPTION}.", left=2)
    return 0


def measured(case: Case, rounds: int) -> Record:
    """Each instruction set is compared with the reference first."""
    from samplers import _native

    draw = kernel(case)
    draws = {isa: partial(draw_with, isa, draw) for isa in _native.available_isas()}
    try:
        for isa, draw_so in draws.items():
            verify_integers(case, {isa: draw_so})
        seconds = interleaved({isa: partial(draw_so, 0) for isa, draw_so in draws.items()}, rounds)
    finally:
        _native.use_isa("auto")
    return {**asdict(case), "microseconds": microseconds(seconds), "rounds": rounds}


def draw_with(isa: str, draw: DrawTokens, step: int) -> Any:
    from samplers import _native

    _native.use_isa(isa)
    return draw(step)


def table(records: list[Record]) -> runner.Rows:
    """A line a case: medians by instruction set, also as multiples of the best one's."""
    isas = list(records[0]["microseconds"])
    lines = []
    for record in records:
        medians = [record["microseconds"][isa]["p50"] for isa in isas]
        cells = [f"{median:,.0f} ({median / medians[0]:.1f} ×)" for median in medians]
        lines.append([record["kind"], record["filters"], *cells])
    return ["rows", "filters", *isas], lines
