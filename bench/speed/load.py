"""One round of a load, a closed loop of clients, and of `generate` on the same requests; their figures."""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from bench.speed.client import Answer, Client
from bench.speed.requests import LENGTHS, SAMPLING, Request, timed
from bench.speed.servers import Server, end_of
from model import Llama, Tokenizer, generate

Figures = dict[str, float]  # of one round, by name
Exchange = tuple[Request, Answer]
WARM_UP = 0.25  # of a round's time, before anything counts


def of_server(server: Server, clients: int, seconds: float, first: int) -> Figures:
    """Clients that ask for the requests from number `first` on, each for the next one as soon as it has its answer.

    What counts happens after the warm-up and within the seconds; then each client waits for its last answer.

    Raises: RuntimeError for an answer that is no stream of all its tokens.
    """
    gc.collect()
    began = time.perf_counter()
    try:
        exchanges = asyncio.run(closed_loop(server, clients, began + seconds, itertools.count(first)))
    except OSError as error:
        state = server.process.poll()
        raise RuntimeError(f"{server.version}: {error}; its process has {state=}: {end_of(server.log)}") from None
    return figures(exchanges, began + WARM_UP * seconds, began + seconds)


async def closed_loop(server: Server, clients: int, deadline: float, numbers: Iterator[int]) -> list[Exchange]:
    found: list[Exchange] = []

    async def ask() -> None:
        async with Client(server.url) as client:
            while time.perf_counter() < deadline:
                request = timed(next(numbers))
                found.append((request, await client.post(request.path, {**request.body, **server.fields})))

    await asyncio.gather(*(ask() for _ in range(clients)))
    return found


def figures(exchanges: Iterable[Exchange], begin: float, end: float) -> Figures:
    """Of what happens from begin to end; in a piece of text there may be several tokens, and the same number in all."""
    tokens, answered = 0.0, 0
    first_tokens, gaps = list[float](), list[float]()
    for request, answer in exchanges:
        times = pieces_of_text(request, answer)
        tokens += request.body["max_tokens"] * sum(begin <= when < end for when in times) / len(times)
        answered += begin <= times[-1] < end
        gaps += [1000 * (b - a) for a, b in itertools.pairwise(times) if begin <= b < end]
        if begin <= answer.began < end:
            first_tokens.append(1000 * (times[0] - answer.began))
    return {
        "tokens_a_second": tokens / (end - begin),
        "requests_a_second": answered / (end - begin),
        **middle_and_tail("first_token", first_tokens),
        **middle_and_tail("gap", gaps),
    }


def pieces_of_text(request: Request, answer: Answer) -> list[float]:
    """When each piece came. Raises: RuntimeError for an answer that is an error, or not whole."""
    choices = [(when, event["choices"][0]) for when, event in answer.events() if event.get("choices")]
    times = [when for when, choice in choices if choice["text"]]
    ends = [choice["finish_reason"] for _, choice in choices if choice["finish_reason"]]
    if answer.status != 200 or not answer.is_done or ends != ["length"] or not times:
        raise RuntimeError(
            f"{request}: must be answered by all its tokens, got {answer.status}, {answer.body[-500:]!r}"
        )
    return times


def middle_and_tail(name: str, milliseconds: list[float]) -> Figures:
    """
    >>> middle_and_tail("gap", [2.0, 1.0, 3.0, 9.0])
    {'gap_milliseconds': 2.5, 'gap_p99_milliseconds': 9.0}
    """
    if not milliseconds:
        return {}
    ordered = sorted(milliseconds)
    tail = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {f"{name}_milliseconds": statistics.median(ordered), f"{name}_p99_milliseconds": tail}


def of_generate(llama: Llama, tokenizer: Tokenizer, batch: int, seconds: float, first: int) -> Figures:
    """`generate` on such requests, in batches that stay full; for one sequence also the gap between its tokens."""
    tokens, steps = 0, Steps()
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not tokens:
        for requests in batches(first, batch):
            prompts, length = [request.body["prompt"] for request in requests], requests[0].body["max_tokens"]
            options: dict[str, Any] = dict(eos_token_id=(), seed=first, model_logprobs=False, **SAMPLING)
            options["streamer"] = steps if batch == 1 else None
            generate(llama, tokenizer, prompts, max_new_tokens=length, **options)
            tokens += batch * length
        first += 100 * batch
    return {"tokens_a_second": tokens / elapsed, **middle_and_tail("gap", steps.gaps)}


def batches(first: int, batch: int) -> list[list[Request]]:
    """From number `first` on, the next requests of every length: a batch of each."""
    found: dict[int, list[Request]] = {length: [] for length in LENGTHS}
    for number in itertools.count(first):
        request = timed(number)
        same = found[request.body["max_tokens"]]
        if len(same) < batch:
            same.append(request)
        if all(len(requests) == batch for requests in found.values()):
            return list(found.values())
    raise AssertionError("there is always another number")


class Steps:
    """A streamer of `generate` that notes the milliseconds from each token to the next."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.times: list[float] = []

    def put(self, ids: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        self.gaps += [1000 * (b - a) for a, b in itertools.pairwise(self.times[1:])]  # the prompt comes first
        self.times = []
