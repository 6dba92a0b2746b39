"""Distances and weights as tensors, on any device: the same integers as `samplers.reference.fixed_point`."""

from __future__ import annotations

from typing import Any

import torch

from samplers.backends import native
from samplers.reference import fixed_point as exact

EXPONENT_BIAS, SIGNIFICAND_BITS = 127, 23  # of float32


def distances(x: torch.Tensor, m: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """d = (x - m) / T, from 0 down to -60. x float32 [B, V]; m, inverse_temperature float32 [B]."""
    return ((x - m[:, None]) * inverse_temperature[:, None]).clamp(min=float(exact.LOWEST))


def weights(d: torch.Tensor) -> torch.Tensor:
    """W(d) = floor(2^40·e^d): float32 d in [-60, 0] -> int64 of the same shape. On the CPU by C++, where it is built.

    >>> weights(torch.tensor([0.0, -1.0, -60.0])) / exact.ONE
    tensor([1.0000, 0.3679, 0.0000])
    """
    return native.weights(d) if d.is_cpu and native.state() == "ok" else weights_by_torch(d)


def weights_by_torch(d: torch.Tensor) -> torch.Tensor:
    """`weights` on any device."""
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


def surprisal(d: torch.Tensor) -> torch.Tensor:
    """D = floor(-d·2^24): int64 of the same shape."""
    return torch.floor(-d.double() * 2**24).to(torch.int64)


def fma(a: torch.Tensor, b: Any, c: Any) -> torch.Tensor:
    """a·b + c through float64, float32 in and out, as the reference has it."""
    return (a.double() * b + c).float()
