"""The goals that need no GPU: launches, allocations and torch operations of a draw; rounds of a search, and passes.

Oracle: the goals; and the same counters on work that is known.
"""

import pytest
import torch

from bench.kernels.variants import Counted
from tests.conftest import require

pytest.importorskip("triton")
from bench.kernels import counts


@pytest.mark.parametrize(("filters", "launches"), [("none", 2), ("k50+p.9", 2), ("p.9", 3)])
def test_the_host_only_allocates_and_launches(filters, launches):
    found = counts.host_work(Counted("host", "peaked", filters))
    assert (found["launches"], found["allocations"], found["operations"]) == (launches, 2, 0)
    assert found["microseconds"] > 0 and found["times_empty"] > 1


def test_operations_are_seen():
    with counts.Operations() as operations:
        torch.full((2,), 3).to(torch.float32)
    assert operations.names == {"full": 1, "_to_copy": 1}


@pytest.mark.parametrize(
    ("kind", "filters", "rounds", "passes"),
    [
        ("peaked", "k50+p.9", 4, 0),
        pytest.param("peaked", "p.9", 4, 0, marks=pytest.mark.exhaustive),
        pytest.param("flat", "p.9", 8, 4, marks=pytest.mark.exhaustive),
        pytest.param("tied", "p.9", 8, 4, marks=pytest.mark.exhaustive),
    ],
)
def test_few_rounds_and_passes(kind, filters, rounds, passes):
    """Flat rows try two shortlists, so their rounds are those of two searches."""
    require("triton")
    found = counts.searches(Counted("interpreted", kind, filters))
    assert 0 < found["search_rounds"] <= rounds and found["passes"] <= passes
    assert (found["passes"] > 0) == (kind != "peaked")
