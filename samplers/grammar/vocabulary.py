"""The bytes that each token adds to a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from samplers.grammar.llguidance import library


class Vocabulary:
    """What a grammar needs to know of a tokenizer.

    size: of the model's vocabulary, which may have ids that the tokenizer lacks: no text has these.
    """

    def __init__(self, size: int, make: Callable[[tuple[int, ...]], Any]) -> None:
        """make: from the ids that end a text, llguidance's tokenizer."""
        self.size, self.make = size, functools.lru_cache(maxsize=4)(make)

    @classmethod
    def of_bytes(cls, tokens: Sequence[bytes], special: Collection[int] = (), size: int | None = None) -> Vocabulary:
        """From the bytes of each token; those of special tokens are their names, which no text has.

        >>> Vocabulary.of_bytes([b"<end>", b"a", b"b"], special=[0]).size
        3
        """
        missing = range(len(tokens), size or len(tokens))
        named = [*tokens, *(f"<no token {i}>".encode() for i in missing)]
        described = Described(named, [*special, *missing])

        def make(end_ids: tuple[int, ...]) -> Any:
            llguidance = library()
            described.eos_token_id = end_ids[0]
            return llguidance.LLTokenizer(llguidance.TokenizerWrapper(described), eos_token=list(end_ids))

        return cls(len(named), make)


class Described:
    """A vocabulary as llguidance's TokenizerWrapper reads it."""

    eos_token_id = 0
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int]) -> None:
        self.tokens, self.special_token_ids = tokens, special

    def __call__(self, text: str) -> list[int]:
        """Never needed: any tokens will do that have the right bytes."""
        raise NotImplementedError
