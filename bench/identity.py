"""`alea bench identity`: a backend beside the reference, integer by integer: all weights, and generated rows."""

from __future__ import annotations

import argparse
import time

from bench import measure
from samplers import DEFINITION, backends

HELP = "compare a backend with the definition to the bit: W of every float32; generated rows, kept set to token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=("native", "triton"), default="native")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true", help="append a record to bench/results/identity.jsonl")


def run(arguments: argparse.Namespace) -> int:
    if arguments.rows < 1:
        raise ValueError(f"--rows must be >= 1, got {arguments.rows}")
    from bench import compare, weights

    began = time.perf_counter()
    distances = weights.check(arguments.backend, every=1 if is_fast(arguments.backend) else 512)
    seconds = time.perf_counter() - began
    print(f"{distances:,} distances: {arguments.backend} has the definition's weights ({seconds:,.0f} s)", flush=True)
    began = time.perf_counter()
    compared = compare.check(arguments.backend, arguments.rows, arguments.seed)
    seconds = time.perf_counter() - began
    print(f"{compared:,} rows: {arguments.backend} equals the reference to the bit ({seconds:,.0f} s)")
    if arguments.save:
        record = {
            "benchmark": "identity",
            "backend": arguments.backend,
            "isa": isa(arguments.backend),
            "definition": DEFINITION,
            "distances": distances,
            "rows": compared,
            "seed": arguments.seed,
            "mismatches": 0,
            **measure.circumstances(),
        }
        print(f"saved to {measure.append('identity', [record])}")
    return 0


def is_fast(backend: str) -> bool:
    """Fast enough for all 1.1·10^9 distances: all but Triton's interpreter."""
    return backends()[backend] == "ok"


def isa(backend: str) -> str | None:
    from samplers import native

    if backend != "native":
        return backends()[backend]
    return str(native._native.isa_in_use())
