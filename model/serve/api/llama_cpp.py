"""POST /completion: the API of llama.cpp's own server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from model.decoding.options import SAMPLING
from model.serve.api import logprobs as formats
from model.serve.api.body import WithoutEffect, only
from model.serve.api.completions import prompts_of
from model.serve.api.errors import Refusal
from model.serve.api.fields import MOST_PENALTY, Alternatives, DrawingFields, Ids
from model.serve.api.grammars import Asked, Schema, asked
from model.serve.api.reader import Piece
from model.serve.api.reply import Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request, TokenLogprob
from samplers.grammar import Grammar

STOP_TYPES = {"eos": "eos", "stop": "word", "length": "limit"}


class LlamaCppBody(DrawingFields):
    """Its names for what we have; `logit_bias` is OpenAI's object here."""

    prompt: str | Ids | Annotated[list[str | Ids], Field(min_length=1, max_length=1024, fail_fast=True)]
    n_predict: Annotated[int, Field(ge=-1)] | None = Field(default=None, description="null and -1: as many as fit")
    stream: bool | None = None
    repeat_penalty: float | None = Field(default=None, ge=1 / MOST_PENALTY, le=MOST_PENALTY)
    repeat_last_n: only(-1, why="penalties look at all tokens: repeat_last_n must be -1") = None  # type: ignore[valid-type]
    n_probs: Alternatives | None = None
    min_keep: Annotated[int, Field(ge=0)] | None = None
    return_tokens: bool | None = None
    cache_prompt: WithoutEffect = None
    id_slot: WithoutEffect = None
    timings_per_token: only(False, why="timings_per_token is not served: see /metrics") = None  # type: ignore[valid-type]
    mirostat: only(0, why="mirostat is not served") = None  # type: ignore[valid-type]
    dynatemp_range: only(0, 0.0, why="dynatemp_range is not served") = None  # type: ignore[valid-type]
    grammar: str | None = Field(default=None, description="GBNF, or Lark")
    json_schema: Schema | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        return prompts_of(self.prompt)

    @property
    def no_seed(self) -> tuple[int | None, ...]:
        return (None, -1, 2**32 - 1)  # llama.cpp's own ways to say so

    def grammar_asked(self) -> Asked | None:
        if self.grammar and self.json_schema is not None:
            raise Refusal(400, "grammar must be empty where json_schema is given", "grammar")
        if self.grammar:
            return asked("grammar", Grammar.lark, self.grammar)
        return None if self.json_schema is None else asked("json_schema", Grammar.json_schema, self.json_schema)

    def given(self) -> dict[str, Any]:
        values = super().given()
        for ours, theirs in (("repetition_penalty", "repeat_penalty"), ("min_tokens_to_keep", "min_keep")):
            value = getattr(self, self.one_of(ours, theirs))
            if value:  # min_keep may be 0
                values[ours] = value
        return values

    def request(self, service: Service, key: str = "") -> Request:
        prompts = [service.encode("prompt", prompt) for prompt in self.prompts]
        asked = None if self.n_predict == -1 else self.n_predict
        new = service.new_tokens("prompt", prompts, "n_predict", asked, None)
        settings = self.settings(service, new, logprobs=self.n_probs or None)
        return service.request(prompts, 1, settings, self.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> LlamaCppReply:
        return LlamaCppReply(service, request, self)


class LlamaCppReply(Reply):
    """One body for each prompt; a list of them where there are several."""

    def __init__(self, service: Service, request: Request, body: LlamaCppBody) -> None:
        self.body, self.by_token = body, True
        super().__init__(service, request)
        self.names = formats.Names(service.tokenizer, by_id=False)

    def whole(self) -> Any:
        pieces = [reader.take() for reader in self.readers]
        bodies = [self.ending(i, piece) for i, piece in enumerate(pieces) if piece is not None]
        return bodies if len(bodies) > 1 else bodies[0]

    def news(self) -> Iterable[str]:
        for i, reader in enumerate(self.readers):
            piece = reader.take()
            if piece is not None:
                yield self.event(
                    self.ending(i, piece) if piece.finish_reason else {**self.part(i, piece), "stop": False}
                )

    def part(self, index: int, piece: Piece) -> Object:
        is_asked = self.body.stream or self.body.return_tokens
        found: Object = {"index": index, "content": piece.text, "tokens": piece.ids if is_asked else []}
        if self.body.n_probs:
            found["completion_probabilities"] = [self.probabilities(one) for one in piece.logprobs]
        return found

    def probabilities(self, logprob: TokenLogprob) -> Object:
        top = [self.named(token, value) for token, value in logprob.top]
        return {**self.named(logprob.id, logprob.logprob), "top_logprobs": top}

    def named(self, token: int, logprob: float) -> Object:
        return {"id": token, **formats.named(self.names, token, logprob)}

    def ending(self, index: int, piece: Piece) -> Object:
        choice = self.request.choices[index]
        settings = choice.settings
        return {
            **self.part(index, piece),
            "stop": True,
            "model": self.service.name,
            "prompt": self.body.prompts[index],
            "tokens_predicted": len(choice.generation.ids),
            "tokens_evaluated": len(choice.prompt),
            "truncated": False,
            "stop_type": STOP_TYPES[choice.generation.finish_reason],
            "stopping_word": choice.writer.stops.string,
            "generation_settings": {
                "seed": settings.seed,
                "n_predict": settings.max_new_tokens,
                "stop": list(settings.stop_strings),
                **{name: getattr(settings.params, name) for name in SAMPLING if name != "logit_bias"},
            },
        }
