"""Runs a function in a fresh process, without the memory and caches of earlier runs."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

PRELOAD = ("torch", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama")


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function in a process made for it, forked from a server that has imported the libraries.

    Raises: RuntimeError with the error there.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))  # a missing one is passed over
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(sender, function, *arguments), daemon=True)
    with receiver:
        try:
            with interrupts_after():
                process.start()
            sender.close()
            result, error = receiver.recv()
        except EOFError:
            process.join()
            more = ", as when memory runs out" if process.exitcode == -signal.SIGKILL else ""
            raise RuntimeError(f"the process that loads ended with exit code {process.exitcode}{more}") from None
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
    if error is not None:
        raise RuntimeError(error)
    return result


@contextmanager
def interrupts_after() -> Iterator[None]:
    """Delays a Ctrl-C until a process is started and can be ended; the server, which imports, ignores it."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # is inherited
    try:
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def answer(sender: Any, function: Callable[..., Any], *arguments: Any) -> None:
    """In the child: sends the result, or the error in words. At a Ctrl-C the parent ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send((function(*arguments), None))
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))
