"""A small vocabulary: every byte, and tokens of several bytes, as tokenizers have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samplers.grammar import CompiledGrammar, Grammar, Vocabulary, compiled

END = 0
MERGED = [
    '{"',
    '":',
    '": ',
    '",',
    '"}',
    "}}",
    "],",
    '"]',
    "true",
    "false",
    "null",
    "an",
    "the ",
    "12",
    "00",
    "é",
    "日本",
    "  ",
]
TOKENS = [b"<end>", b"<unknown>", *(bytes([i]) for i in range(256)), *(text.encode() for text in MERGED)]
VOCABULARY = Vocabulary.of_bytes(TOKENS, special=[END, 1])
# Random texts end soon if what closes a string or a list is likely.
CLOSING = {'"': 3, "}": 3, "]": 3, '"}': 2, ",": -1, " ": -2, "\n": -2, "\t": -2, "\r": -2, "  ": -2}
BIAS = np.array([4.0 if i == END else CLOSING.get(token.decode("latin-1"), 0) for i, token in enumerate(TOKENS)])


def following(grammar: Grammar) -> CompiledGrammar:
    return compiled(grammar, VOCABULARY, [END])


def text_of(ids: Sequence[int]) -> bytes:
    return b"".join(TOKENS[i] for i in ids if i != END)


def tokens_of(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), count=len(TOKENS), bitorder="little")).tolist()
