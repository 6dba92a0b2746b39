"""The options of the transformers backend, in addition to generate's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from samplers.backends import implementation
from samplers.batch import Integers, Params, integers
from samplers.params import PackedParams, pack


@dataclass(frozen=True, eq=False)
class Options:
    """The options of an attached model, or of one call.

    params: replace generate's sampling options, one for all rows or one per row; None: generate's own. seed: int or
    one per row; None: drawn from torch's generator at every call, which `torch.manual_seed` and transformers'
    `set_seed` control. stream: int64, one per row; None: the row's number. backend: as in `sample`.
    """

    params: PackedParams | None = None
    seed: Integers | None = None
    stream: Integers | None = None
    backend: str = "auto"

    def seed_of_call(self) -> Integers:
        return fresh_seed() if self.seed is None else self.seed


def checked(params: Params, seed: Integers | None, stream: Integers | None, backend: str) -> Options:
    """Raises: TypeError or ValueError naming the argument, RuntimeError for a backend that can't run here."""
    for name, value in (("seed", seed), ("stream", stream)):
        if value is not None:
            integers(name, value, rows(value))
    if backend != "auto":
        implementation(backend, on_gpu=False)
    return Options(None if params is None else pack(params), seed, stream, backend)


def rows(value: Any) -> int:
    """The number of rows of a seed or stream."""
    return 1 if isinstance(value, int) or not np.ndim(value) else len(value)


def fresh_seed() -> int:
    """A seed from torch's CPU generator, without synchronising with a GPU."""
    return int(torch.randint(-(2**63), 2**63 - 1, ()))
