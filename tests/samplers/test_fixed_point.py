"""Oracle: the reference, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samplers import fixed_point
from samplers.reference import fixed_point as exact

D = -np.concatenate([np.linspace(0, 60, 100_001), np.geomspace(1e-38, 60, 100_001), [0, 60]]).astype(np.float32)


@pytest.mark.parametrize("function", [fixed_point.weights, fixed_point.weights_by_torch])
def test_weights(function):
    d = torch.from_numpy(D)
    assert np.array_equal(function(d).numpy(), exact.weights(D))
    assert torch.equal(function(d.view(2, -1).T), function(d).view(2, -1).T), "of any shape, not contiguous"


def test_surprisal():
    assert np.array_equal(fixed_point.surprisal(torch.from_numpy(D)).numpy(), exact.surprisal(D))


def test_distances():
    x = np.float32([-np.inf, -3.4e38, -1, 0, 1e-45, 3.4e38])
    for temperature in (0.001, 0.7, 1.0, 1000.0):
        m, inverse = np.float32(3.4e38), np.float32(1 / temperature)
        found = fixed_point.distances(torch.from_numpy(x)[None], torch.tensor([m]), torch.tensor([inverse]))[0]
        assert np.array_equal(found.numpy(), exact.distances(x, m, temperature))
