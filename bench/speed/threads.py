"""Times on one thread and on two, in the rounds in which the machine has two cores to give."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench.peers.base import DrawTokens
from bench.records import Record
from bench.speed.timing import LEAST_SECONDS, Seconds, microseconds, repeat, repeats_of

ENOUGH = 1.8  # times as fast as on one thread; where plain work gains less, a round is not counted
TRIES = 5  # for each round that is wanted
PLAIN = bytes(1 << 20)  # its hash takes milliseconds, computed without the interpreter's lock


def on_free_cores(draws: Mapping[str, DrawTokens], rounds: int) -> Record:
    """Microseconds of the interleaved rounds that count, and how many these are."""
    repeats = {name: repeats_of(draw, LEAST_SECONDS) for name, draw in draws.items()}
    steps, times = itertools.count(), Seconds()
    with ThreadPoolExecutor(1) as helper:
        for _ in range(TRIES * rounds):
            if len(next(iter(times.values()), [])) == rounds:
                break
            if speed_up(partial(hashlib.sha256, PLAIN), helper) < ENOUGH:
                continue
            for name, draw in draws.items():
                seconds = timed(partial(repeat, draw, steps, repeats[name])) / repeats[name]
                times.setdefault(name, []).append(seconds)
    counted = len(next(iter(times.values()), []))
    return {"rounds": counted, "microseconds": microseconds(times)}


def speed_up(work: Callable[[], object], helper: ThreadPoolExecutor) -> float:
    """How many times as fast two threads do the work twice."""

    def together() -> None:
        other = helper.submit(work)
        work()
        other.result()

    return 2 * timed(work) / timed(together)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
