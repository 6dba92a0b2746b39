"""The command `alea`. Nothing heavy is imported before a command needs it.

This module and `model` import next to nothing themselves: a Ctrl-C before `main` would end in a traceback.

Other packages add commands through the entry-point group `alea.commands`: a module with HELP, add_arguments(parser)
and run(arguments) -> int.
"""

from __future__ import annotations

import errno
import os
import sys

from model import interrupt

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

COMMANDS = {
    "generate": "model.commands.generate",
    "chat": "model.commands.chat",
    "trace": "model.commands.trace",
    "sweep": "model.commands.sweep",
    "score": "model.commands.score",
    "info": "model.commands.info",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what only writing can raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    is_own = argv is None  # the process, which begins and ends here
    try:
        if is_own:
            interrupt.take()
        status = run(argv)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = interrupt.STATUS
    if is_own:
        interrupt.ignore()
    return status


def run(argv: Sequence[str] | None) -> int:
    """Run one command, and tell in a line what it refuses."""
    for name in ("stdout", "stderr"):  # closed by `>&-`: what is written there is lost, as its user wants it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  # for as long as the process lives
    command = "alea"
    try:
        try:
            arguments = parser().parse_args(argv)
            command += f" {arguments.command}"
            status = arguments.run(arguments)
        except SystemExit as end:  # argparse's, or rich's where nobody reads what it prints
            status = 0 if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0)
        sys.stdout.flush()  # here, where a closed pipe still can be told from an error
        return status
    except BrokenPipeError:  # `alea generate | head`: the reader has what it wanted
        lose_stdout()
        return 0
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            lose_stdout()
            error = OSError(f"can't write to stdout: {error.strerror}")
        print(f"{command}: {error}", file=sys.stderr)
        return 2


def lose_stdout() -> None:
    """What is left of it, which Python would try to write once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    import argparse

    from model.versions import DISTRIBUTION, installed

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
    import importlib
    from importlib.metadata import entry_points

    modules = {name: importlib.import_module(module) for name, module in COMMANDS.items()}
    for point in entry_points(group="alea.commands"):
        try:
            modules[point.name] = point.load()
        except ImportError as error:
            print(f"alea: the command {point.name} can't be loaded: {error}", file=sys.stderr)
    return modules


if __name__ == "__main__":
    sys.exit(main())
