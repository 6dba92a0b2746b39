"""`alea bench identity`: a backend beside the reference on generated rows, integer by integer; `make identity`."""

from __future__ import annotations

import argparse
import time

from bench import measure

HELP = "compare a backend with the reference on generated rows: kept set, weight, total, kept, token to the bit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=("native", "triton"), default="native")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true", help="append a record to bench/results/identity.jsonl")


def run(arguments: argparse.Namespace) -> int:
    if arguments.rows < 1:
        raise ValueError(f"--rows must be >= 1, got {arguments.rows}")
    from bench.compare import check

    began = time.perf_counter()
    compared = check(arguments.backend, arguments.rows, arguments.seed)
    seconds = time.perf_counter() - began
    print(f"{compared:,} rows: {arguments.backend} equals the reference to the bit ({seconds:,.0f} s)")
    if arguments.save:
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


def isa(backend: str) -> str | None:
    from samplers import backends, native

    if backend != "native":
        return backends()[backend]
    return str(native._native.isa_in_use())
