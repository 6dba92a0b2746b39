"""What benchmarks share: options, a progress bar on stderr, records that a Ctrl-C leaves in place, and a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from bench import measure

Case = TypeVar("Case")
WIDTH = 110  # of a table in a file or pipe, for which rich would take 80
Record = dict[str, Any]


def add_options(
    parser: argparse.ArgumentParser, name: str, quick: str, rounds: int = 21, threads: int | None = 1
) -> None:
    """--rounds, --threads, --quick and --save, for what is timed; threads None: as many as torch takes."""
    chosen = "its own choice" if threads is None else threads
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"default {rounds}")
    parser.add_argument("--threads", type=int, default=threads, metavar="N", help=f"of torch; default {chosen}")
    add_record_options(parser, name, quick)


def add_record_options(parser: argparse.ArgumentParser, name: str, quick: str) -> None:
    """--quick, which says what it leaves, and --save."""
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--save", action="store_true", help=f"append the records to bench/results/{name}.jsonl")


def check_options(arguments: argparse.Namespace, rounds: int = 2, **more: int) -> None:
    """At least so many rounds, one thread, and what more names with its least value.

    Raises: ValueError naming the option.
    """
    check_least(arguments, rounds=rounds, threads=1, **more)


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
                progress.update(task, description=f"{name}: {in_words(case)}")
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


def in_words(case: Any) -> str:
    """
    >>> in_words(("sm_90", 8))
    'sm_90, 8'
    """
    return ", ".join(map(str, case)) if isinstance(case, tuple) else str(case)


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
