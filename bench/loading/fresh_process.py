"""Runs a function in a fresh process, without the memory and caches of earlier runs."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any

PRELOAD = ("torch", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama")


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function in a process made for it, forked from a server that has imported the libraries.

    Raises: the function's error; RuntimeError if the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))  # a missing one is passed over
    start_server()
    with ProcessPoolExecutor(1, context, initializer=end_at_ctrl_c) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise RuntimeError("the process that loads has died, as when memory runs out") from None


def start_server() -> None:
    """It imports for seconds; a Ctrl-C then must not end it with a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # is inherited
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)


def end_at_ctrl_c() -> None:
    """Without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
