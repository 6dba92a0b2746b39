"""`alea bench kernels`: every Triton kernel compiled for GPUs that need not be here; its cost, and if it is exact."""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict
from itertools import product
from typing import Any

from bench import runner
from bench.kernels.variants import COUNTED, TARGETS, Counted, Variant, one_of_each, variants
from bench.records import Record

FAULTS = ("spill_stores", "spill_loads", "contractible", "approximate", "flushing")
FUSED_IN_A_WEIGHT = 8
WEIGHS_NOTHING = ("maxima_kernel", "floors_kernel", "penalise_kernel")
CAPTION = (
    "Compiled as the launcher launches them, in an empty cache. Registers of a thread and bytes that it spills: ptxas "
    "-v of the very binary. Fused: float32 multiply-adds in the PTX, eight a weight, as the definition has them. "
    "Inexact: float32 operations that could be fused as well, that approximate or flush subnormals. "
    "Instructions a logit: machine code of the loops over a row; in parentheses the barriers in 32 logits of a thread. "
    "AMD, where nothing has run yet, is shown and not judged."
)
COUNTS_CAPTION = (
    "Of a draw from rows of 128,256 logits. host: 8 rows on a GPU that is not here, so launches do nothing: launches, "
    "allocations, torch's other operations but views, and the time as microseconds and as a multiple of torch.empty's. "
    "interpreted: one row; rounds of the search for the shortlist's limit, passes over the row after it is weighed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    targets = f"some of {', '.join(TARGETS)}; default all"
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="NAME", help=targets)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="that compile in parallel; default 2")
    parser.add_argument("--json", action="store_true", help="print the records, one a line, and no table")
    runner.add_record_options(parser, "kernels", "each kernel once, for sm_90 in float32")


def run(arguments: argparse.Namespace) -> int:
    runner.check_names("targets", arguments.targets, TARGETS)
    runner.check_least(arguments, processes=1)
    targets = ["sm_90"] if arguments.quick else arguments.targets
    chosen = one_of_each() if arguments.quick else variants()
    counting = [case for case in COUNTED if case.count == "host" or not arguments.quick]
    with closing(measured(chosen, targets, arguments.processes)) as compiled, closing(counted(counting)) as counts:
        found = itertools.chain(compiled, counts)
        cases = [*product(targets, chosen), *counting]
        records = runner.collect("kernels", cases, lambda _: next(found), arguments.save)
    if arguments.json:
        print("\n".join(map(json.dumps, records)))
    else:
        show(records)
    return int(any(map(faults, records)))


def show(records: list[Record]) -> None:
    kernels, draws = ([r for r in records if name in r] for name in ("kernel", "count"))
    if kernels:
        title = f"kernels, compiled by Triton {kernels[0]['versions']['triton']}"
        runner.print_table(title, table(kernels), CAPTION, left=3)
    for record in filter(faults, kernels):
        runner.say(f"FAIL  {name_of(record)}: {', '.join(faults(record))}")
    if draws:
        runner.print_table("a draw", counts_table(draws), COUNTS_CAPTION, left=3)


def counted(cases: Sequence[Counted]) -> Generator[Record, None, None]:
    """One record a case, in order; in other processes, of which the interpreting ones start as such."""
    context = multiprocessing.get_context("spawn")
    for count, alike in itertools.groupby(cases, lambda case: case.count):
        interprets = count == "interpreted"
        with ProcessPoolExecutor(1, context, initializer=prepare, initargs=(None, interprets)) as pool:
            yield from pool.map(count_of, list(alike))


def count_of(case: Counted) -> Record:
    from bench.kernels import counts

    return {**asdict(case), **(counts.host_work if case.count == "host" else counts.searches)(case)}


def counts_table(counts: list[Record]) -> runner.Rows:
    """A line a record; empty where a case does not count something."""
    figures = ["launches", "allocations", "operations", "microseconds", "times_empty", "search_rounds", "passes"]
    rows = [[c["count"], c["kind"], c["filters"], *(f"{c.get(name, ''):}" for name in figures)] for c in counts]
    return ["count", "rows", "filters", *(name.replace("_", " ") for name in figures)], rows


def measured(
    chosen: Sequence[Variant], targets: Sequence[str], processes: int = 1, **options: Any
) -> Generator[Record, None, None]:
    """One record a variant and target, in order; `options` overrule the launcher's.

    In other processes: Triton compiles there even if it interprets in this one.
    """
    with tempfile.TemporaryDirectory() as cache:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=prepare, initargs=(cache,)) as pool:
            jobs = [pool.submit(record_of, variant, target, options) for target, variant in product(targets, chosen)]
            try:
                yield from (job.result() for job in jobs)
            finally:
                pool.shutdown(cancel_futures=True)  # those that a Ctrl-C or a fault has left


def prepare(cache: str | None, interprets: bool = False) -> None:
    """Before a process imports Triton."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends it without a traceback
    os.environ.pop("TRITON_INTERPRET", None)
    if interprets:
        os.environ["TRITON_INTERPRET"] = "1"
    if cache is not None:
        os.environ["TRITON_CACHE_DIR"] = cache


def record_of(variant: Variant, target: str, options: dict[str, Any]) -> Record:
    from triton.backends.compiler import GPUTarget

    from bench.kernels import compiled

    try:
        found = compiled.measured(variant, GPUTarget(*TARGETS[target]), **options)
    except Exception as error:
        if is_judged(target):
            raise RuntimeError(f"{variant.kernel} ({variant}) can't be compiled for {target}: {error}") from error
        found = {"unavailable": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    return {"target": target, **asdict(variant), **found}


def is_judged(target: str) -> bool:
    return TARGETS[target][0] == "cuda"


def faults(record: Record) -> list[str]:
    """Spilled bytes, inexact operations and fused ones outside of weights, on a target that is judged."""
    if "target" not in record or not is_judged(record["target"]):
        return []
    found = {name: record[name] for name in FAULTS} | {"fused": fused_elsewhere(record)}
    return [f"{name} {count}" for name, count in found.items() if count]


def fused_elsewhere(record: Record) -> int:
    """Fused operations outside of weights; where weights are computed, up to a multiple of eight."""
    fused: int = record["fused"]
    if record["kernel"] in WEIGHS_NOTHING:
        return fused
    return fused - FUSED_IN_A_WEIGHT if record["kernel"] == "weights_kernel" else fused % FUSED_IN_A_WEIGHT


def table(records: list[Record]) -> runner.Rows:
    """A line a record."""
    headings = ["target", "kernel", "variant", "registers", "spilled", "shared", "fused", "inexact"]
    return [*headings, "instructions a logit", "seconds"], [cells(record) for record in records]


def name_of(record: Record) -> str:
    return f"{record['target']}, {record['kernel']}, {variant_of(record)}"


def variant_of(record: Record) -> Variant:
    return Variant(*(record[name] for name in Variant.__dataclass_fields__))


def cells(record: Record) -> list[str]:
    first = [record["target"], record["kernel"], str(variant_of(record))]
    if "unavailable" in record:
        return [*first, record["unavailable"]]
    spilled, inexact = (sum(record[name] for name in names) for names in (FAULTS[:2], FAULTS[2:]))
    figures = (record["registers"], spilled, record["shared"], record["fused"], inexact)
    loops = [f"{n} {c['instructions']:g} ({c['barriers']:g})" for n, c in record.get("loops", {}).items()]
    if "whole" in record:
        loops.append(f"in all {record['whole']:g}")
    return [*first, *(f"{value:,}" for value in figures), "\n".join(loops), f"{record['seconds']:.1f}"]


STEPS = {"maxima_kernel": "step 1, maxima", "weigh_kernel": "step 3, weights", "one_read_kernel": "both, in one read"}


def reads_rows(record: Record) -> bool:
    """Whether the record is of a kernel in `STEPS`, in the variant that all batches but the smallest take."""
    is_plain = not record["details"] and not record["changes"] and record.get("purpose") == ""
    return record["kernel"] in STEPS and is_plain and record["vocabulary"] % 16 == 0


def loops_table(found: list[Record]) -> runner.Rows:
    """For the docs: a line a kernel that reads rows, a column a figure and dtype."""
    lines = []
    for kernel, name in STEPS.items():
        of_kernel = {record["dtype"]: record for record in found if record["kernel"] == kernel}
        cells = [instructions_of(of_kernel[dtype]) for dtype in ("float32", "bfloat16")]
        barriers = [f"{loop['barriers']:g}" for loop in of_kernel["float32"]["loops"].values()]
        lines.append([name, *cells, *(barriers or ["–"]), f"{of_kernel['float32']['registers']}"])
    return ["loop", "float32", "bfloat16", "barriers", "registers"], lines


def instructions_of(record: Record) -> str:
    (instructions,) = [loop["instructions"] for loop in record["loops"].values()] or [record["whole"]]
    return f"{instructions:g}"


def draws_table(found: list[Record]) -> runner.Rows:
    """For the docs: what a draw costs besides, by rows and filters."""
    figures = ("launches", "allocations", "operations", "times_empty", "search_rounds", "passes")
    cells: dict[tuple[str, str], Record] = {}
    for record in found:
        cells.setdefault((record["kind"], record["filters"]), {}).update(record)
    lines = [[*case, *(f"{record[n]:g}" if n in record else "–" for n in figures)] for case, record in cells.items()]
    return ["rows", "filters", "launches", "allocations", "other operations", "host time", "rounds", "passes"], lines
