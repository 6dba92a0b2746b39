"""Rows of logits by kind: those that benchmarks draw from, and the edges that backends are compared on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Shape = tuple[int, int]  # B, V
Rows = Callable[[Shape, np.random.Generator], np.ndarray]  # float64 [B, V]


def peaked(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Few likely tokens and a long tail, in no order, as a trained model gives.

    x = -2·ln(rank) + 0.1·N(0, 1), the ranks 1 .. V shuffled: Zipf's law with exponent 2, 2.5 at T = 0.8.
    """
    ranks = rng.permuted(np.tile(np.arange(1.0, shape[1] + 1), (shape[0], 1)), axis=1)
    return -2 * np.log(ranks) + 0.1 * rng.standard_normal(shape)


def normal(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """3·N(0, 1), as other benchmarks have them; top-p keeps thousands."""
    return 3 * rng.standard_normal(shape)


def flat(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Nearly uniform, 1e-3·N(0, 1): no pivot separates tokens, and top-p keeps most of the row."""
    return 1e-3 * rng.standard_normal(shape)


def tied(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Few distinct values, 2·N(0, 1) rounded to integers: every threshold falls into a group of equals."""
    return np.round(2 * rng.standard_normal(shape))


def riddled(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Half of them -inf; in a small row it may be all."""
    return np.where(rng.random(shape) < 0.5, -np.inf, 3 * rng.standard_normal(shape))


def one_survivor(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    survivors = rng.integers(shape[1], size=(shape[0], 1))
    return np.where(np.arange(shape[1]) == survivors, 1.0, -np.inf)


def last_bits(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Values that differ in the last bits of a float32 at most."""
    return np.nextafter(np.float32(5), np.float32(9)) + 1e-6 * rng.integers(-3, 3, shape)


KINDS: dict[str, Rows] = {
    "peaked": peaked,
    "normal": normal,
    "flat": flat,
    "tied": tied,
    "riddled": riddled,
    "one survivor": one_survivor,
    "last bits": last_bits,
    "equal": lambda shape, rng: np.broadcast_to(rng.standard_normal((shape[0], 1)), shape),
    "zeros": lambda shape, rng: rng.choice([0.0, -0.0, 1e-45, -1e-45], shape),
    "subnormal": lambda shape, rng: 1e-39 * rng.standard_normal(shape),
    "huge": lambda shape, rng: 1e38 * rng.standard_normal(shape),
    "ladder": lambda shape, rng: -0.01 * rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1),
}


def row(kind: str, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """One row, float32 [V]."""
    with np.errstate(over="ignore"):
        return KINDS[kind]((1, vocabulary), rng)[0].astype(np.float32)
