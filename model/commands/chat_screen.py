"""The terminal of `alea chat`: colours, editing and notes for a person; in a pipe the answers alone."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from model.commands.terminal import show, visible, waiting

if TYPE_CHECKING:
    from model.study.decoding_trace import DecodingTrace

BITS = math.log(2)  # nats a bit
WIDTH = 100  # of a table in a file or pipe
COLOURS = {"you": "36", "model": "35"}  # of ANSI: cyan, magenta
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Screen:
    """Lines in; answers to stdout, all else to stderr.

    interactive: whether a person sits there, who is shown prompts, roles and colours.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self.interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        width = None if sys.stderr.isatty() else WIDTH
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False, width=width)
        look = Console()
        self.has_colour = self.interactive and look.color_system is not None and not look.no_color
        if isinstance(sys.stdin, io.TextIOWrapper):  # a byte that is no text: its line is refused, and nothing ends
            sys.stdin.reconfigure(errors="surrogateescape")
        if self.interactive:
            with contextlib.suppress(ImportError):  # not on Windows
                import readline  # noqa: F401  # input() then edits lines and remembers them

    def read(self) -> str | None:
        r"""The next message or command, lines that end in \ joined to the one that follows; None at the end."""
        lines: list[str] = []
        while True:
            line = self.line("... " if lines else self.label("you"))
            if line is None:
                return "\n".join(lines) if lines else None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def line(self, prompt: str) -> str | None:
        if self.interactive:
            try:
                return input(prompt)
            except EOFError:
                show("\n")
                return None
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.rstrip("\r\n") if line else None

    def label(self, role: str) -> str:
        """What stands before a person's line; \\001 and \\002 tell readline what has no width."""
        return f"\001\033[1;{COLOURS[role]}m\002{role}:\001\033[0m\002 " if self.has_colour else f"{role}: "

    def role(self, role: str) -> None:
        if self.interactive:
            show(self.label(role).replace("\001", "").replace("\002", ""))

    def write(self, text: str) -> None:
        """Part of an answer; to a terminal without control characters, which could do anything there."""
        show(text.translate(CONTROLS) if self.interactive else text)

    def note(self, text: str) -> None:
        self.notes.print(text, style="dim", soft_wrap=not self.interactive)

    def error(self, text: str) -> None:
        self.notes.print(
            text if self.interactive else f"alea chat: {text}", style="yellow", soft_wrap=not self.interactive
        )

    def waiting(self, message: str) -> AbstractContextManager[Any]:
        return waiting(message) if self.interactive else contextlib.nullcontext()

    def trace(self, told: DecodingTrace) -> None:
        """One line a token drawn."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        names = [stage.name for stage in told.steps[0].stages[1:]]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("token", no_wrap=True)
        for heading in ("rank", "raw\nlogprob", "final\nlogprob", "entropy,\nbits"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(f"left after\n{' → '.join(names)}")
        for step in told.steps:
            left = " → ".join(f"{stage.survivors:,}" for stage in step.stages[1:])
            numbers = (f"{step.model_logprob:.3f}", f"{step.logprob:.3f}", f"{step.entropy / BITS:.2f}")
            table.add_row(Text(visible(told.piece(step.token))), str(step.chosen.rank), *numbers, left)
        self.notes.print(table)
