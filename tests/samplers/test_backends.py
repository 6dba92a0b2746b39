"""What can run here is said truly, and a choice that can't run is refused with the reason."""

import numpy as np
import pytest

import samplers
from samplers import backends, native, sample

ROW = np.zeros((1, 4), np.float32)


def test_names_and_reference():
    assert list(backends()) == ["reference", "native", "triton"]
    assert backends()["reference"] == "ok"


def test_unknown_backend():
    with pytest.raises(
        ValueError, match="backend must be 'auto' or one of 'reference', 'native', 'triton', got 'cuda'"
    ):
        sample(ROW, seed=0, backend="cuda")


def test_a_missing_extension_is_explained(monkeypatch):
    module = samplers.sampler.implementation.__globals__
    monkeypatch.setattr(native, "_reason", "not built: no compiler was found")
    module["native_state"].cache_clear()
    module["warn_once"].cache_clear()
    try:
        assert "no compiler was found" in backends()["native"]
        with pytest.raises(RuntimeError, match="backend 'native' can't run here: not built"):
            sample(ROW, seed=0, backend="native")
        with pytest.warns(RuntimeWarning, match="the slower reference draws the same tokens"):
            sample(ROW, seed=0)
        sample(ROW, seed=0)  # warned once, not again: a warning would be an error here
    finally:
        module["native_state"].cache_clear()
        module["warn_once"].cache_clear()


def test_triton_says_why_not(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    state = backends()["triton"]
    if state != "ok":
        with pytest.raises(RuntimeError, match="'triton' can't run here"):
            sample(ROW, seed=0, backend="triton")
