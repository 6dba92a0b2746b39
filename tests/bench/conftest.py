"""For all tests of benchmarks: records go to a folder of the test; torch's threads and seed stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import records


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A benchmark sets threads and seed, being alone in its process."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    return tmp_path
