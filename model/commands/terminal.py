"""What commands show: results on stdout; a sign of life, a bar, a line of speed on stderr, where it is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from rich.console import Console

T = TypeVar("T")
WIDTH = 150  # columns of a table in a file or pipe; rich would take 80
MANY = 1000  # texts or choices, of which a pipe's user is told


def console(stderr: bool = False) -> Console:
    """For text as it is, without rich's markup and highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH, markup=False, emoji=False, highlight=False)


def show(text: str) -> None:
    """On stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def visible(token: str) -> str:
    """Spaces as the vocabulary writes them, and escapes for what does not print."""
    return "".join("▁" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in token)


def tell(text: str) -> None:
    """On stderr, terminal or not."""
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def waiting(message: str) -> AbstractContextManager[Any]:
    """A sign of life while nothing is shown."""
    from rich.console import Console

    return Console(stderr=True).status(message)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar; gives a function that moves it to so many of the total. What is shown meanwhile appears above it.

    Where stderr is no terminal, a line says what lies ahead if that is much.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    same = sys.stdout.isatty()  # else rich would put what goes into a file or pipe on the terminal
    quiet = not console.is_terminal
    if quiet and total > MANY:
        tell(f"{total:,} {what}: this may take a while")
    with Progress(*columns, console=console, transient=True, redirect_stdout=same, disable=quiet) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def counted(items: Iterable[T], told: Callable[[int], None], done: int = 0) -> Iterator[T]:
    """The items; told how many are done, those before them included."""
    told(done)
    for now_done, item in enumerate(items, done + 1):
        yield item
        told(now_done)


def report_speed(tokens: int, seconds: float, seed: int) -> None:
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).print(
            f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} a second · seed {seed}",
            style="dim",
            highlight=False,
        )
