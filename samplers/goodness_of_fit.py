"""Do counts fit a distribution? Pearson's χ², the likelihood ratio G, and the tails of χ² and Poisson."""

from __future__ import annotations

import numpy as np
import torch

LEAST_EXPECTED = 5  # draws per cell (Cochran 1954)


def cells(observed: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool tokens until every cell expects at least 5 draws; observed and expected [V] -> [C], ascending by expected.

    A token with at least 5 expected draws is a cell. The others are sorted by probability, and each multiple of 10 in
    their running sum starts a new cell: since each token is below 5, a full cell gets at least 5. If the last cell
    gets less, it joins the smallest of the others.

    >>> cells(np.array([8, 0, 1, 5, 6]), np.array([10.0, 0.5, 0.5, 4.5, 4.5]))
    (array([ 8., 12.]), array([10., 10.]))
    """
    order = np.argsort(-expected, kind="stable")
    o, e = observed[order].astype(np.float64), expected[order]
    rare = e < LEAST_EXPECTED
    group = ((np.cumsum(e[rare]) - e[rare]) // (2 * LEAST_EXPECTED)).astype(np.int64)
    o = np.concatenate([o[~rare], np.bincount(group, o[rare])])
    e = np.concatenate([e[~rare], np.bincount(group, e[rare])])
    order = np.argsort(e, kind="stable")
    o, e = o[order], e[order]
    if len(e) > 1 and e[0] < LEAST_EXPECTED:
        o, e = np.append(o[0] + o[1], o[2:]), np.append(e[0] + e[1], e[2:])
    return o, e


def pearson(observed: np.ndarray, expected: np.ndarray) -> float:
    """χ² = Σ (O - E)² / E over cells [C], with C - 1 degrees of freedom (Pearson 1900).

    >>> pearson(np.array([12, 8]), np.array([10.0, 10.0]))
    0.8
    """
    return float(((observed - expected) ** 2 / expected).sum())


def likelihood_ratio(observed: np.ndarray, expected: np.ndarray) -> float:
    """G = 2 Σ O ln(O / E) over cells [C], divided by a q that brings its mean near that of χ² (Williams 1976).

    >>> round(likelihood_ratio(np.array([12, 8]), np.array([10.0, 10.0])), 3)
    0.786
    """
    total, freedom = expected.sum(), len(expected) - 1
    q = 1 + ((total / expected).sum() - 1) / (6 * total * max(freedom, 1))
    seen = observed > 0
    return float(2 * (observed[seen] * np.log(observed[seen] / expected[seen])).sum() / q)


def chi_square_tail(x: float, freedom: int) -> float:
    """P(χ² >= x) for these degrees of freedom: the regularised incomplete gamma function Q(freedom / 2, x / 2).

    >>> round(chi_square_tail(18.307, 10), 4)
    0.05
    """
    if freedom == 0:
        return 1.0
    return float(torch.special.gammaincc(float64(freedom / 2), float64(x / 2)))


def poisson_tail(k: int, mean: float) -> float:
    """Twice the smaller of P(X <= k) and P(X >= k) for a Poisson X, at most 1. A binomial has lighter tails.

    >>> poisson_tail(0, 2.0), poisson_tail(2, 2.0)  # the first is 2·e^-2
    (0.2706705664732254, 1.0)
    """
    below = float(torch.special.gammaincc(float64(k + 1), float64(mean)))
    above = float(torch.special.gammainc(float64(k), float64(mean))) if k else 1.0
    return min(1.0, 2 * min(below, above))


def float64(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)
