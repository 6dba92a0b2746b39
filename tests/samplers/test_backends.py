"""What can run here is said truly, and a choice that can't run is refused with the reason."""

import warnings

import numpy as np
import pytest
import torch

import samplers
from samplers import SamplingParams, backends, filter_logits, sample
from samplers.backends import native

ROW = np.zeros((1, 4), np.float32)
MODULE = samplers.sampler.implementation.__globals__  # `samplers.backends` is the function


def test_names_and_reference():
    assert list(backends()) == ["reference", "native", "triton"]
    assert backends()["reference"] == "ok"


def test_unknown_backend():
    with pytest.raises(
        ValueError, match="backend must be 'auto' or one of 'reference', 'native', 'triton', got 'cuda'"
    ):
        sample(ROW, seed=0, backend="cuda")


def test_a_missing_extension_is_explained(monkeypatch):
    monkeypatch.setattr(native, "_reason", "not built: no compiler was found")
    monkeypatch.setitem(MODULE, "WARNED", set())
    assert "no compiler was found" in backends()["native"]
    with pytest.raises(RuntimeError, match="backend 'native' can't run here: not built"):
        sample(ROW, seed=0, backend="native")
    with pytest.warns(RuntimeWarning, match="the slower reference backend draws the same tokens") as caught:
        sample(ROW, seed=0)
    assert caught[0].filename == __file__
    sample(ROW, seed=0)  # warned once, not again: a warning would be an error here


def test_the_reference_refuses_to_run_where_subnormals_are_flushed():
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(RuntimeError, match="this thread flushes them"):
            sample(ROW, seed=0, backend="reference")
    finally:
        torch.set_flush_denormal(False)


def test_without_triton_a_gpu_tensor_goes_to_the_next_best(monkeypatch):
    monkeypatch.setitem(MODULE, "triton_state", lambda: "no GPU")
    monkeypatch.setitem(MODULE, "WARNED", set())
    expected = native if backends()["native"] == "ok" else None
    with pytest.warns(RuntimeWarning, match="the triton backend can't run here"):
        assert MODULE["implementation"]("auto", True) is (expected or MODULE["implementation"]("reference", True))


def test_torch_compile_of_a_caller_draws_the_same_and_warns_of_nothing():
    def drawn(x: torch.Tensor) -> torch.Tensor:
        p = SamplingParams(top_k=7)
        return sample(filter_logits(2 * x, p), p, seed=3).tokens + 1

    x = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(torch.compile(drawn, backend="eager")(x), drawn(x))


def test_triton_says_why_not(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    state = backends()["triton"]
    if state != "ok":
        with pytest.raises(RuntimeError, match="'triton' can't run here"):
            sample(ROW, seed=0, backend="triton")
