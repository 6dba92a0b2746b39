"""Ctrl-C in a process that is a command's own: no traceback, whenever it comes."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in model.cli
if TYPE_CHECKING:
    from types import FrameType

STATUS = 130  # as shells tell it
SHOW_CURSOR = "\033[?25h"  # which a progress bar hides


def take() -> None:
    """From here on a Ctrl-C raises KeyboardInterrupt, but amid an import it ends the process.

    There extension modules swallow what is raised, NumPy's and torch's among them, and go on half imported.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, handle)


def ignore() -> None:
    """From here on: the process ends, and nothing is left to stop."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def handle(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, (SHOW_CURSOR * sys.stderr.isatty() + "\n").encode())
            os._exit(STATUS)
        frame = frame.f_back
    raise KeyboardInterrupt
