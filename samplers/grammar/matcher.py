"""Follows one text through its grammar, and gives the mask of each draw."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from samplers.grammar.grammar import InvalidGrammar, explained

MOST_FORCED = 32  # tokens that are known ahead, so that one text does not hold up the others of its batch


class Matcher:
    """Where a text stands in its grammar.

    masks: int32 [W], one for each of the next draws that are known: bit v mod 32 of word v div 32 is 1 if token v is
    allowed. forced: the tokens that must come next, each the only one that its mask allows; `masks` has one more.
    problem: why the text can't go on, "" where it can. Only `look_ahead` takes time, and another thread may call it
    between a `put` and the next draw.
    """

    def __init__(self, parser: Any, vocabulary: int, end_ids: frozenset[int]) -> None:
        self.parser, self.vocabulary, self.end_ids = parser, vocabulary, end_ids
        self.masks: list[np.ndarray] = []
        self.forced: list[int] = []
        self.unread: list[int] = []  # drawn, and unknown to the parser
        self.problem = ""

    def copy(self) -> Matcher:
        """One that stands at the same place. The two share what the library may spend."""
        twin = copy.copy(self)
        twin.parser = self.parser.deep_copy()
        twin.masks, twin.forced, twin.unread = list(self.masks), list(self.forced), list(self.unread)
        return twin

    def put(self, token: int) -> None:
        """The token that was drawn. Raises: ValueError if its mask excludes it."""
        mask = self.masks.pop(0)
        if not mask[token >> 5] >> (token & 31) & 1:
            raise ValueError(f"token must be one that the grammar allows here, got {token}")
        if self.forced:
            self.forced.pop(0)
        else:
            self.unread.append(token)

    def look_ahead(self) -> None:
        """Find the mask of the next draw, and those after it as long as one token alone is allowed."""
        for token in self.unread:
            self.read(token)
        self.unread = []
        while len(self.masks) == len(self.forced):
            mask = self.next_mask()
            self.masks.append(mask)
            only = only_token(mask)
            if only is not None and only not in self.end_ids and len(self.forced) < MOST_FORCED:
                self.read(only)
                self.forced.append(only)

    def allowed(self) -> np.ndarray:
        """The mask of the next draw. Raises: InvalidGrammar where the text can't go on."""
        self.look_ahead()
        if self.problem:
            raise InvalidGrammar(f"grammar: {self.problem}")
        return self.masks[0]

    def read(self, token: int) -> None:
        self.parser.consume_token(token)

    def next_mask(self) -> np.ndarray:
        mask = np.zeros(-(-self.vocabulary // 32), np.int32)
        self.parser.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self.parser.is_error():
            self.problem = explained(self.parser.get_error())
        return mask


def only_token(mask: np.ndarray) -> int | None:
    """The token of a mask that allows one alone."""
    words = np.flatnonzero(mask)
    if len(words) != 1:
        return None
    word = int(mask[words[0]]) & 0xFFFFFFFF
    return None if word & (word - 1) else 32 * int(words[0]) + word.bit_length() - 1
