"""The one runner of all benchmarks: options, a progress bar, records that survive a Ctrl-C, and tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import records
from bench.records import Record
from model.commands.terminal import console

Case = TypeVar("Case")
Rows = tuple[list[str], list[list[str]]]  # of a table: headings and cells


def add_options(parser: argparse.ArgumentParser, name: str, quick: str, rounds: int = 21) -> None:
    """--rounds, --threads, --quick and --save, of timings."""
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"default {rounds}")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch; default 1")
    add_record_options(parser, name, quick)


def add_record_options(parser: argparse.ArgumentParser, name: str, quick: str) -> None:
    """--quick, whose help is given, and --save."""
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--save", action="store_true", help=f"append the records to bench/results/{name}.jsonl")


def check_options(arguments: argparse.Namespace, rounds: int = 2, **least: int) -> None:
    """Checks --rounds, --threads and the options named in `least` against their least values.

    Raises: ValueError naming the option.
    """
    check_least(arguments, rounds=rounds, threads=1, **least)


def check_least(arguments: argparse.Namespace, **least: int) -> None:
    """Raises: ValueError naming the option; None, a value that was not given, passes."""
    for name, bound in least.items():
        value = getattr(arguments, name)
        if value is not None and value < bound:
            raise ValueError(f"--{name.replace('_', '-')} must be >= {bound}, got {value}")


def check_names(option: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises: ValueError naming the option."""
    for name in names:
        if name not in known:
            raise ValueError(f"--{option} must be among {', '.join(known)}, got {name!r}")


def collect(
    name: str,
    cases: Iterable[Case],
    measure: Callable[[Case], Record | None],
    save: bool,
    show: Callable[[Record], object] = lambda record: None,
    folder: Path | None = None,
) -> list[Record]:
    """Measure case by case; each record is saved, if asked for, and shown as soon as it is complete.

    The reasons why peers were not measured are printed in the end.

    measure: returns the figures of a case, or None to leave the case out; their provenance is added here.
    folder: of the saved records; default `records.RESULTS`.
    Returns: the records; after a Ctrl-C, those until then.
    """
    chosen, found = list(cases), list[Record]()
    stderr = Console(stderr=True)
    with Progress(console=stderr, transient=True, redirect_stdout=False, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(name, total=len(chosen))
        try:
            for case in chosen:
                progress.update(task, description=f"{name}: {in_words(case)}")
                figures = measure(case)
                if figures is not None:
                    record = records.with_provenance(name, figures)
                    found.append(record)
                    if save:
                        records.append(name, record, folder)
                    progress.stop()  # off the screen while something else is printed
                    show(record)
                    progress.start()
                progress.advance(task)
        except KeyboardInterrupt:
            stderr.print(f"stopped: {len(found)} of {len(chosen)} cases were measured")
    for line in left_out(found):
        say(line)
    if save:
        print(f"saved {len(found)} records to {(folder or records.RESULTS) / name}.jsonl")
    return found


def left_out(found: Iterable[Record]) -> list[str]:
    """The peers that were not measured, and why, each reason once."""
    peers = ((word, record.get(word, {})) for record in found for word in ("skipped", "failed"))
    return list(dict.fromkeys(f"{word}: {name} ({why})" for word, reasons in peers for name, why in reasons.items()))


def in_words(case: Any) -> str:
    """
    >>> in_words(("sm_90", 8))
    'sm_90, 8'
    """
    return ", ".join(map(str, case)) if isinstance(case, tuple) else str(case)


def print_table(title: str, rows: Rows, caption: str = "", left: int = 1) -> None:
    """Cells below their headings, the first `left` columns to the left, the others to the right; the caption below."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    headings, lines = rows
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="left" if column < left else "right")
    for cells in lines:
        table.add_row(*cells)
    console().print(table)
    if caption:
        say(caption)


def say(text: str) -> None:
    """A paragraph on stdout."""
    console().print(text)
