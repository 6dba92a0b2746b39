"""The command `alea`. Nothing heavy is imported before a command needs it.

Other packages add commands through the entry-point group `alea.commands`: a module with HELP, add_arguments(parser)
and run(arguments) -> int.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

COMMANDS = {"generate": "model.commands.generate", "info": "model.commands.info"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):  # `alea generate | head`
            sys.stderr.close()
            return 0
        print(f"alea {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="alea", description="Exact, reproducible sampling for language models, and a small Llama that feeds it."
    )
    top.add_argument("--version", action="version", version=f"alea {own_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in command_modules().items():
        command = commands.add_parser(
            name, help=module.HELP, description=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def command_modules() -> dict[str, Any]:
    modules = {name: importlib.import_module(module) for name, module in COMMANDS.items()}
    modules.update((point.name, point.load()) for point in entry_points(group="alea.commands"))
    return modules


def own_version() -> str:
    try:
        return version("alea")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
