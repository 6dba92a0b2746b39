"""POST /invocations: what a SageMaker endpoint of a large-model container answers; streamed as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from model.serve.api.fields import DrawingFields
from model.serve.api.reply import Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request

NEW_TOKENS = 128


class InvocationBody(DrawingFields):
    prompt: str
    max_tokens_to_sample: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="the same as max_tokens_to_sample")
    stream: bool | None = None

    def request(self, service: Service, key: str = "") -> Request:
        prompts = [service.encode("prompt", self.prompt)]
        name = self.one_of("max_tokens_to_sample", "max_tokens")
        new = service.new_tokens("prompt", prompts, name, getattr(self, name), NEW_TOKENS)
        return service.request(prompts, 1, self.settings(service, new), self.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> InvocationReply:
        return InvocationReply(service, request)


class InvocationReply(Reply):
    media_type = "application/jsonlines"

    def whole(self) -> Object:
        return {"outputs": [choice.generation.text for choice in self.request.choices]}

    def news(self) -> Iterable[str]:
        for reader in self.readers:
            piece = reader.take()
            if piece is not None and piece.text:
                yield self.event({"outputs": [piece.text]})

    def frame(self, event: str) -> bytes:
        return f"{event}\n".encode()
