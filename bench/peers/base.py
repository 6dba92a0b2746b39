"""The one interface of all peers: prepare a case, then draw one token a row at every call, as users would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.cases import Case

SEED = 1234

DrawTokens = Callable[[int], Any]  # step -> token ids [B], as a tensor, an array or a list
Peer = Callable[[Case], DrawTokens]

DrawOnGpu = Callable[[], Tensor]  # -> token ids [B], on the GPU
GpuPeer = Callable[[Case, Tensor, Tensor], DrawOnGpu]  # a case, its rows and an int64 position, both on the GPU


class Unavailable(Exception):
    """A peer can't run here, or lacks a filter."""
