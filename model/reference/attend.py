"""Attention of one query over the keys and values up to its position."""

import numpy as np

from model.reference.exponential import exponential
from model.reference.linear import linear
from model.reference.sixteen import folded, lanes


def attend(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """softmax(q·k / sqrt(D)) · v: query [D], keys and values [S, D] of slots 0 .. the query's own -> float32 [D].

    >>> keys = np.float32([[1, 0], [0, 1]])
    >>> attend(np.float32([0, 0]), keys, np.float32([[1, 2], [3, 4]]))
    array([2., 3.], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # 1. Scores: a linear layer over the channels, then the scale.
        scores = linear(query[None], keys)[0] * np.float32(1 / np.sqrt(len(query)))
        # 2. e^(score - maximum), and their sum in sixteen lanes.
        weights = exponential(scores - scores.max())
        sums = np.zeros(16, np.float32)
        for row in lanes(weights):
            sums = sums + row
        # 3. The weighted values: a linear layer over the slots.
        mixed = linear(weights[None], np.ascontiguousarray(values.T))[0]
        # 4. Divided by the sum of the weights.
        return mixed / folded(sums)
