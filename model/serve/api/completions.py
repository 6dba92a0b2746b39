"""POST /v1/completions: a text and its continuation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from model.decoding.logprobs import text_offsets
from model.serve.api import logprobs as formats
from model.serve.api.body import only
from model.serve.api.errors import Refusal
from model.serve.api.fields import Alternatives, Count, Ids, OpenAIFields
from model.serve.api.reader import Piece
from model.serve.api.reply import DONE, Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Choice, Request, TokenLogprob

NEW_TOKENS = 16  # OpenAI's default


class CompletionBody(OpenAIFields):
    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=1024, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=1024, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    best_of: Count | None = None
    echo: bool | None = None
    logprobs: Alternatives | None = None
    suffix: only("", why="suffix is not served: the model only continues a text") = None  # type: ignore[valid-type]

    @property
    def prompts(self) -> list[str | list[int]]:
        return prompts_of(self.prompt)

    def request(self, service: Service, key: str = "") -> Request:
        self.check(service)
        count, best_of = self.n or 1, self.best_of or self.n or 1
        if best_of < count:
            raise Refusal(400, f"best_of must be at least n = {count}, got {best_of}", "best_of")
        if self.stream and best_of > count:
            raise Refusal(400, f"best_of must be n = {count} where stream is true, got {best_of}", "best_of")
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise Refusal(400, "max_tokens must be above 0 unless echo is true, got 0", "max_tokens")
        bos = self.add_special_tokens is not False
        prompts = [service.encode("prompt", prompt, bos) for prompt in self.prompts]
        new = service.new_tokens("prompt", prompts, "max_tokens", self.max_tokens, NEW_TOKENS)
        asked = [count for count in (self.prompt_logprobs, self.logprobs if self.echo else None) if count is not None]
        settings = self.settings(
            service,
            new,
            logprobs=0 if self.logprobs is None and best_of > count else self.logprobs,
            prompt_logprobs=max(asked, default=None),
        )
        return service.request(prompts, best_of, settings, self.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> CompletionReply:
        return CompletionReply(service, request, self)


def prompts_of(prompt: Any) -> list[str | list[int]]:
    """One text or list of ids, or several."""
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)


class CompletionReply(Reply):
    def __init__(self, service: Service, request: Request, body: CompletionBody) -> None:
        self.body, self.by_token = body, body.logprobs is not None
        super().__init__(service, request)
        self.names = formats.Names(service.tokenizer, bool(body.return_tokens_as_token_ids))
        self.best_of = len(request.choices) // len(body.prompts)
        self.head = self.head_of("cmpl", "text_completion")
        self.has_begun = [False] * len(request.choices)

    def whole(self) -> Object:
        chosen = self.best()
        pieces = [self.readers[i].take() for i in chosen]
        choices = [
            self.choice(i, piece, place) for place, (i, piece) in enumerate(zip(chosen, pieces, strict=True)) if piece
        ]
        return {**self.head, "choices": choices, "usage": self.usage()}

    def best(self) -> list[int]:
        """Without best_of all choices in their order, else the n of each prompt with the greatest mean raw logprob."""
        count, numbers = self.body.n or 1, range(len(self.readers))
        if self.best_of == count:
            return list(numbers)
        groups = [numbers[i : i + self.best_of] for i in range(0, len(numbers), self.best_of)]
        return [i for group in groups for i in sorted(group, key=self.badness)[:count]]

    def badness(self, number: int) -> float:
        logprobs = [one.logprob for one in self.request.choices[number].logprobs]
        return -math.fsum(logprobs) / max(1, len(logprobs))

    def news(self) -> Iterable[str]:
        for i, reader in enumerate(self.readers):
            piece = reader.take()
            if piece is not None:
                yield self.event({"choices": [self.choice(i, piece, i)]})

    def end(self) -> Iterable[str]:
        if self.body.includes_usage:
            yield self.event({"choices": [], "usage": self.usage()})
        yield DONE

    def choice(self, number: int, piece: Piece, index: int) -> Object:
        """One choice, or its next piece. The first piece has the prompt, if it is asked for."""
        choice, text = self.request.choices[number], piece.text
        is_first, self.has_begun[number] = not self.has_begun[number], True
        echoes = is_first and bool(self.body.echo)
        if echoes:
            text = self.prompt_text(choice) + text
        found: Object = {
            "index": index,
            "text": text,
            "logprobs": self.logprobs(choice, piece, echoes) if self.by_token else None,
            "finish_reason": piece.finish_reason,
        }
        if is_first and self.body.prompt_logprobs is not None:
            found["prompt_logprobs"] = formats.of_prompt(self.names, choice.prompt_logprobs, self.body.prompt_logprobs)
        return found

    def logprobs(self, choice: Choice, piece: Piece, echoes: bool) -> Object:
        """As everywhere in OpenAI's format, offsets count from the beginning of the prompt."""
        base = len(self.prompt_text(choice))
        ids, found, offsets = list(piece.ids), list(piece.logprobs), [base + offset for offset in piece.offsets]
        if echoes:
            ids, found = choice.prompt + ids, [None, *self.cut(choice.prompt_logprobs), *found]  # type: ignore[list-item]
            offsets = self.prompt_offsets(choice) + offsets
        return formats.of_completion(self.names, ids, found, offsets)

    def cut(self, logprobs: list[TokenLogprob]) -> list[TokenLogprob]:
        """With as many alternatives as the new tokens have; prompt_logprobs may ask for more."""
        return [formats.cut(one, self.body.logprobs or 0) for one in logprobs]

    def prompt_text(self, choice: Choice) -> str:
        return self.prompt_texts[choice.index // self.best_of]

    @functools.cached_property
    def prompt_texts(self) -> list[str]:
        """As they were given; of token ids, their text."""
        decode = self.service.tokenizer.decode
        return [prompt if isinstance(prompt, str) else decode(prompt) for prompt in self.body.prompts]

    def prompt_offsets(self, choice: Choice) -> list[int]:
        """Of the prompt's tokens; the space that the tokenizer puts before a text is no character of it."""
        text = self.prompt_text(choice)
        pieces = [self.service.tokenizer.token_bytes(token) for token in choice.prompt]
        shift = len(b"".join(pieces).decode(errors="replace")) - len(text)
        return [max(0, offset - shift) for offset in text_offsets(pieces, len(text) + shift)]
