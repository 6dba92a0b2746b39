"""How an answer is written: whole, or in events as it grows."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

from model.serve.api.reader import ChoiceReader
from model.serve.api.service import Service
from model.serve.engine.request import Request

Event = dict[str, Any]
as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Reply:
    """The answer to one request. A subclass knows a client's format; events are server-sent, unless it says otherwise.

    by_token: whether the client asked for tokens or their logprobs. count: choices of each prompt that are returned.
    """

    media_type = "text/event-stream"
    by_token = False

    def __init__(self, service: Service, request: Request) -> None:
        self.service, self.request = service, request
        self.readers = [ChoiceReader(choice, service.tokenizer, self.by_token) for choice in request.choices]
        self.id, self.created = uuid.uuid4().hex, int(time.time())

    def whole(self) -> Event:
        """The answer, once the request is over."""
        raise NotImplementedError

    def begin(self) -> Iterable[Event]:
        """Events before the first token."""
        return ()

    def news(self) -> Iterable[Event]:
        """Events for what is new since the last call."""
        raise NotImplementedError

    def end(self) -> Iterable[Event | str]:
        """Events after the last token."""
        return ()

    def frame(self, event: Event | str) -> bytes:
        """An event as it is sent."""
        return f"data: {event if isinstance(event, str) else as_json(event)}\n\n".encode()

    def usage(self) -> dict[str, int]:
        """Tokens of the prompts, each counted once, and of all choices that were drawn."""
        prompts = {id(choice.prompt): len(choice.prompt) for choice in self.request.choices}
        read, drawn = sum(prompts.values()), sum(len(choice.generation.ids) for choice in self.request.choices)
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}
