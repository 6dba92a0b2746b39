"""The C++ of the forward pass reads and writes nothing that is not its own.

Oracle: the address and undefined-behaviour sanitizers.
"""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sanitizers import run_sanitized


@pytest.mark.exhaustive
def test_under_sanitizers(tmp_path: Path):
    sources = [p for p in sorted((ROOT / "csrc/model").glob("*.cpp")) if p.stem != "bindings"]
    assert "12 rounds" in run_sanitized(tmp_path, [*sources, Path(__file__).parent / "sanitized.cpp"], 12)
