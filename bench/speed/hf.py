"""`alea bench hf`: the cost of sampling in a step of transformers' generate, by itself (stock) and by us (attached)."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from typing import Any

import torch

from bench import runner
from bench.cases import CHAINS, Case
from bench.records import Record, three_digits
from bench.speed import goals

CAPTION = (
    "stock / attached. µs: from the step's float32 logits to the next tokens, as in "
    "generate's loop, over and over on the same peaked rows, so with warm caches; inside: in generate itself, where "
    "the model has just used them. Operators: all that torch's profiler sees, also those within others, the fused "
    "call being one; in parentheses those that compute, without views and allocations. Syncs: calls that would wait "
    "for a GPU. ms: a step of the whole generate, by a Llama of two layers and width 64"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = "default 32000 128256"
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help=sizes)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="B", help="default 1 8 32")
    chains = f"some of {', '.join(CHAINS)}; default all of them"
    parser.add_argument("--chains", nargs="+", default=list(CHAINS), metavar="NAME", help=chains)
    runner.add_options(parser, "hf", "three rounds of the first vocabulary and batch size")
    parser.add_argument("--check", action="store_true", help="say whether the goal holds; exit 1 if not")


def run(arguments: argparse.Namespace) -> int:
    from bench.speed import hf_step  # needs transformers

    runner.check_options(arguments)
    runner.check_names("chains", arguments.chains, CHAINS)
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
    torch.set_num_threads(arguments.threads)
    rows = [Case("peaked", v, b) for v, b in product(arguments.vocabulary, arguments.batch)]  # checks them all
    measure = partial(hf_step.measured, rounds=arguments.rounds)
    records = runner.collect("hf", product(rows, arguments.chains), measure, arguments.save)
    if records:
        runner.print_table("stock / attached", table(records), f"{CAPTION}.", left=0)
    return goals.check("hf", records) if arguments.check else 0


def table(records: list[Record]) -> runner.Rows:
    """A line a case."""
    return ["batch", "V", "chain", "µs", "ratio", "inside, µs", "operators", "syncs", "ms"], [
        [
            str(record["batch"]),
            f"{record['vocabulary']:,}",
            record["chain"],
            medians(record["microseconds"]),
            f"{ratio(record):.0f} ×",
            medians(record["microseconds_inside"]),
            operators(record),
            both(record["host_syncs"]),
            medians(record["generate_ms_a_step"]),
        ]
        for record in records
    ]


def ratio(record: Record) -> float:
    return record["microseconds"]["stock"]["p50"] / record["microseconds"]["attached"]["p50"]


def operators(record: Record) -> str:
    """All of them, in parentheses those that compute."""
    return both({name: f"{n} ({record['computing_operators'][name]})" for name, n in record["operators"].items()})


def medians(figures: Record) -> str:
    return both({name: three_digits(q["p50"]) for name, q in figures.items()})


def both(figures: dict[str, Any]) -> str:
    return f"{figures['stock']} / {figures['attached']}"
