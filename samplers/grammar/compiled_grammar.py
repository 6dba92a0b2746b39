"""A grammar over a vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from samplers.grammar.grammar import Grammar, InvalidGrammar
from samplers.grammar.llguidance import library
from samplers.grammar.matcher import Matcher
from samplers.grammar.vocabulary import Vocabulary

# The library's fast forwarding tokenizes what must follow by itself. Without it a mask allows every token that fits, so
# a text does not depend on what is known to follow.
NO_FORCING = '\n%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True, eq=False)
class CompiledGrammar:
    """A grammar and a vocabulary that fit together.

    end_ids: that end a text. seconds: that a new matcher takes, about.
    """

    grammar: Grammar
    vocabulary: Vocabulary
    end_ids: tuple[int, ...]
    seconds: float

    def matcher(self) -> Matcher:
        """For a new text, which shares nothing with others: what the library may spend on it is its own."""
        return new_matcher(self.grammar, self.vocabulary, self.end_ids)


def compiled(grammar: Grammar, vocabulary: Vocabulary, end_ids: Sequence[int]) -> CompiledGrammar:
    """Bring a grammar and a vocabulary together.

    end_ids: ids that end a text, at least one; a finished text allows nothing else.
    Raises: InvalidGrammar saying why no text can follow the grammar, or what of it the library can't do.

    >>> vocabulary = Vocabulary.of_bytes([b"<end>", b"a", b"b", b"ab"], special=[0])
    >>> matcher = compiled(Grammar.regex("ab+"), vocabulary, end_ids=[0]).matcher()
    >>> matcher.allowed().tolist()  # a and ab
    [10]
    """
    if not end_ids:
        raise InvalidGrammar("grammar needs an id that ends a text, got none")
    vocabulary.make(tuple(end_ids))  # once, and remembered
    began = perf_counter()
    first = new_matcher(grammar, vocabulary, tuple(end_ids))
    seconds = perf_counter() - began
    first.look_ahead()
    if first.problem:
        raise InvalidGrammar(f"{grammar.kind} can't be followed: {first.problem}")
    return CompiledGrammar(grammar, vocabulary, tuple(end_ids), seconds)


def new_matcher(grammar: Grammar, vocabulary: Vocabulary, end_ids: tuple[int, ...]) -> Matcher:
    rules = grammar.rules + NO_FORCING
    parser = library().LLMatcher(vocabulary.make(end_ids), rules, log_level=0, limits=limits())
    return Matcher(parser, vocabulary.size, frozenset(end_ids))


@functools.cache
def limits() -> Any:
    """Of the work and the memory that a text may cost, the same on every machine."""
    return library().LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
