"""Bits per byte on the held-out text, of the model and of a 5-gram on the same tokens.

`python -m model.storyteller.evaluate --corpus FOLDER [--model FOLDER]`
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sentencepiece import SentencePieceProcessor

from model.llama import Llama
from model.storyteller.corpus import held_out_texts, training_paragraphs

DISCOUNT = 0.75
ORDER = 5
ID_BITS = 12  # five ids of 12 bits fit into an int64


@torch.no_grad()
def bits_per_byte(model: Llama, sp: SentencePieceProcessor, texts: list[str]) -> float:
    """-log2 of the texts' probability per UTF-8 byte. Each token sees half a window or more of context."""
    window = model.config.max_position_embeddings
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[sp.bos_id(), *sp.encode(text)]])
        scored = 1  # index of the next token to score; BOS is given
        for start in range(0, max(1, ids.shape[1] - window // 2), window // 2):
            piece = ids[:, start : start + window]
            losses = F.cross_entropy(model(piece[:, :-1])[0], piece[0, 1:], reduction="none")  # [L - 1]
            nats += losses[scored - start - 1 :].sum().item()
            scored = start + piece.shape[1]
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


class NGram:
    """Interpolated n-gram of token ids with absolute discounting (Ney, Essen & Kneser 1994)."""

    def __init__(self, ids: np.ndarray, vocabulary: int) -> None:
        if vocabulary > 1 << ID_BITS:
            raise ValueError(f"vocabulary must be <= {1 << ID_BITS}, got {vocabulary}")
        self.vocabulary = vocabulary
        self.counts = [np.unique(grams(ids, n), return_counts=True) for n in range(1, ORDER + 1)]
        self.total = len(ids)
        self.contexts = []  # for n >= 2: (context, its occurrences, its distinct successors)
        for keys, count in self.counts[1:]:
            context, first, distinct = np.unique(keys >> ID_BITS, return_index=True, return_counts=True)
            self.contexts.append((context, np.add.reduceat(count, first), distinct))

    def nats(self, ids: np.ndarray) -> float:
        """-ln probability of ids[ORDER - 1:], each given the ids before it."""
        target = ids[ORDER - 1 :]
        keys, count = self.counts[0]
        p = (lookup(keys, count, target) + 1.0) / (self.total + self.vocabulary)
        for n in range(2, ORDER + 1):
            gram = grams(ids, n)[ORDER - n :]
            context, occurrences, distinct = self.contexts[n - 2]
            seen = lookup(context, occurrences, gram >> ID_BITS)
            kept = np.maximum(lookup(*self.counts[n - 1], gram) - DISCOUNT, 0.0)
            spread = DISCOUNT * lookup(context, distinct, gram >> ID_BITS)
            p = np.where(seen > 0, (kept + spread * p) / np.maximum(seen, 1), p)
        return float(-np.log(p).sum())


def grams(ids: np.ndarray, n: int) -> np.ndarray:
    """Every n consecutive ids, packed into one int64."""
    packed = np.zeros(len(ids) - n + 1, np.int64)
    for i in range(n):
        packed = packed << ID_BITS | ids[i : len(ids) - n + 1 + i]
    return packed


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted keys, 0 for missing keys; keys are sorted."""
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def ngram_bits_per_byte(sp: SentencePieceProcessor, training: list[str], texts: list[str]) -> float:
    start = [sp.bos_id()] * (ORDER - 1)
    ngram = NGram(np.asarray(sp.encode("\n".join(training)), np.int64), sp.vocab_size())
    nats = sum(ngram.nats(np.asarray(start + sp.encode(text), np.int64)) for text in texts)
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits per byte of the storyteller and of a 5-gram, on held-out text.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    texts = held_out_texts(arguments.corpus)
    sp = SentencePieceProcessor(model_file=str(arguments.model / "tokenizer.model"))
    print(f"held out: {len(texts)} blocks, {sum(len(t.encode()) for t in texts):,} bytes")
    print(f"5-gram: {ngram_bits_per_byte(sp, training_paragraphs(arguments.corpus), texts):.4f} bits per byte")
    print(f"model:  {bits_per_byte(Llama.from_pretrained(arguments.model), sp, texts):.4f} bits per byte")


if __name__ == "__main__":
    main()
