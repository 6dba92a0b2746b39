"""Constrained decoding: a text that must follow a JSON schema, a regular expression, a list or a grammar.

`Grammar` says what the text must be, `Vocabulary` which bytes each token adds, and `compiled` brings the two together.
A `Matcher` then follows one text and gives the mask of allowed tokens for each draw. llguidance (extra `grammar`)
parses.
"""

from samplers.grammar.compiled_grammar import CompiledGrammar, compiled
from samplers.grammar.grammar import Grammar, InvalidGrammar
from samplers.grammar.matcher import Matcher
from samplers.grammar.vocabulary import Vocabulary

__all__ = ["CompiledGrammar", "Grammar", "InvalidGrammar", "Matcher", "Vocabulary", "compiled"]
