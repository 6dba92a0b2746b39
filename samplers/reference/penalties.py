"""Step 0, the changes to the logits before any filter: bias, allowed mask, and penalties on the history."""

from collections.abc import Mapping

import numpy as np


def penalise(
    x: np.ndarray,
    bias: Mapping[int, float] | None,
    allowed: np.ndarray | None,
    history: np.ndarray | None,
    history_start: int,
    repetition: float = 1.0,
    presence: float = 0.0,
    frequency: float = 0.0,
) -> np.ndarray:
    """x float32 [V] after step 0 of docs/definition.md, as a new array.

    allowed: bool [V], or bits in int32 [W]. history: int64 ids; those outside 0 .. V - 1 are skipped. repetition
    (Keskar et al. 2019, eq. 4) acts on all of them, presence and frequency (OpenAI's definition) on those from index
    history_start on.

    >>> penalise(np.float32([2, -2, 1]), None, None, np.array([0, 1]), 0, repetition=2.0)
    array([ 1., -4.,  1.], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow makes the row invalid, as step 1 finds
        x = x + np.float32(0)  # a copy in which -0 becomes 0
        if bias:
            ids = np.fromiter(bias.keys(), np.int64, len(bias))
            x[ids] += np.fromiter(bias.values(), np.float32, len(bias))
        if allowed is not None:
            x[~(allowed if allowed.dtype == bool else unpacked(allowed, len(x)))] = -np.inf
        if history is not None:
            seen, _ = counted(history, len(x))
            r = np.float32(repetition)
            x[seen] = np.where(x[seen] < 0, x[seen] * r, x[seen] / r)
            ids, count = counted(history[history_start:], len(x))
            x[ids] -= (count * np.float64(np.float32(frequency))).astype(np.float32)
            x[ids] -= np.float32(presence)
        return x + np.float32(0)


def unpacked(words: np.ndarray, vocabulary: int) -> np.ndarray:
    """A mask of bits as bool [V]: token v has bit v mod 32 of word v div 32, and bits beyond V mean nothing.

    >>> unpacked(np.int32([0b1101]), 3)
    array([ True, False,  True])
    """
    v = np.arange(vocabulary)
    return words[v // 32] >> v % 32 & 1 == 1


def counted(history: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a history that are in the vocabulary, and the number of times that each occurs."""
    return np.unique(history[(history >= 0) & (history < vocabulary)], return_counts=True)
