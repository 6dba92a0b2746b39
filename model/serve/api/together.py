"""POST /inference: Together's first API, as tutorials call it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from model.serve.api.body import WithoutEffect
from model.serve.api.fields import DrawingFields
from model.serve.api.reader import Piece
from model.serve.api.reply import DONE, Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request

NEW_TOKENS = 128


class InferenceBody(DrawingFields):
    prompt: str
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream_tokens: bool | None = None
    request_type: WithoutEffect = None
    safety_model: WithoutEffect = None

    @property
    def stream(self) -> bool:
        return bool(self.stream_tokens)

    def request(self, service: Service, key: str = "") -> Request:
        service.check_model(self.model)
        prompts = [service.encode("prompt", self.prompt)]
        new = service.new_tokens("prompt", prompts, "max_tokens", self.max_tokens, NEW_TOKENS)
        return service.request(prompts, 1, self.settings(service, new), self.stream_of(0), key, self.stream)

    def reply(self, service: Service, request: Request) -> InferenceReply:
        return InferenceReply(service, request, self)


class InferenceReply(Reply):
    def __init__(self, service: Service, request: Request, body: InferenceBody) -> None:
        super().__init__(service, request)
        self.body, self.head = body, {"id": self.id}

    def whole(self) -> Object:
        (piece,) = (reader.take() for reader in self.readers)
        return {
            "status": "finished",
            "id": self.id,
            "prompt": [self.body.prompt],
            "model": self.service.name,
            "model_owner": "",
            "num_returns": 1,
            "args": self.body.model_dump(exclude_none=True, exclude={"request_type", "safety_model"}),
            "subjobs": [],
            "output": {"result_type": "language-model-inference", "choices": [choice(piece)] if piece else []},
        }

    def news(self) -> Iterable[str]:
        for reader in self.readers:
            piece = reader.take()
            if piece is not None:
                yield self.event({"choices": [choice(piece)]})

    def end(self) -> Iterable[str]:
        yield DONE


def choice(piece: Piece) -> Object:
    return {"text": piece.text, "finish_reason": piece.finish_reason}
