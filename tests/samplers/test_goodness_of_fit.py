"""Oracles: closed forms and tables of the tails; simulated counts, which raise no more alarms than promised."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from samplers import goodness_of_fit
from samplers.goodness_of_fit import LEAST_EXPECTED, cells, chi_square_tail, poisson_tail


@pytest.mark.parametrize(("freedom", "x"), [(2, 0.1), (2, 50.0), (10, 29.588), (100, 240.0), (1000, 1250.0)])
def test_chi_square_tail(freedom: int, x: float):
    """For an even number of degrees of freedom 2m: e^(-x/2) Σ_{j<m} (x/2)^j / j!."""
    terms = [math.exp(-x / 2 + j * math.log(x / 2) - math.lgamma(j + 1)) for j in range(freedom // 2)]
    assert math.isclose(chi_square_tail(x, freedom), math.fsum(terms), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("freedom", "quantile", "p"), [(1, 3.841459, 0.05), (3, 16.266236, 0.001), (99, 134.641617, 0.01)]
)
def test_chi_square_tail_at_tabulated_quantiles(freedom: int, quantile: float, p: float):
    assert math.isclose(chi_square_tail(quantile, freedom), p, rel_tol=1e-5)


@pytest.mark.parametrize(("k", "mean"), [(0, 20.0), (3, 20.0), (60, 20.0), (1, 1e-3)])
def test_poisson_tail(k: int, mean: float):
    terms = [math.exp(-mean + j * math.log(mean) - math.lgamma(j + 1)) for j in range(400)]
    assert math.isclose(poisson_tail(k, mean), 2 * min(sum(terms[: k + 1]), sum(terms[k:])), rel_tol=1e-9)


@pytest.mark.parametrize("draws", [3, 7, 100, 5000])
def test_cells_drop_nothing(draws: int):
    rng = np.random.default_rng(draws)
    for vocabulary in (2, 30, 2000):
        expected = draws * rng.dirichlet(np.full(vocabulary, 0.3))
        observed = rng.multinomial(draws, expected / draws)
        o, e = cells(observed, expected)
        assert o.sum() == draws and math.isclose(e.sum(), draws)
        assert len(e) == 1 or e.min() >= LEAST_EXPECTED
        assert len(e) >= np.count_nonzero(expected >= 2 * LEAST_EXPECTED)


@pytest.mark.parametrize("statistic", [goodness_of_fit.pearson, goodness_of_fit.likelihood_ratio])
def test_false_alarms_are_as_rare_as_promised(statistic: Callable[[np.ndarray, np.ndarray], float]):
    """At p = 1e-2, with as few draws to a cell as is allowed: 50 draws over 10 cells, 500 over 100."""
    rng = np.random.default_rng(0)
    for size in (10, 100):
        expected = np.full(size, 5.0)
        trials = rng.multinomial(5 * size, np.full(size, 1 / size), 4000)
        alarms = sum(chi_square_tail(statistic(observed, expected), size - 1) < 1e-2 for observed in trials)
        assert 20 <= alarms <= 80
