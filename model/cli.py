"""The command `alea`. Nothing heavy is imported before a command needs it.

Other packages add commands through the entry-point group `alea.commands`: a module with HELP, add_arguments(parser)
and run(arguments) -> int.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from model.versions import DISTRIBUTION, installed

COMMANDS = {
    "generate": "model.commands.generate",
    "chat": "model.commands.chat",
    "trace": "model.commands.trace",
    "sweep": "model.commands.sweep",
    "score": "model.commands.score",
    "info": "model.commands.info",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    for name in ("stdout", "stderr"):  # closed by `>&-`: what is written there is lost, as its user wants it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  # for as long as the process lives
    arguments = parser().parse_args(argv)
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()  # here, where a closed pipe still can be told from an error
        return status
    except BrokenPipeError:  # `alea generate | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"alea {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="alea", description="Exact, reproducible sampling for language models, and a small Llama that feeds it."
    )
    top.add_argument("--version", action="version", version=f"alea {installed(DISTRIBUTION) or '(not installed)'}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in command_modules().items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def command_modules() -> dict[str, Any]:
    modules = {name: importlib.import_module(module) for name, module in COMMANDS.items()}
    for point in entry_points(group="alea.commands"):
        try:
            modules[point.name] = point.load()
        except ImportError as error:
            print(f"alea: the command {point.name} can't be loaded: {error}", file=sys.stderr)
    return modules


if __name__ == "__main__":
    sys.exit(main())
