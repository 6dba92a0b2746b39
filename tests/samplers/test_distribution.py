"""The draw follows weight / total. Oracle: the weights themselves, by χ² and by the count of a rare token.

Seeds are fixed, so a test that passes once passes always.
"""

import math

import numpy as np
import pytest

from samplers import SamplingParams, sample
from samplers.reference.draw import draw
from samplers.reference.fixed_point import ONE
from samplers.reference.philox import random_bits
from samplers.reference.sampler import keep
from tests.conftest import require

FILTERS = {
    "none": SamplingParams(),
    "temperature": SamplingParams(temperature=1.7),
    "chain": SamplingParams(temperature=1.3, top_k=30, top_p=0.95, min_p=0.01),
    "typical": SamplingParams(typical_p=0.8),
    "eta": SamplingParams(eta_cutoff=0.01),
}


def tokens(x: np.ndarray, p: SamplingParams, draws: int, backend: str) -> np.ndarray:
    """Tokens of positions 0 .. draws - 1."""
    if backend == "native":
        chunks = np.array_split(np.arange(draws), max(1, draws // 50_000))
        rows = [
            sample(np.tile(x, (len(c), 1)), p, seed=1, stream=[0] * len(c), position=c, backend="native")
            for c in chunks
        ]
        return np.concatenate([out.tokens for out in rows])
    kept = keep(x, p)
    one, zero = np.ones(draws, np.uint64), np.zeros(draws, np.uint64)
    bits = random_bits(one, np.arange(draws, dtype=np.uint64), zero)
    return kept.ids[[draw(kept.w, int(b)) for b in bits]]


@pytest.fixture(params=["reference", "native"])
def backend(request) -> str:
    """Without Triton, whose interpreter would take hours for a million draws."""
    require(request.param)
    return request.param


@pytest.mark.parametrize("name", FILTERS)
def test_chi_square(name: str, backend: str):
    draws, p = 100_000 if backend == "native" else 20_000, FILTERS[name]
    x = np.random.default_rng(3).standard_normal(60).astype(np.float32)
    kept = keep(x, p)
    counts = np.bincount(tokens(x, p, draws, backend), minlength=len(x))
    expected = np.zeros(len(x))
    expected[kept.ids] = draws * kept.w / kept.w.sum()
    assert counts[expected == 0].sum() == 0
    some = expected > 0
    statistic = ((counts[some] - expected[some]) ** 2 / expected[some]).sum()
    freedom = some.sum() - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("backend", "draws"),
    [("native", 1_000_000), ("reference", 100_000), pytest.param("reference", 1_000_000, marks=pytest.mark.exhaustive)],
)
def test_rare_token(backend: str, draws: int):
    require(backend)
    rare = 1e-4
    x = np.log(np.array([0.6, rare, 0.4 - rare])).astype(np.float32)
    w = keep(x, SamplingParams()).w
    p = w[1] / w.sum()
    assert math.isclose(p, rare, rel_tol=1e-5)
    count = np.count_nonzero(tokens(x, SamplingParams(), draws, backend) == 1)
    assert abs(count - draws * p) < 5 * math.sqrt(draws * p * (1 - p))


def test_streams_and_seeds_are_independent(backend: str):
    """Neighbouring seeds, streams and positions agree no more often than chance."""
    x = np.zeros((3, 1024), np.float32)
    tokens = np.array(
        [sample(x, seed=[5, 6, 5], stream=[0, 0, 1], position=i, backend=backend).tokens for i in range(200)]
    )
    agree = sum((tokens[:, i] == tokens[:, j]).sum() for i, j in ((0, 1), (0, 2), (1, 2)))
    agree += (tokens[1:] == tokens[:-1]).sum()
    assert agree <= 5  # 1,197 pairs at 1 in 1024


def test_mass_is_not_lost():
    w = keep(np.zeros(1 << 20, np.float32), SamplingParams()).w
    assert int(w.sum()) == ONE << 20
