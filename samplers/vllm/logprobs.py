"""The exact log-probability of every token: ln(weight / total), on the device of the logits."""

from __future__ import annotations

import torch

from samplers.fixed_point import distances, weights


def logprobs(x: torch.Tensor, filtered: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """ln of each token's probability in the final distribution: float32 [B, V], -inf for tokens that were cut.

    x: float32 [B, V], logits after penalties. filtered: float32 [B, V], -inf where a token was cut; a row of -inf
    alone is invalid and gives NaN. inverse_temperature: float32 [B], 0 for T = 0.

    >>> x = torch.tensor([[2.0, 1.0, 0.0]])
    >>> logprobs(x, x, torch.ones(1)).exp()
    tensor([[0.6652, 0.2447, 0.0900]])
    """
    is_cut = filtered == -torch.inf
    d = distances(x, x.amax(-1), inverse_temperature).masked_fill(is_cut, 0)  # -inf · 0, at T = 0, is NaN
    w = weights(d).masked_fill(is_cut, 0)
    return torch.log(w.double() / w.sum(-1, keepdim=True).double()).float()
