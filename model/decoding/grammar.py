"""Grammars over the vocabulary of a SentencePiece tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from model.tokenizer import Tokenizer
from samplers.grammar import CompiledGrammar, Grammar, Vocabulary, compiled


def grammar_for(grammar: Grammar, tokenizer: Tokenizer, size: int, end_ids: Sequence[int]) -> CompiledGrammar:
    """A grammar for a model with a vocabulary of this size. Raises: InvalidGrammar.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> found = grammar_for(Grammar.choice(["yes", "no"]), tokenizer, tokenizer.vocab_size, [tokenizer.eos_id])
    >>> found.vocabulary.size
    4096
    """
    return compiled(grammar, vocabulary_of(tokenizer, size), end_ids)


@functools.lru_cache(maxsize=4)
def vocabulary_of(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The bytes of each piece."""
    ids = range(tokenizer.vocab_size)
    special = [i for i in ids if not tokenizer.has_text(i)]
    tokens = [tokenizer.token_bytes(i) for i in ids]
    for i in special:
        tokens[i] = tokenizer.pieces([i])[0].encode()
    return Vocabulary.of_bytes(tokens[:size], [i for i in special if i < size], size)
