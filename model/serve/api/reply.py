"""How an answer is written: whole, or in events as it grows."""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

from model.serve.api.reader import ChoiceReader
from model.serve.api.service import Service
from model.serve.engine.request import Request

Object = dict[str, Any]
as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
DONE = "[DONE]"  # OpenAI's last event


class Reply:
    """The answer to one request. A subclass knows a client's format; events are server-sent, unless it says otherwise.

    by_token: whether the client asked for tokens or their logprobs. takes_long: whether there is `work` to do. head:
    fields that every event begins with.
    """

    media_type = "text/event-stream"
    by_token = takes_long = False

    def __init__(self, service: Service, request: Request) -> None:
        self.service, self.request = service, request
        self.readers = [ChoiceReader(choice, service.tokenizer, self.by_token) for choice in request.choices]
        self.id, self.created = uuid.uuid4().hex, int(time.time())
        self.head: Object = {}

    def work(self) -> bool:
        """Do a part of what `whole` and `news` then tell of, away from the loop; False where nothing is left to do."""
        return False

    def head_of(self, prefix: str, kind: str) -> Object:
        """What every answer of OpenAI's kind begins with."""
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.service.name,
            "system_fingerprint": self.service.fingerprint,
        }

    def whole(self) -> Any:
        """The answer as a JSON value, once the request is over."""
        raise NotImplementedError

    def begin(self) -> Iterable[str]:
        """Events before the first token."""
        return ()

    def news(self) -> Iterable[str]:
        """Events for what is new since the last call."""
        raise NotImplementedError

    def end(self) -> Iterable[str]:
        """Events after the last token."""
        return ()

    def event(self, fields: Object) -> str:
        """As JSON, after the head, which is written once: a busy server spends its time here."""
        return f"{self.opening},{as_json(fields)[1:]}" if self.head else as_json(fields)

    @functools.cached_property
    def opening(self) -> str:
        return as_json(self.head)[:-1]

    def frame(self, event: str) -> bytes:
        """An event as it is sent."""
        return f"data: {event}\n\n".encode()

    def usage(self) -> dict[str, int]:
        """Tokens of the prompts, each counted once, and of all choices that were drawn."""
        prompts = {id(choice.prompt): len(choice.prompt) for choice in self.request.choices}
        read, drawn = sum(prompts.values()), sum(len(choice.generation.ids) for choice in self.request.choices)
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}
