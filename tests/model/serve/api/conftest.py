"""The built-in model as a service, and answers without HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model import Llama, Tokenizer
from model.serve.api.asking import asked
from model.serve.api.reply import Reply
from model.serve.api.service import Service
from model.serve.engine.engine import Engine


class Asked:
    """A body of some kind, answered."""

    def __init__(self) -> None:
        llama = Llama.from_pretrained()
        self.engine = Engine(llama)
        self.service = Service(llama, Tokenizer.from_pretrained(), ("storyteller",), "print", "plain", True, 512)

    def prepared(self, kind: type, **fields: Any) -> tuple[Any, Any]:
        body, request = asked(self.service, kind, json.dumps(fields).encode())
        return request, body.reply(self.service, request)

    def whole(self, kind: type, **fields: Any) -> Any:
        request, reply = self.prepared(kind, **fields)
        self.engine.submit(request)
        while self.engine.is_busy:
            self.engine.step()
        work(reply)
        return reply.whole()

    def streamed(self, kind: type, every: int = 1, **fields: Any) -> list[Any]:
        """The events, read after every so many steps; a last event that is no JSON stays text."""
        request, reply = self.prepared(kind, **fields)
        self.engine.submit(request)
        events, steps = list(reply.begin()), 0
        while self.engine.is_busy:
            self.engine.step()
            steps += 1
            if steps % every == 0:
                work(reply)
                events += reply.news()
        work(reply)
        events += [*reply.news(), *reply.end()]
        return [event if event == "[DONE]" else json.loads(event) for event in events]


def work(reply: Reply) -> None:
    while reply.work():
        pass


@pytest.fixture(scope="session")
def asking() -> Asked:
    return Asked()
