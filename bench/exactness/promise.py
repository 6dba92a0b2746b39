"""What `alea serve` promises: a request with a seed has one answer, alone and in any company, streamed or at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

from bench.speed.client import Answer, Client
from bench.speed.requests import Request, varied

VANISHING = 0.2  # of the requests under load are sent once before, and left in the middle of their answer
PAUSE = 0.05  # seconds at most between two requests of a client


def check(url: str, count: int, clients: int) -> None:
    """The answers to `count` requests under load are, as bytes, those that each has alone.

    Raises: RuntimeError naming a request whose answers differ.
    """
    requests = list(map(varied, range(count)))
    expected = asyncio.run(alone(url, requests))
    found = asyncio.run(under_load(url, requests, clients, Random(count)))
    wrong = differences(requests, expected, found)
    if wrong:
        raise RuntimeError(f"alea serve: {len(wrong)} of {count} answers differ under load, the first: {wrong[0]}")


async def alone(url: str, requests: Sequence[Request]) -> list[bytes]:
    """One request after the other."""
    async with Client(url) as client:
        return [canonical(await client.post(request.path, request.body)) for request in requests]


async def under_load(url: str, requests: Sequence[Request], clients: int, random: Random) -> list[bytes]:
    """Many clients at once, in a random order, at random times; some of them vanish, and some change `stream`."""
    answers = dict[int, bytes]()
    numbers = random.sample(range(len(requests)), len(requests))

    async def ask(rng: Random) -> None:
        async with Client(url) as client:
            while numbers:
                number = numbers.pop()
                await asyncio.sleep(rng.random() * PAUSE)
                request = requests[number].streamed(rng.random() < 0.5)
                if rng.random() < VANISHING:
                    await vanish(client, request.streamed(True), rng.randrange(4))
                answers[number] = canonical(await client.post(request.path, request.body))

    await asyncio.gather(*(ask(Random(random.random())) for _ in range(clients)))
    return [answers[number] for number in range(len(requests))]


async def vanish(client: Client, request: Request, pieces: int) -> None:
    """Sends a request and drops the connection after some pieces of its answer."""
    answer = await client.begin("POST", request.path, json.dumps(request.body).encode())
    if pieces:
        async for _ in client.pieces(answer):
            if len(answer.pieces) == pieces:
                break
    client.vanish()


def differences(requests: Sequence[Request], expected: Sequence[bytes], found: Sequence[bytes]) -> list[str]:
    """A line for each request whose answers differ."""
    return [
        f"request {number}, {request}: {a!r}, then {b!r}"
        for number, (request, a, b) in enumerate(zip(requests, expected, found, strict=True))
        if a != b
    ]


def canonical(answer: Answer) -> bytes:
    """The choices of an answer, with their logprobs, the same whether it was streamed or came at once.

    Raises: RuntimeError for an answer that is an error, or not whole.
    """
    if answer.status != 200 or (answer.is_streamed and not answer.is_done):
        raise RuntimeError(f"a whole answer with status 200 was expected, got {answer.status}, {answer.body[-500:]!r}")
    replies = [event for _, event in answer.events()] if answer.is_streamed else [answer.json()]
    choices = dict[int, dict[str, Any]]()
    for reply in replies:
        if "error" in reply:
            raise RuntimeError(f"an answer ends with an error: {reply['error']}")
        for choice in reply["choices"]:
            add(choices.setdefault(choice["index"], {"text": "", "logprobs": {}, "finish_reason": None}), choice)
    return json.dumps([choices[index] for index in sorted(choices)], sort_keys=True).encode()


def add(whole: dict[str, Any], choice: dict[str, Any]) -> None:
    """The next part of a choice, or all of it."""
    message = choice.get("message") or choice.get("delta") or {}
    whole["text"] += choice.get("text") or message.get("content") or ""
    whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
    for name, values in (choice.get("logprobs") or {}).items():
        whole["logprobs"][name] = whole["logprobs"].get(name, []) + (values or [])
