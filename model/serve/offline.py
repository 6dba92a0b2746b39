"""Requests without a server: lines of a file, through the same engine, with the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from model.serve.api.asking import asked
from model.serve.api.chat import ChatBody
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.reply import Reply
from model.serve.api.service import Service
from model.serve.engine.engine import Engine
from model.serve.engine.request import Request

KINDS: dict[str, type[CompletionBody] | type[ChatBody]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
}
WRAPPING = {"custom_id", "method", "url", "body"}  # a line of OpenAI's batch files


class Line(NamedTuple):
    """A request of a file. custom_id: "" where the line has none."""

    custom_id: str
    url: str
    body: dict[str, Any]


def line_of(value: Mapping[str, Any]) -> Line:
    """From an object of a file: OpenAI's batch format, or the body of a request alone.

    Raises: ValueError naming the field.

    >>> line_of({"prompt": "A", "seed": 7})
    Line(custom_id='', url='/v1/completions', body={'prompt': 'A', 'seed': 7})
    """
    if "body" not in value:
        return Line("", "/v1/chat/completions" if "messages" in value else "/v1/completions", dict(value))
    unknown = sorted(value.keys() - WRAPPING)
    if unknown:
        raise ValueError(f"{unknown[0]} is no field of a batch line, which has custom_id, method, url and body")
    if value.get("method", "POST") != "POST":
        raise ValueError(f"method must be POST, got {value['method']!r}")
    url, body, name = value.get("url"), value["body"], value.get("custom_id", "")
    if url not in KINDS:
        raise ValueError(f"url must be one of {', '.join(KINDS)}, got {url!r}")
    if not isinstance(body, dict) or not isinstance(name, str):
        raise ValueError("body must be an object, and custom_id a text")
    return Line(name, url, body)


def asked_by(service: Service, line: Line) -> tuple[Request, Reply]:
    """What a line asks for. Raises: ValueError naming the field."""
    try:
        body, request = asked(service, KINDS[line.url], line.body)
    except Refusal as refusal:
        raise ValueError(str(refusal)) from None
    if body.stream:
        raise ValueError("stream must not be true in a file")
    return request, body.reply(service, request)


def answers(
    engine: Engine, lines: Iterable[tuple[int, Callable[[], tuple[Request, Reply]]]], most: int
) -> Iterator[tuple[int, Request, Any]]:
    """Runs the engine over numbered requests, at most `most` at a time -> (number, request, reply) as they end.

    Raises: RuntimeError where the model gives no numbers.
    """
    left = iter(lines)
    open_requests: dict[Request, tuple[int, Reply]] = {}

    def refill() -> None:
        for number, make in left:
            request, reply = make()
            open_requests[request] = (number, reply)
            engine.submit(request)
            if len(open_requests) >= most:
                return

    refill()
    while open_requests:
        over = [request for request in engine.step() if request.is_over]
        for request in over:
            number, reply = open_requests.pop(request)
            if request.failure is not None:
                raise RuntimeError(request.failure.message)
            yield number, request, reply.whole()
        if over:
            refill()
