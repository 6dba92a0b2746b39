"""The commands of `alea`. A command's module is imported only when the command is chosen."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from model.versions import DISTRIBUTION, installed

Commands = Mapping[str, tuple[str, str]]  # name: (module, one-line help)
COMMANDS: Commands = {
    "generate": ("model.commands.generate", "continue a text; with no MODEL, by the built-in storyteller"),
    "chat": ("model.commands.chat", "talk with a model; with no MODEL, with the built-in storyteller"),
    "serve": ("model.commands.serve", "an HTTP server for OpenAI clients; with no MODEL, of the built-in storyteller"),
    "trace": (
        "model.commands.trace",
        "continue a text and show what each stage of sampling did at every step, or the tree of a beam search",
    ),
    "sweep": (
        "model.commands.sweep",
        "diversity and quality over a grid of temperatures, top-p, top-k and epsilon; table, CSV, pictures",
    ),
    "score": (
        "model.commands.score",
        "how probable each of a few answers is; with no MODEL, to the built-in storyteller",
    ),
    "info": ("model.commands.info", "versions, devices, and which sampling backends work here, and why not"),
}


class CommandParser(argparse.ArgumentParser):
    """A parser that imports its command's module when it is asked to parse.

    module: has add_arguments(parser), and run(arguments) -> exit status where it has no subcommands.
    """

    def __init__(self, *args: Any, module: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.module = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module:
            command = importlib.import_module(self.module)
            self.module = ""
            command.add_arguments(self)
            self.set_defaults(run=getattr(command, "run", None))
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    top = CommandParser(
        prog="alea", description="Exact, reproducible sampling for language models, and a small Llama that feeds it."
    )
    top.add_argument("--version", action="version", version=f"alea {installed(DISTRIBUTION) or '(not installed)'}")
    add_commands(top, "command", {**COMMANDS, **plug_ins()})
    return top


def add_commands(parser: CommandParser, name: str, commands: Commands) -> None:
    """Subcommands; name: of the attribute that holds the chosen one."""
    choice = parser.add_subparsers(dest=name, required=True, metavar=name.upper())
    for command, (module, summary) in commands.items():
        choice.add_parser(command, help=summary, description=summary, module=module)


def plug_ins() -> Commands:
    """Commands of other packages, in the entry-point group `alea.commands`.

    Each is a module for `CommandParser`, with its one-line help in HELP.
    """
    found = {}
    for point in entry_points(group="alea.commands"):
        try:
            found[point.name] = (point.module, point.load().HELP)
        except ImportError as error:
            print(f"alea: the command {point.name} can't be loaded: {error}", file=sys.stderr)
    return found
