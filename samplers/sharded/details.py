"""model_logprobs: the log-probability of each token under softmax of the untouched logits, by two messages."""

from __future__ import annotations

import numpy as np
import torch

from samplers.fixed_point import distances, weights
from samplers.reference.fixed_point import ONE
from samplers.sharded.collectives import Collectives
from samplers.sharded.shard import Shard


def model_logprobs(shard: Shard, tokens: np.ndarray, together: Collectives) -> np.ndarray:
    """tokens: int64 [B], -1 for an invalid row. Returns: float32 [B]; NaN where the row or its logits are invalid."""
    m = together.gathered(shard.raw.amax(1)).amax(0)
    d = distances(shard.raw, m, torch.ones_like(m))
    mass = weights(d).masked_fill(shard.raw == -torch.inf, 0).sum(1)
    local = torch.from_numpy(tokens).to(m.device) - shard.start
    is_own = (local >= 0) & (local < shard.length)
    logit = shard.raw.gather(1, local.clamp(0, shard.raw.shape[1] - 1)[:, None])[:, 0]
    bits = logit.view(torch.int32).long().masked_fill(~is_own, 0)
    total, bits = together.summed(torch.stack([mass, bits])).cpu().numpy()
    greatest, x = m.cpu().numpy().astype(np.float64), bits.astype(np.int32).view(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):  # of invalid rows
        logprobs = x - greatest - np.log(total / ONE)
        logprobs[(tokens < 0) | ~np.isfinite(greatest)] = np.nan
        return logprobs.astype(np.float32)
