"""`alea bench identity`: a backend beside the reference on generated rows, integer by integer; `make identity`."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from bench import measure, runner

HELP = "compare a backend with the reference on generated rows: kept set, weight, total, kept, token to the bit"
PART = 1_000  # rows compared at a time, so that a Ctrl-C leaves those before it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=("native", "triton"), default="native")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true", help="append a record to bench/results/identity.jsonl")


def run(arguments: argparse.Namespace) -> int:
    runner.check_least(arguments, rows=1)
    began = time.perf_counter()
    parts = range(0, arguments.rows, PART)
    records = runner.collect("identity", parts, partial(checked, arguments), False, lambda _: None)
    compared, seconds = sum(record["rows"] for record in records), time.perf_counter() - began
    print(f"{compared:,} rows: {arguments.backend} equals the reference to the bit ({seconds:,.0f} s)")
    if arguments.save and compared:
        record = {
            "benchmark": "identity",
            "backend": arguments.backend,
            "isa": isa(arguments.backend),
            "rows": compared,
            "seed": arguments.seed,
            "mismatches": 0,
            **measure.circumstances(),
        }
        print(f"saved to {measure.append('identity', [record])}")
    return 0


def checked(arguments: argparse.Namespace, first: int) -> dict[str, Any]:
    """How many rows of a part were equal, which are generated from a seed of its own."""
    from bench.compare import check

    rows, seed = min(PART, arguments.rows - first), arguments.seed + (first << 64)
    return {"rows": check(arguments.backend, rows, seed)}


def isa(backend: str) -> str | None:
    from samplers import backends, native

    if backend != "native":
        return backends()[backend]
    return str(native._native.isa_in_use())
