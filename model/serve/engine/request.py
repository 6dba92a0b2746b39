"""What the engine generates: requests, each of one or more choices."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from model.decoding.logprobs import Ranking
from model.decoding.writer import Writer
from model.tokenizer import Tokenizer
from samplers import SamplingParams
from samplers.batch import signed
from samplers.grammar import CompiledGrammar, Matcher

NO_ROW = -1


@dataclass(frozen=True)
class Settings:
    """How the choices of a request are drawn, and where they end.

    params, seed: of every draw. max_new_tokens: int >= 0; 0 reads the prompt alone. end_ids: token ids that end a text.
    stop_strings: these end it as well. min_new_tokens: nothing but max_new_tokens ends a text before it has so many.
    vocabulary: of the model. allowed: token ids that may be drawn, None for all. grammar: that a text follows, None
    for none; not with allowed.
    logprobs, prompt_logprobs: the number of alternatives for each token drawn and of the prompt, None for no logprobs.
    includes_stop, shows_special: as in `Writer`. traced: whether each draw is kept, for `samplers.trace`.
    """

    params: SamplingParams
    seed: int
    max_new_tokens: int
    vocabulary: int
    end_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    min_new_tokens: int = 0
    allowed: Sequence[int] | None = None
    grammar: CompiledGrammar | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    includes_stop: bool = False
    shows_special: bool = False
    traced: bool = False

    @property
    def has_masks(self) -> bool:
        return self.allowed is not None or self.grammar is not None or self.min_new_tokens > 0

    @cached_property
    def mask(self) -> np.ndarray | None:
        """`allowed` as the sampler reads it: bits in int32 words."""
        return None if self.allowed is None else bits(self.allowed, self.vocabulary)

    @cached_property
    def mask_without_end(self) -> np.ndarray | None:
        """The same without the ids that end a text."""
        if not self.end_ids:
            return self.mask
        return self.going_on if self.mask is None else self.going_on & self.mask

    @cached_property
    def going_on(self) -> np.ndarray:
        """All ids but those that end a text."""
        return ~bits(sorted(self.end_ids), self.vocabulary)


def bits(ids: Sequence[int], vocabulary: int) -> np.ndarray:
    """A set of token ids as int32 words: token v is bit v mod 32 of word v div 32.

    >>> bits([0, 33], 40).tolist()
    [1, 2]
    """
    words = np.zeros(-(-vocabulary // 32), np.uint32)
    tokens = np.unique(ids).astype(np.uint32)
    np.bitwise_or.at(words, tokens >> 5, np.uint32(1) << (tokens & 31))
    return words.view(np.int32)


@dataclass(frozen=True)
class TokenLogprob:
    """A token's raw logprob, in nats, and those of the most probable tokens at its place."""

    id: int
    logprob: float
    top: Ranking


class Drawn(NamedTuple):
    """What a token was drawn from. logits: float32 [V], untouched; mask: bits in int32 [W], None for all."""

    logits: np.ndarray
    mask: np.ndarray | None


class Choice:
    """One continuation of a prompt, as it grows.

    index: among the choices of its request. stream: of its draws. row: of the batch, NO_ROW while it waits.
    read: its tokens that the model has read. logprobs, prompt_logprobs: filled if its settings ask for them; the
    first token of a prompt has none. draws: of each token, if its settings ask for them, until
    its reader takes them.
    """

    def __init__(self, index: int, prompt: list[int], settings: Settings, stream: int, tokenizer: Tokenizer) -> None:
        self.index, self.prompt, self.settings = index, prompt, settings
        self.seed, self.stream = signed(settings.seed), signed(stream)
        self.row, self.read = NO_ROW, 0
        self.logprobs: list[TokenLogprob] = []
        self.prompt_logprobs: list[TokenLogprob] = []
        self.draws: deque[Drawn] = deque()
        self.request: Request
        self.last_token_at = 0.0
        self.writer = Writer(
            prompt,
            settings.max_new_tokens,
            tokenizer,
            settings.stop_strings,
            stream=stream,
            min_new_tokens=settings.min_new_tokens,
            includes_stop=settings.includes_stop,
            shows_special=settings.shows_special,
            matcher=None if settings.grammar is None else settings.grammar.matcher(),
        )
        self.generation = self.writer.generation

    @property
    def most_positions(self) -> int:
        """In the cache. The last token drawn is never read."""
        return len(self.prompt) + max(0, self.settings.max_new_tokens - 1)

    @property
    def is_reading(self) -> bool:
        """Whether the model has not read the whole prompt."""
        return self.read < len(self.prompt)

    @property
    def is_done(self) -> bool:
        return bool(self.generation.finish_reason)

    @property
    def next_ids(self) -> list[int]:
        """That the model reads next, once it has read the prompt: the last token and those known to follow it."""
        return self.generation.ids[-1:] + self.writer.forced

    @property
    def matcher(self) -> Matcher | None:
        return self.writer.matcher

    def mask(self, ahead: int) -> np.ndarray | None:
        """What the next draw may take, or that of so many tokens later."""
        settings = self.settings
        may_end = len(self.generation.ids) + ahead >= settings.min_new_tokens
        if self.matcher is None:
            return settings.mask if may_end else settings.mask_without_end
        mask = self.matcher.masks[ahead]
        going_on = mask if may_end else mask & settings.going_on
        return going_on if going_on.any() else mask  # what the grammar has finished can only end

    def put(self, token: int, logprob: float) -> None:
        """The token drawn, and its logprob in the distribution that it was drawn from."""
        ends = token in self.settings.end_ids
        self.generation.logprobs.append(logprob)
        self.writer.put(token, ends, is_shown=not ends or self.settings.includes_stop)


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer. status: of HTTP; code: a name for programs."""

    status: int
    code: str
    message: str


class Request:
    """Choices that are answered together.

    key: who asks; requests of different keys take turns. seconds: after which it fails, None for never. is_streamed:
    whether its reader wants to hear of every token. failure: set if it ended without an answer. wake: the reader's,
    for who drives the engine to call.
    """

    def __init__(
        self, choices: list[Choice], key: str = "", seconds: float | None = None, is_streamed: bool = False
    ) -> None:
        self.choices, self.key, self.is_streamed = choices, key, is_streamed
        self.left = len(choices)
        self.failure: Failure | None = None
        self.wake: Callable[[], None] = lambda: None
        self.arrived = time.monotonic()
        self.deadline = math.inf if seconds is None else self.arrived + seconds
        for choice in choices:
            choice.request = self

    @property
    def is_over(self) -> bool:
        return self.left == 0 or self.failure is not None
