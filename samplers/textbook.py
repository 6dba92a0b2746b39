"""The tutorials' formulas in float64 NumPy: one function per formula, each with a worked example.

Slow, plain, and independent of the exact definition in `samplers/reference/`; the tests compare the two.
Every filter takes probabilities [V] and renormalises them over the tokens that it keeps; cut tokens get 0.
The worked example is always `example()` over `words()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

SLACK = 1e-6  # a sum that reaches a limit in decimal arithmetic reaches it here


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """p_i = exp(x_i / T) / Σ exp(x_j / T); T > 0 (Boltzmann; Hinton et al. 2015, eq. 1).

    T below 1 sharpens, above 1 flattens:

    >>> softmax(np.log(example()), 1.5).round(4).tolist()
    [0.1952, 0.1683, 0.1389, 0.106, 0.0913, 0.0836, 0.0754, 0.0575, 0.0475, 0.0363]
    >>> softmax(np.log(example()), 0.5).round(3)[:3].tolist()
    [0.409, 0.262, 0.147]
    >>> softmax(np.log(example()), 10).round(3)[:3].tolist()
    [0.112, 0.11, 0.107]
    """
    scaled = np.asarray(logits, np.float64) / temperature
    e = np.exp(scaled - scaled.max())
    return e / e.sum()


def power(p: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature on probabilities: p_T(i) = p_i^(1/T) / Σ p_j^(1/T), which is softmax(log p / T).

    One tutorial prints the exponent as T, but its code uses 1/T, as here.

    >>> np.allclose(power(example(), 1.5), softmax(np.log(example()), 1.5))
    True
    """
    raised = np.asarray(p, np.float64) ** (1 / temperature)
    return raised / raised.sum()


def entropy(p: np.ndarray) -> float:
    """H = -Σ p_i ln p_i, nats (Shannon 1948).

    >>> round(entropy(np.full(8, 1 / 8)) / math.log(2), 6)
    3.0
    """
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


def descending(p: np.ndarray) -> np.ndarray:
    """Indices from the most to the least probable, ties by lowest index."""
    return np.argsort(-p, kind="stable")


def renormalise(p: np.ndarray, kept: np.ndarray) -> np.ndarray:
    q = np.where(kept, p, 0.0)
    return q / q.sum()


def top_k(p: np.ndarray, k: int, n: int = 1) -> np.ndarray:
    """The k most probable tokens and all ties with the last one, at least n; k >= 1 (Fan, Lewis & Dauphin 2018).

    >>> [words()[i] for i in np.flatnonzero(top_k(example(), 3))]
    ['the', 'a', 'dragon']
    """
    last = descending(p)[min(max(k, n), len(p)) - 1]
    return renormalise(p, p >= p[last])


def top_p(p: np.ndarray, mass: float, n: int = 1) -> np.ndarray:
    """The nucleus: the fewest most probable tokens with at least this mass (Holtzman et al. 2020, eq. 2-3).

    >>> top_p(example(), 0.8).round(3)[:7].tolist()
    [0.294, 0.235, 0.176, 0.118, 0.094, 0.082, 0.0]

    A higher temperature makes it larger:

    >>> [size(top_p(power(example(), T), 0.8)) for T in (0.5, 1.0, 1.5, 10.0)]
    [3, 6, 7, 8]
    """
    order = descending(p)
    reached = np.cumsum(p[order]) >= mass * (1 - SLACK)
    prefix = order[: max(int(np.argmax(reached)) + 1, n)]
    return renormalise(p, np.isin(np.arange(len(p)), prefix))


def min_p(p: np.ndarray, fraction: float, n: int = 1) -> np.ndarray:
    """Tokens at least this fraction as probable as the most probable one (Nguyen et al. 2024).

    >>> size(min_p(example(), 0.4))  # p >= 0.1
    4
    """
    kept = p >= fraction * p.max() * (1 - SLACK)
    kept[descending(p)[:n]] = True
    return renormalise(p, kept)


def typical(p: np.ndarray, mass: float, n: int = 1) -> np.ndarray:
    """The tokens whose surprisal -ln p_i is nearest the entropy, up to this mass (Meister et al. 2023, eq. 9-10).

    The most probable token can be too predictable to be typical:

    >>> typical(np.array([0.4, 0.2, 0.2, 0.2]), 0.5).round(3).tolist()
    [0.0, 0.333, 0.333, 0.333]
    """
    with np.errstate(divide="ignore"):
        distance = np.abs(-np.log(p) - entropy(p))
    order = np.argsort(distance, kind="stable")
    reached = np.cumsum(p[order]) >= mass * (1 - SLACK)
    kept = distance <= distance[order[int(np.argmax(reached))]]
    kept[order[:n]] = True
    return renormalise(p, kept)


def epsilon(p: np.ndarray, cutoff: float, n: int = 1) -> np.ndarray:
    """Tokens of at least this probability (Hewitt, Manning & Liang 2022, sec. 4.2).

    >>> [word for word, q in zip(words(), epsilon(example(), 0.05)) if q == 0]
    ['into', 'flames', 'darkness']
    """
    return renormalise(p, (p >= cutoff * (1 - SLACK)) | (p >= p[descending(p)[min(n, len(p)) - 1]]))


def eta(p: np.ndarray, cutoff: float, n: int = 1) -> np.ndarray:
    """Tokens of at least min(η, √η·e^-H): a cutoff that falls as the entropy grows (ibid., eq. 4).

    >>> flat, peaked = np.full(200, 1 / 200), np.array([0.99, 0.008, 0.002])
    >>> size(eta(flat, 0.01)), size(eta(peaked, 0.01))
    (200, 1)
    """
    return epsilon(p, min(cutoff, math.sqrt(cutoff) * math.exp(-entropy(p))), n)


def multinomial(p: np.ndarray, u: float) -> int:
    """Inverse transform sampling: the first index whose cumulative probability exceeds u in [0, 1).

    >>> [multinomial(example(), u) for u in (0.0, 0.3, 0.46, 0.999)]
    [0, 1, 2, 9]
    """
    last = int(np.flatnonzero(p)[-1])  # if rounding leaves the sum below u
    return min(int(np.searchsorted(np.cumsum(p), u, side="right")), last)


def ancestral(
    next_probabilities: Callable[[list[int]], np.ndarray], length: int, rng: np.random.Generator
) -> list[int]:
    """Draw each x_t ~ p(· | x_<t) in turn, which samples the distribution of whole sequences.

    next_probabilities: function of the ids so far, list[int] -> float64 [V].

    >>> after = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # 0 -> 1 -> 2 -> 0, with certainty
    >>> ancestral(lambda ids: after[ids[-1]] if ids else np.array([1, 0, 0]), 5, np.random.default_rng(0))
    [0, 1, 2, 0, 1]
    """
    ids: list[int] = []
    for _ in range(length):
        ids.append(multinomial(next_probabilities(ids), rng.random()))
    return ids


def shell(dimensions: int) -> tuple[float, float]:
    """Mean and standard deviation of the distance of a standard Gaussian's samples from its mode.

    E|x| = √2·Γ((d + 1) / 2) / Γ(d / 2), nearly √d; the deviation stays near √½ in any dimension d >= 1 (chi
    distribution). The mode is the most probable point, yet in many dimensions no sample comes near it: they all lie in
    a thin shell.

    >>> [round(value, 2) for value in shell(1000)]
    [31.61, 0.71]
    >>> distances = np.linalg.norm(np.random.default_rng(0).standard_normal((2000, 1000)), axis=1)
    >>> [round(float(value), 1) for value in (distances.min(), distances.mean(), distances.max())]
    [29.2, 31.6, 34.2]

    Texts behave in the same way: only one is the most probable, and the many others are each less probable.
    """
    log_mean = 0.5 * math.log(2) + math.lgamma((dimensions + 1) / 2) - math.lgamma(dimensions / 2)
    mean = math.exp(log_mean)
    return mean, math.sqrt(dimensions - mean**2)


def typical_logprob(p: np.ndarray, length: int) -> tuple[float, float, float]:
    """ln p of texts of `length` independent tokens: of the most probable text; mean and deviation over samples.

    Samples lie near -length·H, and the longer they are, the fewer stray from it (asymptotic equipartition, Shannon
    1948). The most probable text repeats one token and lies at length·ln max p, above them all.

    >>> greedy, mean, deviation = typical_logprob(example(), 100)
    >>> round(greedy, 1), round(mean, 1), round(deviation, 1)
    (-138.6, -205.2, 6.5)
    """
    surprisal = -np.log(p[p > 0])
    mean = float(p[p > 0] @ surprisal)
    variance = float(p[p > 0] @ (surprisal - mean) ** 2)
    return length * math.log(p.max()), -length * mean, math.sqrt(length * variance)


def size(p: np.ndarray) -> int:
    """The number of kept tokens: those with a probability above 0."""
    return int(np.count_nonzero(p))


def example() -> np.ndarray:
    """The probabilities of the worked example: the next word of a story about a dragon.

    >>> dict(zip(words(), example().tolist()))["dragon"]
    0.15
    """
    return np.array([0.25, 0.20, 0.15, 0.10, 0.08, 0.07, 0.06, 0.04, 0.03, 0.02])


def words() -> list[str]:
    """The tokens of the worked example."""
    return ["the", "a", "dragon", "flew", "over", "and", "castle", "into", "flames", "darkness"]
