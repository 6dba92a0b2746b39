"""One continuation as it grows, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.decoding.logprobs import CompletionLogprobs
from model.decoding.stop_strings import StopStrings
from model.tokenizer import Tokenizer

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
    tokens.
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
    ) -> None:
        self.prompt, self.max_new_tokens, self.min_new_tokens = prompt, max_new_tokens, min_new_tokens
        self.number, self.stream, self.on_text = number, stream, on_text
        self.decoder, self.stops = tokenizer.stream(shows_special), StopStrings(stop_strings, includes_stop)
        self.generation = Generation()

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generation.ids)

    def put(self, token: int, is_eos: bool, is_shown: bool = True) -> None:
        """The next token; is_shown: whether it adds its text."""
        ids = self.generation.ids
        ids.append(token)
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
