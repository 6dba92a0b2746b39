"""What is drawn from: the kinds of rows, the filters, and a case, which is one of each at one size."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from samplers import SamplingParams
from samplers.params import MAX_VOCABULARY

TEMPERATURE = 0.8
FILTERS = {
    "none": SamplingParams(TEMPERATURE),
    "k50+p.9": SamplingParams(TEMPERATURE, top_k=50, top_p=0.9),
    "p.9": SamplingParams(TEMPERATURE, top_p=0.9),
    "all": SamplingParams(
        TEMPERATURE, top_k=50, top_p=0.9, min_p=0.02, typical_p=0.95, epsilon_cutoff=1e-4, eta_cutoff=1e-4
    ),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

STORYTELLERS = 4096  # its vocabulary
STORY = 200  # tokens, each with a row of logits

Shape = tuple[int, int]  # B, V


def peaked(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """What a trained model gives: few likely tokens, a long tail, in no order.

    x = -2·ln(rank) + 0.1·N(0, 1), the ranks 1 .. V shuffled: Zipf's law with exponent 2, 2.5 at T = 0.8.
    """
    ranks = rng.permuted(np.tile(np.arange(1.0, shape[1] + 1), (shape[0], 1)), axis=1)
    return -2 * np.log(ranks) + 0.1 * rng.standard_normal(shape)


def flat(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Nearly uniform, 1e-3·N(0, 1): no pivot tells tokens apart and top-p keeps most of the row."""
    return 1e-3 * rng.standard_normal(shape)


def tied(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Few distinct values, 2·N(0, 1) rounded to integers: every threshold falls into a group of equals."""
    return np.round(2 * rng.standard_normal(shape))


def normal(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """3·N(0, 1): what other benchmarks draw from; top-p keeps thousands."""
    return 3 * rng.standard_normal(shape)


def real(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """What the built-in model gives, position by position of a story of its own; its vocabulary alone."""
    from model import Llama, Tokenizer, generate

    llama = Llama.from_pretrained()
    if shape[1] != STORYTELLERS:
        raise ValueError(f"real rows must have the storyteller's vocabulary, {STORYTELLERS}, got {shape[1]}")
    prompts, tokenizer = ["Once upon a time"], Tokenizer.from_pretrained()
    story = generate(llama, tokenizer, prompts, max_new_tokens=STORY, eos_token_id=(), do_sample=True, seed=7)[0][0]
    rows = llama(torch.tensor([story.ids]))[0].numpy()  # [STORY, V]
    return rows[np.arange(shape[0]) % len(rows)]


KINDS: dict[str, Callable[[Shape, np.random.Generator], np.ndarray]] = {
    "peaked": peaked,
    "flat": flat,
    "tied": tied,
    "normal": normal,
    "real": real,
}


@dataclass(frozen=True)
class Case:
    """B rows of one kind over V tokens, and the name of the filters to draw with."""

    kind: str = "peaked"
    vocabulary: int = 32000
    batch: int = 1
    filters: str = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("filters", FILTERS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 1 <= self.vocabulary <= MAX_VOCABULARY:
            raise ValueError(f"vocabulary must be in 1 .. {MAX_VOCABULARY}, got {self.vocabulary}")
        if self.batch < 1:
            raise ValueError(f"batch must be >= 1, got {self.batch}")

    @cached_property
    def params(self) -> SamplingParams:
        return FILTERS[self.filters]

    @cached_property
    def logits(self) -> torch.Tensor:
        """[B, V] on the CPU; the same rows for the same kind and size, whatever the filters."""
        shape = self.batch, self.vocabulary
        rng = np.random.default_rng([zlib.crc32(self.kind.encode()), *shape])
        return torch.from_numpy(KINDS[self.kind](shape, rng)).to(DTYPES[self.dtype])

    def __str__(self) -> str:
        return f"{self.kind} {self.dtype}, V = {self.vocabulary:,}, batch {self.batch}, {self.filters}"
