"""Times of calls on the CPU that can be compared: interleaved rounds in one process, hot and cold caches."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from bench.peers.base import DrawTokens
from bench.records import quantiles

LEAST_SECONDS = 200e-6  # of one measurement; faster calls are repeated
EVICTED = 1 << 27  # bytes read between two calls on cold caches, more than any CPU's caches hold

Seconds = dict[str, list[float]]  # of every call, by name


def interleaved(functions: Mapping[str, Callable[[], Any]], rounds: int) -> Seconds:
    """Each round calls all functions, after one to warm up: drift of the machine hits all alike."""
    for function in functions.values():
        function()
    seconds: Seconds = {name: [] for name in functions}
    for number in range(rounds):
        for name in in_turn(list(functions), number):
            began = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def in_turn(names: list[str], round_number: int) -> list[str]:
    """Every other round goes backwards."""
    return names if round_number % 2 == 0 else names[::-1]


def seconds_a_call(draws: Mapping[str, DrawTokens], rounds: int, least: float = LEAST_SECONDS) -> Seconds:
    """One value a round; each measurement repeats its call until it takes `least` seconds."""
    repeats = {name: repeats_of(draw, least) for name, draw in draws.items()}
    calls = {name: partial(repeat, draw, itertools.count(), repeats[name]) for name, draw in draws.items()}
    return {name: [s / repeats[name] for s in times] for name, times in interleaved(calls, rounds).items()}


def repeats_of(draw: DrawTokens, least: float) -> int:
    """By the time of the fourth call, as the first ones set things up and find cold caches."""
    for step in range(3):
        draw(step)
    began = time.perf_counter()
    draw(3)
    return max(1, math.ceil(least / (time.perf_counter() - began)))


def repeat(draw: DrawTokens, steps: Iterator[int], times: int) -> None:
    """Every call at a new position, as in a text."""
    for step in itertools.islice(steps, times):
        draw(step)


def cold_seconds(draws: Mapping[str, DrawTokens], rounds: int) -> Seconds:
    """One call a round, its rows and code pushed out of the caches before."""
    ballast = torch.zeros(EVICTED // 4)
    seconds: Seconds = {name: [] for name in draws}
    for step in range(rounds):
        for name, draw in draws.items():
            ballast.sum()
            began = time.perf_counter()
            draw(step)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def microseconds(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Quantiles by name."""
    return {name: quantiles([1e6 * s for s in times]) for name, times in seconds.items()}
