"""The model that is served, and what every request needs of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from model.llama import Llama
from model.serve.api.errors import Refusal
from model.serve.api.grammars import MAX_SECONDS, GrammarCompiler
from model.serve.engine.request import Choice, Request, Settings
from model.tokenizer import Tokenizer
from model.untrusted import shown

MOST_CHOICES = 1024  # of one request
MOST_LOGPROBS = 1_000_000


@dataclass
class Service:
    """A model under one name or several.

    template, space_after_special: of its chats, as in `encode_chat`; template "" where the model's own is unknown.
    most_positions: that the engine has memory for. seconds: that a request may take, None for any. grammar_seconds:
    that it may wait for its grammar.
    """

    llama: Llama
    tokenizer: Tokenizer
    names: tuple[str, ...]
    fingerprint: str
    template: str
    space_after_special: bool
    most_positions: int
    seconds: float | None = None
    grammar_seconds: float = MAX_SECONDS
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def grammars(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer, self.llama.config.vocab_size, self.grammar_seconds)

    @property
    def window(self) -> int:
        return self.llama.config.max_position_embeddings

    @property
    def name(self) -> str:
        """That replies give."""
        return self.names[0]

    def check_model(self, name: str | None) -> None:
        if name is not None and name not in self.names:
            names = " or ".join(map(repr, self.names))
            raise Refusal(404, f"model must be {names}, got {shown(name)}", "model", "model_not_found")

    def encode(self, name: str, prompt: str | Sequence[int], bos: bool = True) -> list[int]:
        """Token ids of a prompt: of a text, or ids as they are."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, bos=bos)
        vocabulary = self.llama.config.vocab_size
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise Refusal(400, f"{name} must hold token ids in 0 .. {vocabulary - 1}, got {token}", name)
        return list(prompt)

    def new_tokens(
        self, prompt: str, prompts: Sequence[list[int]], name: str, asked: int | None, default: int | None
    ) -> int:
        """How many tokens may follow the prompts: as asked, else the default (None: as many as fit).

        prompt, name: of the request's fields for the prompts and for the number.
        Raises: Refusal with the arithmetic where they do not fit into the window or the engine's memory.
        """
        if not min(map(len, prompts)):
            raise Refusal(400, f"{prompt} must hold at least one token, got none", prompt)
        longest = max(map(len, prompts))
        left = self.window - longest  # not of the memory: a default must not depend on the machine
        wanted = max(1, left if default is None else min(default, left)) if asked is None else asked
        room = min(self.window, self.most_positions) - longest
        if wanted > room:
            name = prompt if asked is None else name
            raise Refusal(
                400,
                f"{name}: {longest} prompt tokens + {wanted} new = {longest + wanted} > {longest + room}, the model's "
                f"window or what the server has memory for: shorten one of them by {wanted - room}",
                name,
                "context_length_exceeded",
            )
        return wanted

    def request(
        self,
        prompts: Sequence[list[int]],
        count: int,
        settings: Settings,
        first_stream: int,
        key: str,
        is_streamed: bool,
    ) -> Request:
        """`count` choices of each prompt, numbered through; choice i draws with stream first_stream + i."""
        total = len(prompts) * count
        if total > MOST_CHOICES:
            got = f"{len(prompts)} prompts x {count}"
            raise Refusal(400, f"n: a request must have at most {MOST_CHOICES} choices, got {got}", "n")
        if settings.grammar is not None and total * settings.grammar.seconds > self.grammar_seconds:
            message = f"n: {total} texts need a copy each of a grammar that takes {settings.grammar.seconds:.1g} s, "
            message += f"and --max-grammar-seconds is {self.grammar_seconds:g}"
            raise Refusal(400, message, "n", "grammar_too_large")
        for name, tokens in (
            ("logprobs", total * settings.max_new_tokens),
            ("prompt_logprobs", sum(map(len, prompts))),
        ):
            alternatives = getattr(settings, name)
            if alternatives is not None and tokens * (1 + alternatives) > MOST_LOGPROBS:
                got = f"{tokens} tokens x (1 + {alternatives} alternatives)"
                raise Refusal(400, f"{name}: a reply must have at most {MOST_LOGPROBS} logprobs, got {got}", name)
        silent = replace(settings, prompt_logprobs=None)
        choices: list[Choice] = []
        for i in range(total):
            is_first = i % count == 0
            prompt = prompts[i // count]
            choice = Choice(i, prompt, settings if is_first else silent, first_stream + i, self.tokenizer)
            if not is_first:  # one prompt is recorded once
                choice.prompt_logprobs = choices[i - i % count].prompt_logprobs
            choices.append(choice)
        return Request(choices, key, self.seconds, is_streamed)
