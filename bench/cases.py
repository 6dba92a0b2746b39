"""Cases of a benchmark: rows of one kind and size, and the filters to draw with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from model import Llama, Tokenizer, generate
from samplers import SamplingParams
from samplers.identity import rows
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
CHAINS = {  # of transformers' warpers, under the names that their records have
    "none": SamplingParams(),
    "T+k+p": FILTERS["k50+p.9"],
    "T+p": FILTERS["p.9"],
    "all": FILTERS["all"],
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

STORYTELLERS = 4096  # the vocabulary of the built-in model
STORY = 200  # tokens, each with a row of logits


def real(shape: rows.Shape, rng: np.random.Generator) -> np.ndarray:
    """The logits of the built-in model at each position of a story that it tells."""
    if shape[1] != STORYTELLERS:
        raise ValueError(f"real rows must have the storyteller's vocabulary, {STORYTELLERS}, got {shape[1]}")
    llama, prompts = Llama.from_pretrained(), ["Once upon a time"]
    tokenizer = Tokenizer.from_pretrained()
    story = generate(llama, tokenizer, prompts, max_new_tokens=STORY, eos_token_id=(), do_sample=True, seed=7)[0][0]
    logits = llama(torch.tensor([story.ids]))[0].numpy()  # [STORY, V]
    return logits[np.arange(shape[0]) % len(logits)]


KINDS = {name: rows.KINDS[name] for name in ("peaked", "flat", "tied", "normal")} | {"real": real}


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


def switched_on(params: SamplingParams) -> dict[str, Any]:
    """The parameters that are not at their defaults, by name, in the order in which they act.

    >>> switched_on(FILTERS["k50+p.9"])
    {'temperature': 0.8, 'top_k': 50, 'top_p': 0.9}
    """
    values = {field.name: (getattr(params, field.name), field.default) for field in fields(params)}
    return {name: value for name, (value, default) in values.items() if value != default}
