"""`alea bench load`: seconds and memory of loading a checkpoint made on the spot, by our loader and transformers'."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from bench import runner
from bench.loading.checkpoints import BYTES, SHAPES, STORED, Checkpoints, count, llama_of_transformers
from bench.loading.fresh_process import in_fresh_process
from bench.loading.loaders import LOADERS, check_logits, skipped
from bench.loading.memory import (
    MIB,
    available_mib,
    count_weights,
    forget_peak,
    read_pages,
    resident_mib,
    weight_tensors,
)
from bench.loading.schemes import ARITHMETIC_CAPTION, SCHEMES, arithmetic_table, weights_mib
from bench.records import Record, quantiles
from bench.speed.timing import in_turn
from model.loading.checkpoint import stored_dtype, tensor_homes

Case = tuple[str, str]  # the shape of a checkpoint, the scheme that it is loaded in

OVERHEAD_MIB = 1024  # Python with torch and transformers, and the tensor that is written or read
CHECKED = 200_000_000  # parameters up to which the logits are compared
FIGURES = ("seconds", "ready_seconds", "peak_mib", "resident_mib", "token_cpu_seconds", "running_mib")
CAPTION = (
    "alea / transformers; each load in a fresh process, with everything imported and a small model "
    "loaded before. The file was just written and is read from the page cache, not from a disk. Load: until "
    "from_pretrained returns. Ready: until every page of the weights has been read as well; transformers leaves "
    "weights in the stored dtype in the mapped file, to be read when they are used. Peak: of resident memory until "
    "ready, above that before the load; pages of a mapped file count while they are mapped, and a few MiB are noise, "
    "as memory freed before is used again. A tied lm_head counts once"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shapes, dtypes = ["tiny", "storyteller", "110M"], ["float32", "bfloat16"]
    for option, known, default in (("--shapes", SHAPES, shapes), ("--dtypes", SCHEMES, dtypes)):
        names = f"some of {', '.join(known)}; default {' '.join(default)}"
        parser.add_argument(option, nargs="+", default=default, metavar="NAME", help=names)
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), metavar="NAME", help="default both of them")
    stored = f"dtype of the generated files, {' or '.join(STORED)}; default {STORED[0]}"
    parser.add_argument("--stored", default=STORED[0], metavar="NAME", help=stored)
    arithmetic = "only the memory that Llama-2-7B's weights need, by arithmetic"
    parser.add_argument("--arithmetic", action="store_true", help=arithmetic)
    runner.add_options(parser, "load", "two rounds of tiny and storyteller", rounds=3)


def run(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        arguments.rounds, arguments.shapes = 2, ["tiny", "storyteller"]
    runner.check_options(arguments, rounds=1)
    runner.check_names("shapes", arguments.shapes, SHAPES)
    runner.check_names("dtypes", arguments.dtypes, SCHEMES)
    runner.check_names("loaders", arguments.loaders, LOADERS)
    runner.check_names("stored", [arguments.stored], STORED)
    records = [] if arguments.arithmetic else measured(arguments)
    if records:
        runner.print_table("load, alea / transformers", table(records), f"{CAPTION}.")
    runner.print_table("Llama-2-7B's weights, MiB", arithmetic_table(), ARITHMETIC_CAPTION)
    return 0


def measured(arguments: argparse.Namespace) -> list[Record]:
    """One record a case; the generated files are removed afterwards, whatever happened."""
    cases = list(product(arguments.shapes, arguments.dtypes))
    check_space(cases, arguments.stored)
    llama_of_transformers()  # before there are files: a Ctrl-C during an import ends the process
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="alea-load-") as home:
        checkpoints = Checkpoints(Path(home), arguments.stored)
        measure = partial(measured_case, checkpoints=checkpoints, arguments=arguments)
        return runner.collect("load", cases, measure, arguments.save)


def check_space(cases: Iterable[Case], stored: str) -> None:
    """Refuses a shape that disk or memory can't hold, before anything is generated."""
    folder = Path(tempfile.gettempdir())
    disk, memory = shutil.disk_usage(folder).free / MIB, available_mib()
    for shape, dtype in cases:
        file = count(SHAPES[shape]) * BYTES[stored] / MIB
        if shape != "storyteller" and file > disk:
            raise ValueError(
                f"--shapes {shape} needs {file:,.0f} MiB of disk as {stored}; {disk:,.0f} MiB are free "
                f"in {folder} (TMPDIR names another folder)"
            )
        # Pages of the file that find no room are read from the disk again.
        needed = max(file, weights_mib(SHAPES[shape], dtype)) + OVERHEAD_MIB
        if needed > memory:
            raise ValueError(
                f"--shapes {shape} needs {needed:,.0f} MiB of memory in {dtype}; {memory:,.0f} MiB are available"
            )


def measured_case(case: Case, checkpoints: Checkpoints, arguments: argparse.Namespace) -> Record:
    """First the loaders are verified, then each is timed once a round."""
    shape, dtype = case
    folder, without = checkpoints.folder(shape), skipped(arguments.loaders, dtype)
    names = [name for name in LOADERS if name not in without]
    if count(SHAPES[shape]) <= CHECKED and len(names) > 1:
        in_fresh_process(check_logits, folder, dtype)
    loads: dict[str, list[Record]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in in_turn(names, number):
            load = in_fresh_process(timed, name, folder, dtype, checkpoints.warm_up, arguments.threads)
            check_size(case, name, load)
            loads[name].append(load)
    return {
        "shape": shape,
        "parameters": count(SHAPES[shape]),
        "stored": str(stored_dtype(tensor_homes(folder))).removeprefix("torch."),
        "dtype": dtype,
        "rounds": arguments.rounds,
        **{figure: by_loader(loads, figure) for figure in FIGURES},
        "weights_mib": weights_mib(SHAPES[shape], dtype),
        "skipped": without,
    }


def by_loader(loads: dict[str, list[Record]], figure: str) -> dict[str, dict[str, float]]:
    """Quantiles over the rounds, of the loaders that have the figure."""
    return {name: quantiles([load[figure] for load in rounds]) for name, rounds in loads.items() if figure in rounds[0]}


def timed(name: str, folder: Path, dtype: str, warm_up: Path, threads: int) -> Record:
    """In a fresh process: seconds, memory and size of a load, after a small model's to pay for the first time."""
    torch.set_num_threads(threads)
    scheme = SCHEMES[dtype]
    read_pages(LOADERS[name](warm_up, scheme))
    forget_peak()
    before = resident_mib("VmRSS")
    began = time.perf_counter()
    llama = LOADERS[name](folder, scheme)
    loaded = time.perf_counter()
    read_pages(llama)
    ready = time.perf_counter()
    found = {
        "seconds": loaded - began,
        "ready_seconds": ready - began,
        "peak_mib": resident_mib("VmHWM") - before,
        "resident_mib": resident_mib("VmRSS") - before,
        "parameters": count_weights(llama),
        "weights_mib": sum(tensor.numel() * tensor.element_size() for tensor in weight_tensors(llama)) / MIB,
    }
    return found | (running(llama, before) if name == "alea" else {})


def running(llama: Any, before: float) -> Record:
    """CPU seconds of a pass of one token, the least of three after one that packs quantized weights; memory then."""
    seconds = []
    with torch.inference_mode():
        for _ in range(4):
            began = time.process_time()  # of this process alone
            llama(torch.tensor([[1]]))
            seconds.append(time.process_time() - began)
    return {"token_cpu_seconds": min(seconds[1:]), "running_mib": resident_mib("VmRSS") - before}


def check_size(case: Case, name: str, load: Record) -> None:
    """Refuses another model than the one that was asked for."""
    shape, dtype = case
    parameters, size = count(SHAPES[shape]), weights_mib(SHAPES[shape], dtype)
    if (load["parameters"], load["weights_mib"]) != (parameters, size):
        raise RuntimeError(
            f"{name} must load {parameters:,} parameters, {size:,.1f} MiB ({shape}, {dtype}), "
            f"got {load['parameters']:,}, {load['weights_mib']:,.1f} MiB"
        )


def table(records: Iterable[Record]) -> runner.Rows:
    """A line a case, the figures of all loaders in one cell."""
    headings = ["shape", "parameters", "stored", "loaded as", "weights, MiB", "load, s", "ready, s", "peak, MiB"]
    return headings, [
        [
            record["shape"],
            f"{record['parameters']:,}",
            record["stored"],
            record["dtype"],
            f"{record['weights_mib']:,.1f}",
            *(medians(record[figure]) for figure in ("seconds", "ready_seconds", "peak_mib")),
        ]
        for record in records
    ]


def medians(figures: dict[str, dict[str, float]]) -> str:
    """One cell for all loaders.

    >>> medians({"alea": {"p50": 0.01234}, "transformers": {"p50": 1234.5}})
    '0.0123 / 1,234'
    """
    cells = [figures[name]["p50"] if name in figures else None for name in LOADERS]
    return " / ".join("–" if cell is None else f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}" for cell in cells)
