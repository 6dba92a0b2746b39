"""The exact log-probability of every token: ln(weight / total), on the device of the logits."""

from __future__ import annotations

from typing import Any

import torch

from samplers.reference import fixed_point as exact

EXPONENT_BIAS, SIGNIFICAND_BITS = 127, 23  # of float32


def logprobs(x: torch.Tensor, filtered: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """ln of each token's probability in the final distribution: float32 [B, V], -inf for tokens that were cut.

    x: float32 [B, V], logits after penalties. filtered: float32 [B, V], -inf where a token was cut; a row of -inf
    alone is invalid and gives NaN. inverse_temperature: float32 [B], 0 for T = 0.

    >>> x = torch.tensor([[2.0, 1.0, 0.0]])
    >>> logprobs(x, x, torch.ones(1)).exp()
    tensor([[0.6652, 0.2447, 0.0900]])
    """
    distance = (x - x.amax(-1, keepdim=True)) * inverse_temperature[:, None]
    w = weights(distance.clamp(min=float(exact.LOWEST))).masked_fill(filtered == -torch.inf, 0)
    return torch.log(w.double() / w.sum(-1, keepdim=True).double()).float()


def weights(d: torch.Tensor) -> torch.Tensor:
    """As `samplers.reference.fixed_point.weights`: float32 d in [-60, 0] -> int64 of the same shape."""
    # 1. d = j·ln 2 + s
    j = fma(d, exact.LOG2_E, exact.ROUND) - float(exact.ROUND)
    s = fma(-j, exact.LN2_LOW, fma(-j, exact.LN2_HIGH, d))
    # 2. e^s
    e = fma(s, exact.C5, exact.C4)
    for c in (exact.C3, exact.C2, exact.C1, exact.C0):
        e = fma(e, s, c)
    # 3. 2^40·2^j·e^s, rounded down; the power of two is made from its bits
    scale = (j.to(torch.int32) + exact.FRACTION_BITS + EXPONENT_BIAS << SIGNIFICAND_BITS).view(torch.float32)
    return (e * scale).to(torch.int64)


def fma(a: torch.Tensor, b: Any, c: Any) -> torch.Tensor:
    """a·b + c through float64, float32 in and out, as the reference has it."""
    return (a.double() * b + c).float()
