"""The tokens of a row that are left: the input of each filter, and what its mask leaves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """Tokens in id order."""

    ids: np.ndarray  # int64 [K]
    x: np.ndarray  # float32 [K], logits
    d: np.ndarray  # float32 [K], (x - max) / T
    w: np.ndarray  # int64 [K], mass

    @property
    def total(self) -> int:
        """The mass of all."""
        return int(self.w.sum())

    def where(self, mask: np.ndarray) -> Kept:
        return Kept(self.ids[mask], self.x[mask], self.d[mask], self.w[mask])
