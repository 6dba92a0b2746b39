"""The fairy-tale corpus: its held-out part, its token ids and its training windows.

A corpus folder holds *.txt files with one paragraph per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

BLOCK = 32  # paragraphs in a block
HOLD_OUT = 50  # one block in 50 is never used for training
STORY_OPENING = re.compile(r"(Once upon a time|Once there|There (was|were|lived) once|A long time ago|Long, long ago)")


def blocks(folder: Path) -> Iterator[tuple[list[str], bool]]:
    """Every block of paragraphs in file order, and whether it is held out."""
    number = 0
    for path in sorted(folder.glob("*.txt")):
        paragraphs = path.read_text(encoding="utf-8").splitlines()
        for start in range(0, len(paragraphs), BLOCK):
            number += 1
            yield paragraphs[start : start + BLOCK], number % HOLD_OUT == HOLD_OUT // 2


def training_paragraphs(folder: Path) -> list[str]:
    return [line for block, held_out in blocks(folder) if not held_out for line in block]


def held_out_texts(folder: Path) -> list[str]:
    return ["\n".join(block) for block, held_out in blocks(folder) if held_out]


def train_tokenizer(folder: Path, path: Path, vocabulary: int) -> None:
    """Train a BPE model like Llama's on the training part: byte fallback, single digits, no normalisation."""
    SentencePieceTrainer.train(
        sentence_iterator=iter(training_paragraphs(folder)),
        model_prefix=str(path.with_suffix("")),
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.9999,
        max_sentence_length=1 << 20,
        minloglevel=1,
    )
    path.with_suffix(".vocab").unlink()


class TrainingStream:
    """The training part as one sequence of ids. Training windows begin with BOS at the start of a paragraph.

    A paragraph that opens a story is preceded by EOS, which teaches the model to end a story.
    """

    def __init__(self, paragraphs: list[str], sp: SentencePieceProcessor) -> None:
        self.bos, eos = sp.bos_id(), sp.eos_id()
        self.openings = sp.encode(paragraphs)  # ids of a paragraph at the start of a text
        joined = [ids[1:] for ids in sp.encode(["\n" + line for line in paragraphs])]  # [1:] drops the added space
        for i, line in enumerate(paragraphs):
            if STORY_OPENING.match(line):
                joined[i] = [eos, self.bos, *self.openings[i]]
        self.ends = np.cumsum([len(ids) for ids in joined])  # where each paragraph ends in the stream
        self.stream = np.concatenate([np.asarray(ids, np.int64) for ids in joined])

    def window(self, paragraph: int, length: int) -> np.ndarray:
        """BOS, the paragraph and the ids after it: int64 [length + 1]."""
        opening = np.asarray([self.bos, *self.openings[paragraph]])[: length + 1]
        end = self.ends[paragraph]
        return np.concatenate([opening, self.stream[end : end + length + 1 - len(opening)]])

    def epoch(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """The first paragraphs of windows that together cover the stream once, shuffled."""
        last = int(np.searchsorted(self.ends, self.ends[-1] - 2 * length))
        paragraph, firsts = int(rng.integers(16)), []
        while paragraph < last:
            firsts.append(paragraph)
            start = self.ends[paragraph] - len(self.openings[paragraph])
            paragraph = max(paragraph + 1, int(np.searchsorted(self.ends, start + length)))
        return rng.permutation(firsts)

    def batches(self, batch: int, length: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Endless int64 [batch, length + 1]."""
        while True:
            firsts = self.epoch(length, rng)
            for i in range(0, len(firsts) - batch + 1, batch):
                yield np.stack([self.window(p, length) for p in firsts[i : i + batch]])
