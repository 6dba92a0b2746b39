"""What all benchmarks share: their options, a progress bar on stderr, and records that a Ctrl-C leaves in place."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from bench import measure

Case = TypeVar("Case")
Record = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, name: str, quick: str, rounds: int = 21) -> None:
    """--rounds, --threads, --quick and --save; quick says what it leaves."""
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"default {rounds}")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch; default 1")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--save", action="store_true", help=f"append the records to bench/results/{name}.jsonl")


def check_options(arguments: argparse.Namespace) -> None:
    """Raises: ValueError naming the option."""
    for name, least in (("rounds", 2), ("threads", 1)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be >= {least}, got {getattr(arguments, name)}")


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
