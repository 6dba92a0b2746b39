"""One draw for every row of a batch, each with its own parameters, seed, stream and position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

import samplers
from model.serve.engine.request import Choice


class Drawing:
    """What the sampler needs of some choices and what stays the same from step to step."""

    def __init__(self, choices: list[Choice]) -> None:
        self.choices = choices
        settings = [choice.settings for choice in choices]
        self.params = samplers.pack([one.params for one in settings])
        self.seeds = np.array([choice.seed for choice in choices])
        self.streams = np.array([choice.stream for choice in choices])
        self.uses_history = any(one.params.uses_history for one in settings)
        self.has_masks = any(one.mask is not None or one.min_new_tokens for one in settings)

    def draw(self, logits: Tensor) -> samplers.SampleOutput:
        """logits: [B, V]."""
        more: dict[str, Any] = {}
        if self.uses_history:
            asking = [choice if choice.settings.params.uses_history else None for choice in self.choices]
            more["history"] = [choice.prompt + choice.generation.ids if choice else [] for choice in asking]
            more["history_start"] = [len(choice.prompt) if choice else 0 for choice in asking]
        if self.has_masks:
            more["allowed"] = joined_masks([choice.mask for choice in self.choices], logits.shape[1])
        return samplers.sample(
            logits,
            self.params,
            seed=self.seeds,
            position=np.array([len(choice.generation.ids) for choice in self.choices]),
            stream=self.streams,
            on_invalid="mark",
            **more,
        )


def joined_masks(masks: Sequence[np.ndarray | None], vocabulary: int) -> np.ndarray:
    """int32 [B, W]; a row of None allows all.

    >>> joined_masks([None, np.int32([5])], 8).tolist()
    [[-1], [5]]
    """
    words = np.full((len(masks), -(-vocabulary // 32)), -1, np.int32)
    for row, mask in zip(words, masks, strict=True):
        if mask is not None:
            row[:] = mask
    return words
