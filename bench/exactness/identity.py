"""`alea bench identity`: a backend compared with the reference, integer by integer: all weights, and generated rows."""

from __future__ import annotations

import argparse
import time
from functools import partial

from bench import records, runner
from bench.records import Record
from samplers import DEFINITION, backends
from samplers.backends import implementation
from samplers.identity import draws, weights

PART = 1_000  # rows compared at a time; a Ctrl-C keeps the parts before it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=("native", "triton"), default="native")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true", help="append a record to bench/results/identity.jsonl")


def run(arguments: argparse.Namespace) -> int:
    runner.check_least(arguments, rows=1)
    for backend in (arguments.backend, "native"):  # native has the fused operations that all weights are compared with
        implementation(backend, on_gpu=False)
    began = time.perf_counter()
    found = runner.collect("identity", parts(arguments), partial(compared, arguments), save=False)
    distances, rows = (sum(record[figure] for record in found) for figure in ("distances", "rows"))
    seconds = time.perf_counter() - began
    print(f"{distances:,} distances: {arguments.backend} has the weights of the definition, to the bit")
    print(f"{rows:,} rows: {arguments.backend} equals the reference to the bit ({seconds:,.0f} s in all)")
    if arguments.save and (distances or rows):
        figures = {
            "backend": arguments.backend,
            "ways": list(draws.ways(arguments.backend)),
            "definition": DEFINITION,
            "distances": distances,
            "rows": rows,
            "seed": arguments.seed,
            "mismatches": 0,
        }
        print(f"saved to {records.append('identity', records.with_provenance('identity', figures))}")
    return 0


def parts(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """All distances (a sample, where Triton is interpreted), then the rows: (figure, first)."""
    chunks = weights.chunks(every=1 if backends()[arguments.backend] == "ok" else 512)
    return [("distances", start) for start in chunks] + [("rows", first) for first in range(0, arguments.rows, PART)]


def compared(arguments: argparse.Namespace, part: tuple[str, int]) -> Record:
    """The number of distances, or of rows, that were equal; each part has a seed for its rows."""
    figure, first = part
    if figure == "distances":
        return {"distances": weights.check(arguments.backend, first), "rows": 0}
    rows, seed = min(PART, arguments.rows - first), arguments.seed + (first << 64)
    return {"distances": 0, "rows": draws.check(arguments.backend, rows, seed)}
