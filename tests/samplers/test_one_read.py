"""The way that reads a row once, in Triton's interpreter: there a row must fit one part, as programs can't wait.

Oracle: the reference.
"""

import numpy as np
import pytest
import torch

from samplers import SamplingParams, sample
from samplers.identity.rows import row

pytest.importorskip("triton")
from samplers.kernels import one_read
from tests.conftest import require


@pytest.fixture
def counters(monkeypatch):
    """Switches it on; the counters that its launches share."""
    require("triton")
    monkeypatch.setattr(one_read, "is_used", lambda device, dtype: True)
    shared = torch.zeros(1 + 8, dtype=torch.int32)
    monkeypatch.setattr(one_read, "counters", lambda device, size: shared)
    return shared


PARAMS = [SamplingParams(), SamplingParams(top_p=0.8), SamplingParams(min_p=0.05)]


@pytest.mark.parametrize("turn", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2))])
@pytest.mark.parametrize("size", [1, 77, 3000, 8192])
def test_it_draws_the_same(size, turn, counters):
    """Each of three kinds of rows, with each of the parameters in turn."""
    rng, params = np.random.default_rng(size), PARAMS[turn:] + PARAMS[:turn]
    x = np.stack([row(kind, size, rng) for kind in ("normal", "tied", "riddled")])
    ours, theirs = (sample(x, params, seed=5, backend=b, on_invalid="mark") for b in ("triton", "reference"))
    assert [c.tolist() for c in ours[:4]] == [c.tolist() for c in theirs[:4]]
    assert not counters.any()  # the next launch finds them empty
