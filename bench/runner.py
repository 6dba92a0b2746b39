"""What benchmarks share: options, a progress bar on stderr, records that a Ctrl-C leaves in place, and a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from bench import measure

Case = TypeVar("Case")
WIDTH = 110  # of a table in a file or pipe, for which rich would take 80
Record = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, name: str, quick: str, rounds: int = 21) -> None:
    """--rounds, --threads, --quick and --save; quick says what it leaves."""
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"default {rounds}")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch; default 1")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--save", action="store_true", help=f"append the records to bench/results/{name}.jsonl")


def check_options(arguments: argparse.Namespace, rounds: int = 2, **more: int) -> None:
    """At least so many rounds, one thread, and what more names with its least value.

    Raises: ValueError naming the option.
    """
    for name, least in {"rounds": rounds, "threads": 1, **more}.items():
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be >= {least}, got {getattr(arguments, name)}")


def check_names(option: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises: ValueError naming the option."""
    for name in names:
        if name not in known:
            raise ValueError(f"--{option} must be of {', '.join(known)}, got {name!r}")


def collect(
    name: str, cases: Iterable[Case], measured: Callable[[Case], Record | None], save: bool, show: Callable[..., None]
) -> list[Record]:
    """Measure case by case; each record is shown and, with save, written as soon as it is there.

    A case that measures to None is left out. After a Ctrl-C, what was measured stands.
    """
    from rich.console import Console
    from rich.progress import Progress

    chosen, records = list(cases), []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=len(chosen))
        try:
            for case in chosen:
                progress.update(task, description=f"{name}: {case}")
                record = measured(case)
                if record is not None:
                    records.append(record)
                    if save:
                        measure.append(name, [record])
                    progress.stop()  # off the screen while something else is printed
                    show(record)
                    progress.start()
                progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print(f"stopped: {len(records)} of {len(chosen)} cases were measured")
    if save:
        print(f"saved {len(records)} records to {measure.RESULTS / name}.jsonl")
    return records


def print_table(title: str, headings: list[str], rows: list[list[str]], caption: str) -> None:
    """Rows below their headings, the first column to the left, the others to the right; the caption below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else WIDTH)
    console.print(table)
    console.print(caption, highlight=False)
