"""One continuation as it grows, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from model.decoding.logprobs import CompletionLogprobs
from model.decoding.stop_strings import StopStrings
from model.tokenizer import Tokenizer
from samplers.grammar import InvalidGrammar, Matcher

OnText = Callable[[int, str], None]  # called with (number of the sequence, its next piece of text)


@dataclass
class Generation:
    """One continuation of a prompt.

    text: without special tokens, ended before a stop string. ids: every token drawn, EOS included.
    logprobs: ln probability of each in the distribution it was drawn from; model_logprobs: under softmax of the
    model's logits, before penalties, temperature and filters (empty if not asked for).
    finish_reason: "eos", "stop" (a stop string) or "length".
    completion_logprobs: raw and final logprobs with the most probable alternatives, if `logprobs` asked for them.
    score: of beams, sum(logprobs) / len(ids) ** length_penalty, else None. With beams, logprobs are each token's part
    of the sum: ln p under the model, after penalties; with do_sample also over the temperature, not renormalised.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    model_logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    completion_logprobs: CompletionLogprobs | None = None
    score: float | None = None


class Writer:
    """Turns the tokens of one sequence into its Generation, and knows when it is done.

    number, stream: of the sequence. min_new_tokens: stop strings are looked for in what follows these.
    includes_stop: whether the text has the stop string that ends it; shows_special: whether it has the names of special
    tokens. matcher: of the grammar that the text follows.
    """

    def __init__(
        self,
        prompt: list[int],
        max_new_tokens: int,
        tokenizer: Tokenizer,
        stop_strings: Sequence[str] = (),
        *,
        number: int = 0,
        stream: int = 0,
        on_text: OnText | None = None,
        min_new_tokens: int = 0,
        includes_stop: bool = False,
        shows_special: bool = False,
        matcher: Matcher | None = None,
    ) -> None:
        self.prompt, self.max_new_tokens, self.min_new_tokens = prompt, max_new_tokens, min_new_tokens
        self.number, self.stream, self.on_text = number, stream, on_text
        self.decoder, self.stops = tokenizer.stream(shows_special), StopStrings(stop_strings, includes_stop)
        self.generation, self.matcher = Generation(), matcher

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generation.ids)

    @property
    def forced(self) -> list[int]:
        """Tokens that the grammar is known to force next, as far as the model may read them."""
        if self.matcher is None:
            return []
        return self.matcher.forced[: max(0, self.max_new_tokens - len(self.generation.ids) - 1)]

    def put(self, token: int, is_eos: bool, is_shown: bool = True) -> None:
        """The next token; is_shown: whether it adds its text."""
        ids = self.generation.ids
        ids.append(token)
        if self.matcher is not None and not is_eos:
            self.matcher.put(token)
        text = self.decoder.put(token) if is_shown else ""
        self.show(self.stops.put(text) if len(ids) > self.min_new_tokens else text)
        is_last = is_eos or len(ids) == self.max_new_tokens
        if is_last and not self.stops.found:
            self.show(self.stops.put(self.decoder.end()) + self.stops.end())
        # The reason comes last: to a reader in another thread it says that the text is complete.
        if self.stops.found:
            self.generation.finish_reason = "stop"
        elif is_last:
            self.generation.finish_reason = "eos" if is_eos else "length"

    def show(self, text: str) -> None:
        self.generation.text += text
        if text and self.on_text is not None:
            self.on_text(self.number, text)


class Place(NamedTuple):
    """Where a text gets its next token, or so many tokens ahead, where its grammar forces those between."""

    writer: Writer
    ahead: int = 0

    @property
    def position(self) -> int:
        """Of the draw."""
        return len(self.writer.generation.ids) + self.ahead

    @property
    def text(self) -> list[int]:
        """All tokens before it."""
        return self.writer.prompt + self.writer.generation.ids + self.writer.forced[: self.ahead]

    @property
    def mask(self) -> np.ndarray:
        """Of the tokens that the grammar allows. Raises: InvalidGrammar where the text can't go on."""
        matcher = self.writer.matcher
        assert matcher is not None
        if matcher.problem:
            raise InvalidGrammar(f"grammar, after {len(self.writer.generation.ids)} tokens: {matcher.problem}")
        return matcher.masks[self.ahead]
