"""POST /completion: the API of llama.cpp's own server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from model.serve.api import logprobs as formats
from model.serve.api.fields import Alternatives, DrawingFields, Penalty, TokenId, WithoutEffect, only
from model.serve.api.reader import Piece
from model.serve.api.reply import Event, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request

STOP_TYPES = {"eos": "eos", "stop": "word", "length": "limit"}


class LlamaCppBody(DrawingFields):
    """Its names for what we have; `logit_bias` is OpenAI's object here."""

    prompt: str | Annotated[list[TokenId], Field(min_length=1)]
    n_predict: Annotated[int, Field(ge=-1)] | None = Field(default=None, description="null and -1: as many as fit")
    stream: bool | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=1e6)] | None = None
    repeat_last_n: only(-1, why="penalties look at all tokens: repeat_last_n must be -1") = None  # type: ignore[valid-type]
    presence_penalty: Penalty | None = None
    n_probs: Alternatives | None = None
    min_keep: Annotated[int, Field(ge=0)] | None = None
    return_tokens: bool | None = None
    cache_prompt: WithoutEffect = None
    id_slot: WithoutEffect = None
    timings_per_token: only(False, why="timings_per_token is not served: see /metrics") = None  # type: ignore[valid-type]
    mirostat: only(0, why="mirostat is not served") = None  # type: ignore[valid-type]
    dynatemp_range: only(0, 0.0, why="dynatemp_range is not served") = None  # type: ignore[valid-type]
    grammar: only("", why="grammar is not served") = None  # type: ignore[valid-type]
    json_schema: only(why="json_schema is not served") = None  # type: ignore[valid-type]

    def given(self) -> dict[str, Any]:
        values = super().given()
        if self.repeat_penalty is not None:
            values["repetition_penalty"] = self.repeat_penalty
        if self.min_keep:
            values["min_tokens_to_keep"] = self.min_keep
        return values

    def request(self, service: Service, key: str = "") -> Request:
        prompts = [service.encode("prompt", self.prompt)]
        asked = None if self.n_predict == -1 else self.n_predict
        new = service.new_tokens(prompts, asked, None, "n_predict")
        settings = self.settings(service, new, logprobs=self.n_probs or None)
        return service.request(prompts, 1, settings, self.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> LlamaCppReply:
        return LlamaCppReply(service, request, self)


class LlamaCppReply(Reply):
    def __init__(self, service: Service, request: Request, body: LlamaCppBody) -> None:
        self.body, self.by_token = body, True
        super().__init__(service, request)
        self.names = formats.Names(service.tokenizer, by_id=False)
        (self.choice,), (self.reader,) = request.choices, self.readers

    def whole(self) -> Event:
        piece = self.reader.take()
        assert piece is not None
        return self.ending(piece)

    def news(self) -> Iterable[Event]:
        piece = self.reader.take()
        if piece is not None:
            yield self.ending(piece) if piece.finish_reason else {**self.part(piece), "stop": False}

    def part(self, piece: Piece) -> Event:
        is_asked = self.body.stream or self.body.return_tokens
        found: Event = {"index": 0, "content": piece.text, "tokens": piece.ids if is_asked else []}
        if self.body.n_probs:
            entries = formats.of_chat(self.names, piece.logprobs)["content"]
            found["completion_probabilities"] = [
                {"id": one.id, **entry} for one, entry in zip(piece.logprobs, entries, strict=True)
            ]
        return found

    def ending(self, piece: Piece) -> Event:
        choice, settings = self.choice, self.choice.settings
        stops = choice.writer.stops
        return {
            **self.part(piece),
            "stop": True,
            "model": self.service.name,
            "prompt": self.body.prompt,
            "tokens_predicted": len(choice.generation.ids),
            "tokens_evaluated": len(choice.prompt),
            "truncated": False,
            "stop_type": STOP_TYPES[choice.generation.finish_reason],
            "stopping_word": stops.string,
            "generation_settings": {
                "seed": settings.seed,
                "n_predict": settings.max_new_tokens,
                "stop": list(settings.stop_strings),
                **{name: value for name, value in vars(settings.params).items() if isinstance(value, (int, float))},
            },
        }
