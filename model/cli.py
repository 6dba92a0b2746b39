"""The command `alea`: starts a command, and ends it properly after an error, a Ctrl-C or a closed pipe.

This module and `model` import next to nothing at their top: a Ctrl-C before `main` would end in a traceback.
"""

from __future__ import annotations

import errno
import os
import sys

from model import interrupt

TYPE_CHECKING = False  # importing typing's own would take time
if TYPE_CHECKING:
    from collections.abc import Sequence

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # only writing raises these


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    owns_process = argv is None
    try:
        if owns_process:
            interrupt.take()
        status = run(argv)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = interrupt.STATUS
    if owns_process:
        interrupt.ignore()
    return status


def run(argv: Sequence[str] | None) -> int:
    """Run one command; an error is one line on stderr."""
    from model.commands.parser import parser

    for name in ("stdout", "stderr"):  # None after `>&-`: discard the output, as the user asked
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  # for as long as the process lives
    command = "alea"
    try:
        try:
            arguments = parser().parse_args(argv)
            command += f" {arguments.command}"
            status: int = arguments.run(arguments)
        except SystemExit as end:  # argparse's, or rich's after a closed pipe
            status = 0 if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0)
        sys.stdout.flush()  # here, where a closed pipe is still known from an error
        return status
    except BrokenPipeError:  # `alea generate | head`: the reader has seen enough
        discard_stdout()
        return 0
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL and error.filename is None:
            discard_stdout()
            error = OSError(f"can't write to stdout: {error.strerror}")
        print(f"{command}: {error}", file=sys.stderr)
        return 2


def discard_stdout() -> None:
    """Drop the rest of stdout, which Python would try to write again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
