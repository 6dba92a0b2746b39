"""The terminal of `alea chat`: colours, line editing and notes for a person; in a pipe the answers alone."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from contextlib import AbstractContextManager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.commands.terminal import console, show, visible, waiting
from model.study.decoding_trace import DecodingTrace

NATS_PER_BIT = math.log(2)
COLOURS = {"you": "36", "model": "35"}  # of ANSI: cyan, magenta
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Screen:
    """Reads lines; writes answers to stdout and everything else to stderr.

    interactive: whether stdin and stdout are a terminal; then prompts, roles and colours are shown.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self.notes = console(stderr=True)
        answers = Console()
        self.has_colour = self.interactive and answers.color_system is not None and not answers.no_color
        if isinstance(sys.stdin, io.TextIOWrapper):  # a byte that is no text: only its line is refused
            sys.stdin.reconfigure(errors="surrogateescape")
        if self.interactive:
            with contextlib.suppress(ImportError):  # not on Windows
                import readline  # noqa: F401  # gives input() line editing and a history

    def read(self) -> str | None:
        r"""The next message or command; a line that ends in \ continues on the next. None at the end."""
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
        """The prompt before a line; \\001 and \\002 mark the parts without width for readline."""
        return f"\001\033[1;{COLOURS[role]}m\002{role}:\001\033[0m\002 " if self.has_colour else f"{role}: "

    def role(self, role: str) -> None:
        if self.interactive:
            show(self.label(role).replace("\001", "").replace("\002", ""))

    def write(self, text: str) -> None:
        """Part of an answer; a terminal gets no control characters, which it would obey."""
        show(text.translate(CONTROLS) if self.interactive else text)

    def note(self, text: str) -> None:
        self.notes.print(text, style="dim", soft_wrap=not self.interactive)

    def error(self, text: str) -> None:
        self.notes.print(
            text if self.interactive else f"alea chat: {text}", style="yellow", soft_wrap=not self.interactive
        )

    def waiting(self, message: str) -> AbstractContextManager[Any]:
        return waiting(message) if self.interactive else contextlib.nullcontext()

    def trace(self, trace: DecodingTrace) -> None:
        """One line per token drawn."""
        names = [stage.name for stage in trace.steps[0].stages[1:]]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("token", no_wrap=True)
        for heading in ("rank", "raw\nlogprob", "final\nlogprob", "entropy,\nbits"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(f"left after\n{' → '.join(names)}")
        for step in trace.steps:
            left = " → ".join(f"{stage.survivors:,}" for stage in step.stages[1:])
            numbers = (f"{step.model_logprob:.3f}", f"{step.logprob:.3f}", f"{step.entropy / NATS_PER_BIT:.2f}")
            table.add_row(Text(visible(trace.piece(step.token))), str(step.chosen.rank), *numbers, left)
        self.notes.print(table)
