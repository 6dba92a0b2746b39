"""Finds the next masks in another thread, while the model runs: llguidance and the model both let others run."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from samplers.grammar.matcher import Matcher


@functools.cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "alea-grammar")


os.register_at_fork(after_in_child=pool.cache_clear)  # a thread does not live on in a fork


NOTHING: Future[None] = Future()  # to do
NOTHING.set_result(None)


def look_ahead(matchers: Iterable[Matcher | None]) -> Future[None]:
    """Begin `Matcher.look_ahead` of each that is one; `result()` of what returns waits for the end."""
    waiting = [matcher for matcher in matchers if matcher is not None]
    return pool().submit(run, waiting) if waiting else NOTHING


def run(matchers: Sequence[Matcher]) -> None:
    for matcher in matchers:
        matcher.look_ahead()
