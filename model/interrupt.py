"""Ctrl-C in a process of `alea` itself: never a traceback."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in model.cli
if TYPE_CHECKING:
    from types import FrameType

STATUS = 130  # of a process that SIGINT ended, in shells
SHOW_CURSOR = "\033[?25h"  # a progress bar hides it


def take() -> None:
    """From now on a Ctrl-C raises KeyboardInterrupt; during an import it ends the process.

    Extension modules such as NumPy's and torch's swallow exceptions during their import, and would stay half imported.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, handle)


def ignore() -> None:
    """From now on a Ctrl-C does nothing: the process is ending."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def handle(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, (SHOW_CURSOR * sys.stderr.isatty() + "\n").encode())
            os._exit(STATUS)
        frame = frame.f_back
    raise KeyboardInterrupt
