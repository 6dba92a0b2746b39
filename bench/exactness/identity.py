"""`alea bench identity`: a backend beside the reference, integer by integer: all weights, and generated rows."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from bench import measure, runner

HELP = "compare a backend with the definition to the bit: W of every float32; generated rows, kept set to token"
PART = 1_000  # rows compared at a time, so that a Ctrl-C leaves those before it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=("native", "triton"), default="native")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true", help="append a record to bench/results/identity.jsonl")


def run(arguments: argparse.Namespace) -> int:
    from samplers.backends import implementation

    runner.check_least(arguments, rows=1)
    for backend in (arguments.backend, "native"):  # which has the fused operations that all weights are held to
        implementation(backend, on_gpu=False)
    began = time.perf_counter()
    records = runner.collect("identity", parts(arguments), partial(checked, arguments), False, lambda _: None)
    distances, compared = (sum(record[what] for record in records) for what in ("distances", "rows"))
    seconds = time.perf_counter() - began
    print(f"{distances:,} distances: {arguments.backend} has the weights of the definition, to the bit")
    print(f"{compared:,} rows: {arguments.backend} equals the reference to the bit ({seconds:,.0f} s in all)")
    if arguments.save and (distances or compared):
        from bench.exactness.compare import ways
        from samplers import DEFINITION

        record = {
            "benchmark": "identity",
            "backend": arguments.backend,
            "ways": list(ways(arguments.backend)),
            "definition": DEFINITION,
            "distances": distances,
            "rows": compared,
            "seed": arguments.seed,
            "mismatches": 0,
            **measure.circumstances(),
        }
        print(f"saved to {measure.append('identity', [record])}")
    return 0


def parts(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """All distances, of which Triton's interpreter could not do so many, then the rows: (what, where it begins)."""
    from bench.exactness import weights
    from samplers import backends

    chunks = weights.chunks(every=1 if backends()[arguments.backend] == "ok" else 512)
    return [("distances", start) for start in chunks] + [("rows", first) for first in range(0, arguments.rows, PART)]


def checked(arguments: argparse.Namespace, part: tuple[str, int]) -> dict[str, Any]:
    """How many distances, or rows, of a part were equal; its rows are generated from a seed of its own."""
    from bench.exactness import compare, weights

    what, first = part
    if what == "distances":
        return {"distances": weights.check(arguments.backend, first), "rows": 0}
    rows, seed = min(PART, arguments.rows - first), arguments.seed + (first << 64)
    return {"distances": 0, "rows": compare.check(arguments.backend, rows, seed)}
