"""`allowed` as bits in int32 words. Oracle: the same mask as bools, whose draws must be equal, on every backend."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samplers import InvalidLogits, SamplingParams, filter_logits, sample, trace
from samplers.batch import Batch
from samplers.identity.draws import ways
from tests.conftest import examples, require
from tests.samplers import strategies

VOCABULARIES = (1, 7, 31, 32, 33, 64, 128, 129, 300, 1000)


def words_of(allowed: np.ndarray, beyond: int = 0) -> np.ndarray:
    """int32 [..., W] of bool [..., V]; the bits beyond V are all `beyond`."""
    v = allowed.shape[-1]
    width = [(0, 0)] * (allowed.ndim - 1) + [(0, -v % 32)]
    padded = np.pad(allowed, width, constant_values=bool(beyond)).reshape(*allowed.shape[:-1], -1, 32)
    return (padded.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)


def masks(shape: tuple[int, ...], seed: int = 0, share: float = 0.3) -> np.ndarray:
    """Every row allows a token."""
    allowed = np.random.default_rng(seed).random(shape) < share
    allowed[..., -1] = True
    return allowed


def logits(batch: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (3 * torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(1))).to(dtype)


def test_the_layout_of_the_words():
    """Worked by hand: tokens 0, 2 and 31 in the first word, 32 and 34 in the second, whose bit 3 is beyond V."""
    allowed = np.isin(np.arange(35), [0, 2, 31, 32, 34])
    assert words_of(allowed, beyond=0).tolist() == [-(2**31) + 5, 5]
    for words in ([-(2**31) + 5, 5], [-(2**31) + 5, 13]):
        kept = filter_logits(np.zeros(35, np.float32), allowed=np.int32(words)) > -np.inf
        np.testing.assert_array_equal(kept, allowed[None])


def assert_same(backend: str, x: Any, p: Any, allowed: np.ndarray, words: Any, **more: Any) -> None:
    for way in ways(backend):
        bools, bits = (sample(x, p, seed=5, allowed=a, backend=backend, **more) for a in (allowed, words))
        for name, one, other in zip(bools._fields, bools, bits, strict=True):
            assert (one is None and other is None) or torch.equal(one, other), f"{name} by {way}"


ON_THE_CPU = pytest.mark.parametrize("backend", ["reference", "native"])


@ON_THE_CPU
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_same_draws_as_with_bools(backend, vocabulary, beyond):
    require(backend)
    x = logits(3, vocabulary)
    for allowed in (masks((vocabulary,)), masks((3, vocabulary))):
        words = words_of(allowed, beyond)
        assert words.shape == (*allowed.shape[:-1], -(-vocabulary // 32))
        for p in (None, SamplingParams(top_k=5, top_p=0.9)):
            assert_same(backend, x, p, allowed, torch.from_numpy(words), details=True)


def test_the_same_draws_with_triton():
    require("triton")
    allowed = masks((2, 33))
    assert_same("triton", logits(2, 33), SamplingParams(top_k=5, top_p=0.9), allowed, words_of(allowed, 1))


@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, 1024, 1056, 3001])
def test_the_same_logits_in_triton(vocabulary):
    """Step 0 alone, which takes a thousandth of the time of an interpreted draw."""
    require("triton")
    from samplers.backends.triton import penalised, table

    x, p = logits(2, vocabulary), SamplingParams()
    for allowed in (masks((vocabulary,)), masks((2, vocabulary))):
        for words in (words_of(allowed, 1), np.asfortranarray(words_of(allowed))):
            bools, bits = (Batch(x, p, allowed=a) for a in (allowed, words))
            expected = x.masked_fill(torch.from_numpy(~allowed), -torch.inf)
            for batch in (bools, bits):
                assert torch.equal(penalised(batch, x, table(batch.params, x.device)), expected)


@ON_THE_CPU
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(backend, dtype):
    require(backend)
    allowed = masks((2, 131))
    assert_same(backend, logits(2, 131, dtype), SamplingParams(top_p=0.9), allowed, words_of(allowed, 1))


@ON_THE_CPU
def test_with_biases_and_penalties(backend):
    require(backend)
    x, allowed = logits(2, 77), masks((2, 77))
    p = SamplingParams(repetition_penalty=1.3, presence_penalty=0.5, logit_bias={3: 2.0, 76: -np.inf, 75: 4.0}, top_k=9)
    assert_same(backend, x, p, allowed, words_of(allowed, 1), history=[[1, 2, 3], [76]])


@examples(300)
@given(
    row=strategies.rows(max_vocabulary=3000),
    p=strategies.params(),
    share=st.sampled_from([0.001, 0.1, 0.9, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_every_filter_under_a_mask(row, p, share, seed):
    """C++ with each instruction set against the reference, where a mask changes the logits and not the passes."""
    require("native")
    allowed = np.random.default_rng(seed).random(len(row)) < share
    exact = sample(row, p, seed=seed, allowed=allowed, backend="reference", on_invalid="mark")
    for way in ways("native"):
        for mask in (allowed, words_of(allowed, seed % 2)):
            ours = sample(row, p, seed=seed, allowed=mask, backend="native", on_invalid="mark")
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours[:5], exact[:5], strict=True)), way


@pytest.mark.parametrize("kind", strategies.KINDS)
def test_a_huge_vocabulary(kind):
    require("native")
    row = strategies.row(kind, 131_071, np.random.default_rng(0))
    allowed = masks(row.shape, share=0.5)
    for p in (None, SamplingParams(top_p=0.9), SamplingParams(top_k=50, top_p=0.9), SamplingParams(min_p=0.01)):
        exact = sample(row, p, seed=5, allowed=allowed, backend="reference", on_invalid="mark")
        for way in ways("native"):
            for mask in (allowed, words_of(allowed, 1)):
                ours = sample(row, p, seed=5, allowed=mask, backend="native", on_invalid="mark")
                assert [column.tolist() for column in ours[:4]] == [column.tolist() for column in exact[:4]], way


@ON_THE_CPU
def test_invalid_logits_outside_the_mask_do_not_matter(backend):
    require(backend)
    x = np.float32([[np.nan, 1, np.inf, 2, -np.inf]])
    for allowed in (np.array([False, True, False, True, True]), np.int32([0b11010])):
        assert sample(x, SamplingParams(temperature=0), seed=0, allowed=allowed, backend=backend).tokens[0] == 3
    for words in (0b10000, 0, 0b00001, 0b00110):  # only -inf, nothing, a NaN, +inf
        with pytest.raises(InvalidLogits):
            sample(x, seed=0, allowed=np.int32([words]), backend=backend)


def test_filter_logits_and_trace(backend):
    x, allowed, p = logits(2, 45).numpy(), masks((2, 45)), SamplingParams(top_p=0.8)
    words = words_of(allowed, 1)
    bools, bits = (filter_logits(x, p, allowed=a, backend=backend) for a in (allowed, words))
    np.testing.assert_array_equal(bools, bits)
    for a, b in zip(trace(x, p, seed=3, allowed=allowed), trace(x, p, seed=3, allowed=words), strict=True):
        assert (a.token, a.weight, a.total, a.stages) == (b.token, b.weight, b.total, b.stages)


@ON_THE_CPU
@pytest.mark.parametrize("layout", ["columns", "every other word", "read-only", "big"])
def test_words_in_any_layout(backend, layout):
    require(backend)
    allowed = masks((3, 100))
    words = words_of(allowed)
    laid_out = {
        "columns": np.asfortranarray(words),
        "every other word": np.repeat(words, 2, 1)[:, ::2],
        "read-only": words.copy(),
        "big": words.astype(">i4").astype(np.int32),
    }[layout]
    laid_out.flags.writeable = layout != "read-only"
    assert_same(backend, logits(3, 100), None, allowed, laid_out)


@pytest.mark.parametrize(
    ("allowed", "error", "got"),
    [
        (np.zeros(1, np.int32), ValueError, r"int32 \(1,\)"),
        (np.zeros(33, np.int32), ValueError, r"int32 \(33,\)"),
        (np.zeros((2, 2), np.int32), ValueError, r"int32 \(2, 2\)"),
        (np.zeros((1, 2), np.int32), ValueError, r"int32 \(1, 2\)"),
        (np.zeros((3, 33), np.int32), ValueError, r"int32 \(3, 33\)"),
        (torch.zeros(3, dtype=torch.int32), ValueError, r"int32 \(3,\)"),
        (np.zeros(2, bool), ValueError, r"bool \(2,\)"),
        (np.zeros(2, np.int64), TypeError, "int64"),
        (np.zeros(2, np.uint32), TypeError, "uint32"),
        (torch.zeros(2, dtype=torch.int16), TypeError, "int16"),
        (np.zeros(2, np.float32), TypeError, "float32"),
    ],
)
def test_errors_name_both_forms(backend, allowed, error, got):
    accepted = r"allowed must be bool \(33,\) or \(3, 33\), or bits in int32 \(2,\) or \(3, 2\), got "
    with pytest.raises(error, match=accepted + got):
        sample(logits(3, 33), seed=0, allowed=allowed, backend=backend)
