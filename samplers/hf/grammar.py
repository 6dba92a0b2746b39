"""Constrained decoding in transformers: a processor that masks what a grammar excludes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from samplers.grammar import CompiledGrammar, Grammar, Matcher, Vocabulary, compiled
from samplers.grammar.llguidance import library
from samplers.params import integer


class GrammarLogitsProcessor(LogitsProcessor):
    """Every text that `generate` adds to a prompt follows a grammar. One processor serves one call of `generate`.

    Args:
        grammar: what each text must be, from the first token after the prompt.
        tokenizer: a fast tokenizer of transformers, the model's.
        eos_token_id: ids that end a text; None: the tokenizer's.
        vocab_size: of the model's logits, where they have more columns than the tokenizer has tokens.

    Raises: TypeError or ValueError naming the argument; InvalidGrammar, also while generating.

    Beams and several sequences per prompt work: a row's text decides what may follow, whatever row it was before.

    >>> from tokenizers import Tokenizer, decoders, models
    >>> words = Tokenizer(models.WordLevel({"<end>": 0, "yes": 1, "no": 2}))
    >>> words.decoder = decoders.ByteLevel()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    >>> processor = GrammarLogitsProcessor(Grammar.choice(["yes", "maybe"]), tokenizer)
    >>> processor(torch.tensor([[2]]), torch.zeros(1, 3))
    tensor([[-inf, 0., -inf]])
    """

    def __init__(
        self,
        grammar: Grammar,
        tokenizer: PreTrainedTokenizerFast,
        eos_token_id: int | Sequence[int] | None = None,
        vocab_size: int | None = None,
    ) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise TypeError(f"tokenizer must be a fast tokenizer of transformers, got {type(tokenizer).__name__}")
        end_ids = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        if end_ids is None:
            raise ValueError("eos_token_id must be given where the tokenizer has none")
        self.end_ids = [integer("eos_token_id", i, 0) for i in ([end_ids] if isinstance(end_ids, int) else end_ids)]
        size = len(tokenizer) if vocab_size is None else integer("vocab_size", vocab_size, len(tokenizer))
        self.grammar: CompiledGrammar = compiled(grammar, vocabulary_of(tokenizer, size), self.end_ids)
        self.prompt_length, self.heirs = -1, Counter[tuple[int, ...]]()  # how many texts go on from one
        self.matchers: dict[tuple[int, ...], Matcher] = {}  # by the text that they have read

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.prompt_length < 0:
            self.prompt_length = input_ids.shape[1]
        texts = [tuple(row) for row in input_ids[:, self.prompt_length :].tolist()]
        before, self.matchers = self.matchers, {}
        self.heirs = Counter(text[:-1] for text in set(texts))
        masks = np.stack([self.allowed(text, before) for text in texts])
        bits = np.unpackbits(masks.view(np.uint8), axis=1, count=scores.shape[1], bitorder="little")
        return scores.masked_fill(torch.from_numpy(bits == 0).to(scores.device), -torch.inf)

    def allowed(self, text: tuple[int, ...], before: dict[tuple[int, ...], Matcher]) -> np.ndarray:
        """The mask after a text. A text that has ended, in a batch that goes on, may have anything."""
        if any(token in self.end_ids for token in text):
            return np.full(-(-self.grammar.vocabulary.size // 32), -1, np.int32)
        if text not in self.matchers:
            self.matchers[text] = self.after(text, before)
        return self.matchers[text].allowed()

    def after(self, text: tuple[int, ...], before: dict[tuple[int, ...], Matcher]) -> Matcher:
        """A matcher that has read a text: one token more than that of a row one step ago, else from its start."""
        parent = before.get(text[:-1]) if text else None
        if parent is not None and self.heirs[text[:-1]] > 1:
            parent = parent.copy()
        matcher = self.grammar.matcher() if parent is None else parent
        for token in text if parent is None else text[-1:]:
            matcher.allowed()
            matcher.put(token)
        return matcher


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """Of a fast tokenizer, whose bytes llguidance knows."""

    def make(end_ids: tuple[int, ...]) -> Any:
        return library("llguidance.hf").from_tokenizer(tokenizer, n_vocab=size, eos_token=list(end_ids))

    return Vocabulary(size, make)
