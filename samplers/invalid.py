"""Rows that nothing can be drawn from: a server counts them, and goes on."""

from __future__ import annotations

import logging
from typing import Any

import torch

logger = logging.getLogger(__name__)


class InvalidRows:
    """Counts the rows with a NaN, +inf, or nothing above -inf. Their token is 0.

    On a GPU the count of a step is copied while the GPU works, and read at a later step, when it has arrived.
    """

    def __init__(self) -> None:
        self.count = 0
        self.pending: list[tuple[torch.Tensor, Any]] = []

    def replaced(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens int64 [B] of `sample(on_invalid="mark")`, with 0 in place of -1."""
        invalid = (tokens < 0).sum()
        if tokens.is_cuda:
            self.copy(invalid)
        else:
            self.add(int(invalid))
        return tokens.clamp(min=0)

    def copy(self, invalid: torch.Tensor) -> None:
        count = torch.empty((), dtype=torch.int64, pin_memory=True)
        count.copy_(invalid, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.pending.append((count, copied))
        while self.pending and self.pending[0][1].query():
            self.add(int(self.pending.pop(0)[0]))

    def add(self, invalid: int) -> None:
        if invalid:
            self.count += invalid
            logger.warning(
                "logits must hold no NaN, no +inf and at least one value above -inf in each row; %d invalid, %d since "
                "the start, drawn as token 0",
                invalid,
                self.count,
            )
