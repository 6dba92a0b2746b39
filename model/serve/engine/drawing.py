"""One draw for every row of a batch, each with its own parameters, seed, stream and position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

import samplers
from model.decoding.writer import Place
from model.serve.engine.request import Choice


class Drawing:
    """What the sampler needs of some choices and what stays the same from step to step.

    choices: of each row of logits. A choice has several rows where its grammar forces tokens: those of its next tokens.
    """

    def __init__(self, choices: list[Choice]) -> None:
        self.choices = choices
        counts: Counter[Choice] = Counter()
        self.places: list[Place] = []
        for choice in choices:
            self.places.append(Place(choice.writer, counts[choice]))
            counts[choice] += 1
        settings = [choice.settings for choice in choices]
        self.params = samplers.pack([one.params for one in settings])
        self.seeds = np.array([choice.seed for choice in choices])
        self.streams = np.array([choice.stream for choice in choices])
        self.uses_history = any(one.params.uses_history for one in settings)
        self.has_masks = any(one.has_masks for one in settings)

    def draw(self, logits: Tensor) -> samplers.SampleOutput:
        """logits: [B, V]."""
        more: dict[str, Any] = {}
        if self.uses_history:
            asks = [choice.settings.params.uses_history for choice in self.choices]
            more["history"] = [place.text if asked else [] for place, asked in zip(self.places, asks, strict=True)]
            more["history_start"] = [len(choice.prompt) for choice in self.choices]
        if self.has_masks:
            masks = [choice.mask(place.ahead) for choice, place in zip(self.choices, self.places, strict=True)]
            more["allowed"] = joined_masks(masks, logits.shape[1])
        return samplers.sample(
            logits,
            self.params,
            seed=self.seeds,
            position=np.array([place.position for place in self.places]),
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
