"""The logits of one process after step 0 of docs/definition.md: bias, mask and penalties act on each part alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from samplers.batch import Batch, rows_of
from samplers.params import MAX_VOCABULARY, PENALTIES, PLAIN, SamplingParams, integer
from samplers.sampler import filter_logits


class Shard:
    """start, length: the part [start, start + length) of the vocabulary.

    raw: the untouched logits, float32 [B, V]. x: after step 0; the greatest of a row that holds a NaN or +inf is one,
    too. An empty part counts as one token of -inf.
    """

    def __init__(self, logits: Any, start: int) -> None:
        self.is_tensor = isinstance(logits, torch.Tensor)
        is_empty = hasattr(logits, "shape") and 0 in logits.shape[-1:]
        rows = rows_of(of_one_token(logits) if is_empty else logits)
        self.start = min(integer("vocab_start", start, 0), MAX_VOCABULARY)  # one beyond is refused in all processes
        self.length = 0 if is_empty else rows.shape[1]
        if self.length == MAX_VOCABULARY:
            raise ValueError(f"logits_shard must have at most {MAX_VOCABULARY - 1} tokens in one process")
        tensor = rows if isinstance(rows, torch.Tensor) else torch.from_numpy(rows.astype(np.float32))
        self.device, self.raw = tensor.device, tensor.float() + 0.0  # -0 becomes 0
        self.x = self.raw

    def penalise(self, batch: Batch, params: list[SamplingParams], backend: str) -> None:
        """Step 0. batch: the arguments of the call."""
        own = [step_0(p, self.start, self.length) for p in params]
        if batch.allowed is None and all(p == PLAIN for p in own):
            return
        # A token beyond the shard keeps a row valid in which nothing is allowed; an invalid one is -inf there, too.
        beyond = self.raw.new_zeros((len(self.raw), 1))
        x = filter_logits(
            torch.cat([self.raw, beyond], 1),
            own,
            history=self.history(batch),
            history_start=batch.history_start,
            allowed=self.mask(batch),
            backend=backend,
            on_invalid="mark",
        )
        self.x = x[:, :-1].masked_fill(x[:, -1:] == -torch.inf, torch.nan)

    def history(self, batch: Batch) -> Any:
        """The ids of this part, counted from its start; others are -1."""
        if batch.history is None:
            return None
        if isinstance(batch.history, torch.Tensor):
            ids = batch.history - self.start
            return ids.where((ids >= 0) & (ids < self.length), -1)
        return [self.own(ids) for ids in batch.history]

    def own(self, ids: Any) -> Any:
        local = ids - self.start
        local[(local < 0) | (local >= self.length)] = -1
        return local

    def mask(self, batch: Batch) -> torch.Tensor | None:
        """`allowed` as bool, with the token beyond the shard."""
        mask = batch.allowed_on(self.device)
        if mask is None:
            return None
        if mask.dtype == torch.int32:
            token = torch.arange(self.raw.shape[1], device=mask.device)
            mask = (mask[..., token // 32] >> token % 32 & 1).bool()
        return torch.cat([mask, mask.new_ones((*mask.shape[:-1], 1))], -1)


def of_one_token(logits: Any) -> Any:
    """Rows of one token at -inf, as many as there are rows without any."""
    shape = (*logits.shape[:-1], 1)
    if isinstance(logits, torch.Tensor):
        return logits.new_full(shape, -torch.inf)
    return np.full(shape, -np.inf, logits.dtype)


@lru_cache(maxsize=1024)
def step_0(params: SamplingParams, start: int, length: int) -> SamplingParams:
    """The penalties of a row, and its biases of the tokens of one part."""
    own = {name: getattr(params, name) for name in PENALTIES}
    bias = {token - start: value for token, value in (params.logit_bias or {}).items()}
    own["logit_bias"] = {token: value for token, value in bias.items() if 0 <= token < length} or None
    return SamplingParams(**own)
