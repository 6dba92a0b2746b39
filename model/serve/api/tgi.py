"""POST /generate and /generate_stream: the API of Hugging Face's text-generation-inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from model.decoding.logprobs import finite, token_text
from model.serve.api.body import Body, only
from model.serve.api.errors import Refusal
from model.serve.api.fields import DrawingFields
from model.serve.api.grammars import Asked, NamedSchema, Schema, asked
from model.serve.api.reader import Piece
from model.serve.api.reply import Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Choice, Request, TokenLogprob
from model.tokenizer import Tokenizer
from samplers.grammar import Grammar
from samplers.params import PENALTIES

NEW_TOKENS = 100
FINISH_REASONS = {"eos": "eos_token", "stop": "stop_sequence", "length": "length"}


class JsonGrammar(Body):
    type: Literal["json"]
    value: Schema | str


class SchemaGrammar(Body):
    type: Literal["json_schema"]
    value: NamedSchema


class RegexGrammar(Body):
    type: Literal["regex"]
    value: str


class GenerateParameters(DrawingFields):
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    do_sample: bool | None = None
    return_full_text: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    truncate: Annotated[int, Field(ge=1)] | None = Field(default=None, description="keep the last tokens of the prompt")
    best_of: only(1, why="best_of is not served here") = None  # type: ignore[valid-type]
    top_n_tokens: only(0, why="top_n_tokens is not served") = None  # type: ignore[valid-type]
    watermark: only(False, why="watermark is not served") = None  # type: ignore[valid-type]
    grammar: Annotated[JsonGrammar | SchemaGrammar | RegexGrammar, Field(discriminator="type")] | None = None
    adapter_id: only(why="the adapter is chosen when the server starts: --adapter") = None  # type: ignore[valid-type]

    def grammar_asked(self) -> Asked | None:
        if self.grammar is None:
            return None
        value = self.grammar.value
        if isinstance(self.grammar, RegexGrammar):
            return asked("parameters.grammar.value", Grammar.regex, value)
        schema = value.schema_ if isinstance(value, NamedSchema) else value
        return asked("parameters.grammar.value", Grammar.json_schema, schema)


class GenerateBody(Body):
    inputs: str
    parameters: GenerateParameters = GenerateParameters()
    stream: bool | None = None

    def request(self, service: Service, key: str = "") -> Request:
        asked = self.parameters
        if asked.do_sample is False and any(name not in PENALTIES for name in asked.given()):
            raise Refusal(
                400, "do_sample must not be false where a sampling parameter is given", "parameters.do_sample"
            )
        if asked.decoder_input_details and not asked.details:
            raise Refusal(400, "decoder_input_details needs details", "parameters.decoder_input_details")
        prompt = service.encode("inputs", self.inputs)
        if asked.truncate is not None:
            prompt = prompt[-asked.truncate :]
        new = service.new_tokens("inputs", [prompt], "parameters.max_new_tokens", asked.max_new_tokens, NEW_TOKENS)
        settings = asked.settings(
            service,
            new,
            asked.do_sample,
            logprobs=0 if asked.details or self.stream else None,
            prompt_logprobs=0 if asked.decoder_input_details else None,
        )
        return service.request([prompt], 1, settings, asked.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> GenerateReply:
        return GenerateReply(service, request, self)


class StreamBody(GenerateBody):
    """Of /generate_stream."""

    stream: Literal[True] = True


class GenerateReply(Reply):
    def __init__(self, service: Service, request: Request, body: GenerateBody) -> None:
        self.by_token = bool(body.stream or body.parameters.details)
        super().__init__(service, request)
        self.body, (self.choice,), (self.reader,) = body, request.choices, self.readers
        self.held, self.sent = list[Object](), 0

    def whole(self) -> Object:
        piece = self.reader.take()
        found: Object = {"generated_text": self.text()}
        if self.body.parameters.details and piece is not None:
            tokens = self.tokens(piece)
            found["details"] = {**self.ending(), "prefill": self.prefill(), "tokens": tokens}
        return found

    def news(self) -> Iterable[str]:
        """An event for each token. The newest waits for the next: the last one carries the whole text."""
        piece = self.reader.take()
        if piece is None:
            return
        tokens, self.held = self.held + self.tokens(piece), list[Object]()
        is_over = piece.finish_reason is not None
        if not is_over:
            tokens, self.held = tokens[:-1], tokens[-1:]
        for i, token in enumerate(tokens, 1):
            is_last = is_over and i == len(tokens)
            self.sent += 1
            yield self.event(
                {
                    "index": self.sent,
                    "token": token,
                    "generated_text": self.text() if is_last else None,
                    "details": self.ending() if is_last else None,
                }
            )

    def text(self) -> str:
        full = self.body.inputs if self.body.parameters.return_full_text else ""
        return full + self.choice.generation.text

    def ending(self) -> Object:
        generation = self.choice.generation
        return {
            "finish_reason": FINISH_REASONS[generation.finish_reason],
            "generated_tokens": len(generation.ids),
            "seed": self.choice.settings.seed,
        }

    def tokens(self, piece: Piece) -> list[Object]:
        return [described(self.service.tokenizer, token) for token in piece.logprobs]

    def prefill(self) -> list[Object]:
        if not self.body.parameters.decoder_input_details:
            return []
        return prompt_tokens(self.service.tokenizer, self.choice)


def prompt_tokens(tokenizer: Tokenizer, choice: Choice) -> list[Object]:
    first: Object = {"id": choice.prompt[0], "text": token_text(tokenizer, choice.prompt[0]), "logprob": None}
    names = ("id", "text", "logprob")
    rest = (described(tokenizer, token) for token in choice.prompt_logprobs)
    return [first, *({name: token[name] for name in names} for token in rest)]


def described(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, Any]:
    text = token_text(tokenizer, token.id)
    return {"id": token.id, "text": text, "logprob": finite(token.logprob), "special": text in tokenizer.special}
