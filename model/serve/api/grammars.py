"""What a text must be, as OpenAI's clients and those of vLLM, text-generation-inference and llama.cpp ask for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from model.decoding.grammar import grammar_for
from model.serve.api.body import Body, StopString, WithoutEffect, only
from model.serve.api.errors import Refusal
from model.tokenizer import Tokenizer
from samplers.grammar import CompiledGrammar, Grammar, InvalidGrammar

MAX_SECONDS = 5.0
Schema = dict[str, Any] | bool
Pattern = Annotated[str, Field(min_length=1)]
IN_BODIES = (b"response_format", b"structured_outputs", b"grammar", b"json_schema")  # a body without these has none


class Asked(NamedTuple):
    """A grammar, and the field of the request that asks for it."""

    field: str
    grammar: Grammar


def asked(field: str, make: Callable[..., Grammar], *arguments: Any, **options: Any) -> Asked:
    """Raises: Refusal naming the field."""
    try:
        return Asked(field, make(*arguments, **options))
    except InvalidGrammar as error:
        raise invalid(field, error) from None
    except ImportError as error:
        raise Refusal(400, f"{field}: {error}", field) from None


def invalid(field: str, error: InvalidGrammar) -> Refusal:
    return Refusal(400, f"{field}: {error}", field, "invalid_grammar")


class NamedSchema(Body):
    """OpenAI's `response_format.json_schema`. A schema is followed whether it is strict or not."""

    name: WithoutEffect = None
    description: WithoutEffect = None
    schema_: Schema = Field(alias="schema")
    strict: WithoutEffect = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None
    schema_: Schema | None = Field(default=None, alias="schema", description="of json_object, as Together has it")

    def asked(self) -> Asked | None:
        """Raises: Refusal for a schema that its type does not have, or lacks."""
        if (self.json_schema is None) == (self.type == "json_schema"):
            wanted = "given where" if self.json_schema is None else "null unless"
            name = "response_format.json_schema"
            raise Refusal(400, f"{name} must be {wanted} response_format.type is json_schema", name)
        if self.schema_ is not None and self.type != "json_object":
            name = "response_format.schema"
            raise Refusal(400, f"{name} must be null unless response_format.type is json_object", name)
        if self.json_schema is not None:
            return asked("response_format.json_schema.schema", Grammar.json_schema, self.json_schema.schema_)
        if self.type == "json_object":
            schema = {"type": "object"} if self.schema_ is None else self.schema_
            return asked("response_format.schema", Grammar.json_schema, schema)
        return None


class StructuredOutputs(Body):
    """vLLM's names. `grammar` is Lark, or llama.cpp's GBNF."""

    json_: Schema | str | None = Field(default=None, alias="json")
    regex: Pattern | None = None
    choice: Annotated[list[StopString], Field(min_length=1, max_length=1024, fail_fast=True)] | None = None
    grammar: Pattern | None = None
    json_object: only(True, False, why="json_object must be true or false") = None  # type: ignore[valid-type]
    structural_tag: only(why="structural_tag is not served") = None  # type: ignore[valid-type]
    disable_any_whitespace: bool | None = None
    whitespace_pattern: Pattern | None = None
    disable_fallback: WithoutEffect = None
    disable_additional_properties: only(False, why="the schema says which properties there may be") = None  # type: ignore[valid-type]

    def asked(self) -> Asked:
        """Raises: Refusal unless it is exactly one thing."""
        schema = {"type": "object"} if self.json_object else self.json_
        field = "structured_outputs." + ("json_object" if self.json_object else "json")
        makers: dict[str, tuple[Any, Callable[..., Grammar]]] = {
            field: (schema, self.json_schema),
            "structured_outputs.regex": (self.regex, Grammar.regex),
            "structured_outputs.choice": (self.choice, Grammar.choice),
            "structured_outputs.grammar": (self.grammar, Grammar.lark),
        }
        given = {name: pair for name, pair in makers.items() if pair[0] is not None}
        if len(given) != 1 or (self.json_object and self.json_ is not None):
            names = "json, regex, choice, grammar or json_object"
            raise Refusal(400, f"structured_outputs must have exactly one of {names}", "structured_outputs")
        ((name, (value, make)),) = given.items()
        if name != field and (self.disable_any_whitespace or self.whitespace_pattern):
            which = "whitespace_pattern" if self.whitespace_pattern else "disable_any_whitespace"
            param = f"structured_outputs.{which}"
            raise Refusal(400, f"{param} must be null with {name}: it is for JSON", param)
        return asked(name, make, value)

    def json_schema(self, schema: Any) -> Grammar:
        return Grammar.json_schema(
            schema, compact=bool(self.disable_any_whitespace), whitespace=self.whitespace_pattern
        )


class GrammarCompiler:
    """Compiles one grammar at a time, in a thread of its own, and remembers the last ones.

    seconds: that a request waits for its grammar. A thread can't be ended, but what the library does has an end: see
    `samplers.grammar.compiled_grammar.limits`.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, seconds: float = MAX_SECONDS) -> None:
        self.tokenizer, self.vocabulary, self.seconds = tokenizer, vocabulary, seconds
        self.known = functools.lru_cache(maxsize=32)(self.compile)

    @functools.cached_property
    def pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "alea-compile")

    def compile(self, grammar: Grammar, end_ids: tuple[int, ...]) -> CompiledGrammar:
        return grammar_for(grammar, self.tokenizer, self.vocabulary, end_ids)

    def compiled(self, asked: Asked, end_ids: tuple[int, ...]) -> CompiledGrammar:
        """Raises: Refusal naming the field, for what can't be followed or takes too long."""
        future = self.pool.submit(self.known, asked.grammar, end_ids)
        try:
            return future.result(self.seconds)
        except InvalidGrammar as error:
            raise invalid(asked.field, error) from None
        except TookTooLong:
            future.cancel()
            message = f"{asked.field} takes longer to compile than --max-grammar-seconds = {self.seconds:g} allows"
            raise Refusal(400, message, asked.field, "grammar_too_large") from None
