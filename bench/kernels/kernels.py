"""`alea bench kernels`: every Triton kernel compiled for GPUs that need not be here; its cost, and if it is exact."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from bench import measure, runner

HELP = "compile every Triton kernel without a GPU: registers, spills, instructions, and whether float32 is exact"
TARGETS: dict[str, tuple[str, int | str, int]] = {  # backend, architecture, threads of a warp
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
DTYPES = ("float32", "float16", "bfloat16")
EVEN, ODD = 32_000, 32_001  # vocabularies: where rows are divisible by 16, loads are of 16 bytes
CHANGES = (("bias",), ("allowed",), ("history",), ("bias", "allowed", "history"))  # what step 0 may have to do
FAULTS = ("spill_stores", "spill_loads", "contractible", "approximate", "flushing")
FUSED_IN_A_WEIGHT = 8
WEIGHS_NOTHING = ("maxima_kernel", "count_kernel", "penalise_kernel")
CAPTION = (
    "Compiled as the launcher launches them, in an empty cache. Registers of a thread and bytes that it spills: ptxas "
    "-v of the very binary. Fused: float32 multiply-adds in the PTX, eight a weight, as the definition has them. "
    "Inexact: float32 operations that could be fused besides, that approximate or flush subnormals. "
    "Instructions a logit: machine code of the loops over a row, along a turn's shortest way through and along its "
    "longest that lists no token. AMD, where nothing has run yet, is shown and not judged."
)


@dataclass(frozen=True)
class Variant:
    """A kernel, and what its machine code depends on."""

    kernel: str
    dtype: str = "float32"
    vocabulary: int = EVEN
    details: bool = False
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.dtype, *self.changes]
        return ", ".join(words + ["details"] * self.details + ["odd V"] * (self.vocabulary % 16 > 0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    targets = f"some of {', '.join(TARGETS)}; default all"
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="NAME", help=targets)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="that compile side by side; default 2")
    parser.add_argument("--json", action="store_true", help="print the records, one a line, and no table")
    runner.add_record_options(parser, "kernels", "each kernel once, for sm_90 in float32")


def run(arguments: argparse.Namespace) -> int:
    runner.check_names("targets", arguments.targets, TARGETS)
    runner.check_least(arguments, processes=1)
    targets = ["sm_90"] if arguments.quick else arguments.targets
    chosen = some_variants() if arguments.quick else variants()
    with closing(measured(chosen, targets, arguments.processes)) as found:
        records = runner.collect(
            "kernels",
            product(targets, chosen),
            lambda _: next(found) | measure.circumstances(),
            arguments.save,
            tell_in_json if arguments.json else tell,
        )
    if records and not arguments.json:
        show(records)
    return int(any(map(faults, records)))


def variants() -> list[Variant]:
    """All that the launcher launches."""
    rows = list(product(DTYPES, (EVEN, ODD)))
    drawing = product(("row_kernel", "choice_kernel"), rows, (False, True))
    return [
        *(Variant(kernel, *row, details) for kernel, row, details in drawing),
        *(Variant(kernel, *row) for kernel in ("maxima_kernel", "filtered_kernel") for row in rows),
        Variant("weights_kernel"),
        *(Variant("count_kernel", vocabulary=vocabulary, changes=("history",)) for vocabulary in (EVEN, ODD)),
        *(Variant("penalise_kernel", *row, changes=changes) for row in rows for changes in CHANGES),
    ]


def some_variants(dtype: str = "float32") -> list[Variant]:
    """Each kernel once, with all that it can do."""
    return [
        *(Variant(kernel, dtype, details=True) for kernel in ("row_kernel", "choice_kernel")),
        *(Variant(kernel, dtype) for kernel in ("maxima_kernel", "filtered_kernel")),
        *(Variant(kernel, dtype, changes=CHANGES[-1]) for kernel in ("count_kernel", "penalise_kernel")),
        Variant("weights_kernel"),
    ]


def measured(
    chosen: Sequence[Variant], targets: Sequence[str], processes: int = 1, **options: Any
) -> Generator[dict[str, Any], None, None]:
    """One record a variant and target, in order; `options` overrule the launcher's.

    In processes of their own, where Triton compiles even if it interprets in this one.
    """
    with tempfile.TemporaryDirectory() as cache:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=prepare, initargs=(cache,)) as pool:
            jobs = [pool.submit(record, variant, target, options) for target, variant in product(targets, chosen)]
            try:
                yield from (job.result() for job in jobs)
            finally:
                pool.shutdown(cancel_futures=True)  # what a Ctrl-C or a fault has left


def prepare(cache: str) -> None:
    """Before a process imports Triton."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends it without a traceback
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = cache


def record(variant: Variant, target: str, options: dict[str, Any]) -> dict[str, Any]:
    from triton.backends.compiler import GPUTarget

    from bench.kernels import compiled

    try:
        found = compiled.measured(variant, GPUTarget(*TARGETS[target]), **options)
    except Exception as error:
        if is_judged(target):
            raise RuntimeError(f"{variant.kernel} ({variant}) can't be compiled for {target}: {error}") from error
        found = {"unavailable": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    return {"benchmark": "kernels", "target": target, "triton": measure.installed("triton"), **asdict(variant), **found}


def is_judged(target: str) -> bool:
    return TARGETS[target][0] == "cuda"


def faults(record: dict[str, Any]) -> list[str]:
    """What must not be in a target that is judged: spilled bytes, inexact operations, fused ones of no weight."""
    if not is_judged(record["target"]):
        return []
    found = {name: record[name] for name in FAULTS} | {"fused": fused_elsewhere(record)}
    return [f"{name} {count}" for name, count in found.items() if count]


def fused_elsewhere(record: dict[str, Any]) -> int:
    """How many fused operations are no weight's; where weights are computed, up to a multiple of eight."""
    fused: int = record["fused"]
    if record["kernel"] in WEIGHS_NOTHING:
        return fused
    return fused - FUSED_IN_A_WEIGHT if record["kernel"] == "weights_kernel" else fused % FUSED_IN_A_WEIGHT


def tell(record: dict[str, Any]) -> None:
    """A line as soon as a kernel is compiled; the table comes at the end."""
    found = record.get("unavailable") or f"{record['registers']} registers"
    print(f"{named(record)}: {', '.join([found, *faults(record)])}")


def tell_in_json(record: dict[str, Any]) -> None:
    print(json.dumps(record))


def show(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"kernels, compiled by Triton {records[0]['triton']}", caption=CAPTION, caption_justify="left")
    for title in ("target", "kernel", "variant"):
        table.add_column(title)
    for title in ("registers", "spilled", "shared", "fused", "inexact", "instructions a logit", "seconds"):
        table.add_column(title, justify="right")
    for one in records:
        table.add_row(*cells(one))
    console = Console()
    console.print(table)
    for one in records:
        if faults(one):
            console.print(f"FAIL  {named(one)}: {', '.join(faults(one))}", markup=False, highlight=False)


def named(record: dict[str, Any]) -> str:
    return f"{record['target']}, {record['kernel']}, {variant_of(record)}"


def variant_of(record: dict[str, Any]) -> Variant:
    return Variant(*(record[name] for name in Variant.__dataclass_fields__))


def cells(record: dict[str, Any]) -> list[str]:
    first = [record["target"], record["kernel"], str(variant_of(record))]
    if "unavailable" in record:
        return [*first, record["unavailable"]]
    spilled, inexact = (sum(record[name] for name in names) for names in (FAULTS[:2], FAULTS[2:]))
    figures = (record["registers"], spilled, record["shared"], record["fused"], inexact)
    loops = [f"{name} {span(*ends)}" for name, ends in record.get("instructions_a_logit", {}).items()]
    return [*first, *(f"{value:,}" for value in figures), "\n".join(loops), f"{record['seconds']:.1f}"]


def span(least: float, most: float) -> str:
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
