"""What of a growing choice is new to its reader."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from model.serve.engine.request import Choice, TokenLogprob
from model.tokenizer import Tokenizer

FINISH_REASONS = {"": None, "eos": "stop", "stop": "stop", "length": "length"}  # ours: OpenAI's


class Piece(NamedTuple):
    """The next piece of a text: tokens with their logprobs, if these were asked for.

    offsets: of each token, the index in the whole text of the character that holds its first byte.
    finish_reason: OpenAI's, of the last piece.
    """

    text: str
    ids: list[int]
    logprobs: list[TokenLogprob]
    offsets: list[int]
    finish_reason: str | None


class ChoiceReader:
    """Reads a choice piece by piece while the engine's thread writes it; all pieces joined are the same in any case.

    by_token: whether the pieces tell of tokens. A token appears once its first character does: until then a stop
    string may still cut it off.
    """

    def __init__(self, choice: Choice, tokenizer: Tokenizer, by_token: bool) -> None:
        self.choice, self.tokenizer, self.by_token = choice, tokenizer, by_token
        self.characters = self.tokens = 0  # read so far
        self.offsets: list[int] = []
        self.decoder, self.complete = codecs.getincrementaldecoder("utf-8")(errors="replace"), 0
        self.is_over = False

    def take(self) -> Piece | None:
        """The next piece, None if there is nothing new."""
        generation = self.choice.generation
        finish = FINISH_REASONS[generation.finish_reason]  # first: what is read after it is complete
        text, ids = generation.text, generation.ids
        if self.is_over or (len(text) == self.characters and finish is None):
            return None
        first, last, self.is_over = self.tokens, len(ids), finish is not None
        if self.by_token:
            self.locate(ids)
            while not self.is_over and last > first and self.offsets[last - 1] >= len(text):
                last -= 1
        new, self.characters, self.tokens = text[self.characters :], len(text), last
        offsets = [min(offset, len(text)) for offset in self.offsets[first:last]]
        return Piece(new, ids[first:last], self.choice.logprobs[first:last], offsets, finish)

    def locate(self, ids: list[int]) -> None:
        """The offsets of the tokens that have none."""
        for token in ids[len(self.offsets) :]:
            data = self.tokenizer.token_bytes(token)
            if not data and self.choice.settings.shows_special:
                self.offsets.append(self.complete)
                self.complete += len(self.tokenizer.pieces([token])[0])
                continue
            self.complete += len(self.decoder.decode(data[:1]))
            is_pending = bool(self.decoder.getstate()[0])
            self.offsets.append(self.complete if is_pending or not data else self.complete - 1)
            self.complete += len(self.decoder.decode(data[1:]))
