"""Every weight by every way. Oracles: the golden weights; a way that is wrong once, which must be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samplers.identity import weights
from samplers.reference import fixed_point
from tests.conftest import require
from tests.samplers.golden import read_weights


def test_all_distances_from_0_to_60(monkeypatch):
    assert weights.LAST - weights.FIRST + 1 == 1_114_636_289
    monkeypatch.setattr(weights, "LAST", weights.FIRST + 1000)
    d = np.concatenate([weights.distances(start, 128) for start in weights.chunks(size=128)])
    assert np.signbit(d[0]) and (np.nextafter(d[:-1], np.float32(-1)) == d[1:]).all() and len(d) == 1001


def test_fused_weights_are_the_golden_ones():
    require("native")
    from samplers import _native

    d, w = read_weights()
    np.testing.assert_array_equal(_native.fused_weights(d), w)


@pytest.mark.parametrize(("backend", "every"), [("native", 8192), ("triton", 65536)])
def test_a_sample_of_all(backend: str, every: int):
    """1,024 neighbours at each of many places. All of them: `make identity`."""
    require("native")
    require(backend)
    assert sum(weights.check(backend, start, 1 << 10) for start in weights.chunks(every, 1 << 10)) > 15_000


def test_floor_by_shifts():
    """As GPUs round down that convert slowly. Oracle: NumPy's floor."""
    require("triton")
    from samplers.kernels import launch

    rng = np.random.default_rng(0)
    edges = [0.0, 1e-45, 0.5, np.nextafter(np.float32(1), np.float32(0)), 1.0, 1.5, 2.0**24 + 2, 2.0**39, 2.0**40]
    x = np.concatenate([edges, 2.0 ** rng.uniform(-30, 40, 1000), rng.integers(0, 1 << 24, 200)]).astype(np.float32)
    floors = launch.floors(torch.from_numpy(x).to("cuda" if torch.cuda.is_available() else "cpu")).cpu().numpy()
    np.testing.assert_array_equal(floors, np.floor(x.astype(np.float64)).astype(np.int64))


def test_one_wrong_weight_is_found(monkeypatch):
    require("native")

    def wrong(_: str, d: np.ndarray) -> np.ndarray:
        w = fixed_point.weights(d)
        w[d == np.float32(-20.0)] += 1
        return w

    monkeypatch.setattr(weights, "weigh", wrong)
    start = int(np.float32(-20.0).view(np.uint32))
    with pytest.raises(AssertionError, match=r"W\(-0x1.40*p\+4\) is 2267 by \w+, not 2266"):
        weights.check("native", start - 100)
