"""The kept tokens of a row: the input and the output of each filter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """The kept tokens in id order."""

    ids: np.ndarray  # int64 [K]
    x: np.ndarray  # float32 [K], logits
    d: np.ndarray  # float32 [K], (x - max) / T
    w: np.ndarray  # int64 [K], mass

    @property
    def total(self) -> int:
        """The mass of all kept tokens."""
        return int(self.w.sum())

    def where(self, mask: np.ndarray) -> Kept:
        return Kept(self.ids[mask], self.x[mask], self.d[mask], self.w[mask])
