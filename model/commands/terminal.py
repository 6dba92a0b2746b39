"""Output of commands: results on stdout; spinner, progress bar and speed on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
OnProgress = Callable[[int], None]  # called with the number of items done
MANY = 1000  # texts or choices, above which a pipe's user is warned
WIDTH = 150  # columns of a table in a file or pipe; rich would take 80
MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def console(stderr: bool = False) -> Console:
    """For text as it is, without rich's markup and highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH, markup=False, emoji=False, highlight=False)


def show(text: str) -> None:
    """On stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def tell(text: str) -> None:
    """On stderr, terminal or not."""
    console(stderr=True).print(text, soft_wrap=True)


def visible(text: str) -> str:
    """A token's text: spaces as the vocabulary writes them, escapes for the unprintable."""
    return "".join("▁" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text)


def piece_text(piece: str) -> str:
    """A piece of the vocabulary, with signs for spaces, line ends and tabs."""
    return "".join(MARKS.get(character, character) for character in piece)


def waiting(message: str) -> AbstractContextManager[Any]:
    """A spinner."""
    return console(stderr=True).status(message)


@contextmanager
def progress(what: str, total: int) -> Iterator[OnProgress]:
    """A bar, and the function that moves it. Output to stdout appears above it.

    Where stderr is no terminal, a line announces the work if that is much.
    """
    bars = console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    to_terminal = sys.stdout.isatty()  # else rich would print on the terminal what belongs in a file or pipe
    quiet = not bars.is_terminal
    if quiet and total > MANY:
        tell(f"{total:,} {what}: this may take a while")
    with Progress(*columns, console=bars, transient=True, redirect_stdout=to_terminal, disable=quiet) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def counted(items: Iterable[T], on_progress: OnProgress, done: int = 0) -> Iterator[T]:
    """The items; on_progress gets their number, plus those done before."""
    on_progress(done)
    for now_done, item in enumerate(items, done + 1):
        yield item
        on_progress(now_done)


def report_speed(tokens: int, seconds: float, seed: int) -> None:
    if sys.stderr.isatty():
        speed = f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} a second · seed {seed}"
        console(stderr=True).print(speed, style="dim")
