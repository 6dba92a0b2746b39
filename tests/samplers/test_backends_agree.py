"""One seed, one token: every backend gives the reference's integers, in any batch, at any row.

Oracle: the reference. Integers are compared exactly, all of them: a wrong bit shows in totals long before tokens.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samplers import SamplingParams, filter_logits, pack, sample
from samplers.identity import draws
from samplers.reference.fixed_point import weights
from samplers.reference.philox import philox
from tests.conftest import examples, require
from tests.samplers.strategies import KINDS, params, row, rows

INTEGERS = ("tokens", "weight", "total", "kept")


def columns(out) -> list[np.ndarray]:
    return [getattr(out, name) for name in (*INTEGERS, "logprobs")]


@examples(300)
@given(x=rows(), p=params(extreme=True), seed=st.integers(0, 2**64 - 1))
def test_native_is_the_reference(x: np.ndarray, p: SamplingParams, seed: int):
    require("native")
    ours, theirs = (sample(x, p, seed=seed, details=True, backend=b) for b in ("native", "reference"))
    for a, b in zip(columns(ours), columns(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(ours.entropy, theirs.entropy, atol=1e-6)
    np.testing.assert_allclose(ours.model_logprobs, theirs.model_logprobs, atol=1e-6)
    same_bits(*(filter_logits(x, p, backend=b) for b in ("native", "reference")))


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@examples(150)
@given(data=st.data(), size=st.integers(1, 5), vocabulary=st.integers(1, 40))
def test_native_penalises_as_the_reference(data, size: int, vocabulary: int):
    """Every row with parameters, bias, mask and history of its own."""
    require("native")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = np.stack([row("normal", vocabulary, rng) for _ in range(size)]) * np.float32(rng.choice([1, 0, -0.0, 1e37]))
    ps = [
        replace(data.draw(params(penalties=True)), logit_bias={int(rng.integers(vocabulary)): float(rng.normal())})
        for _ in range(size)
    ]
    arguments = dict(
        history=[rng.integers(-1, vocabulary + 2, rng.integers(0, 12)).tolist() for _ in range(size)],
        history_start=rng.integers(0, 14, size),
        allowed=rng.random((size, vocabulary)) < 0.9,
    )
    ours, theirs = (
        sample(x, ps, seed=1, details=True, on_invalid="mark", backend=b, **arguments) for b in ("native", "reference")
    )
    for a, b in zip(columns(ours), columns(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(ours.model_logprobs, theirs.model_logprobs, atol=1e-6)


@pytest.mark.parametrize("vocabulary", [70_001, 1 << 20])
def test_large_vocabularies(vocabulary: int):
    require("native")
    x = row("normal", vocabulary, np.random.default_rng(0))
    for p in (
        SamplingParams(),
        SamplingParams(temperature=1.3, top_k=5000, top_p=0.97, typical_p=0.9, eta_cutoff=1e-6),
    ):
        ours, theirs = (sample(x, p, seed=3, details=True, backend=b) for b in ("native", "reference"))
        for a, b in zip(columns(ours), columns(theirs), strict=True):
            np.testing.assert_array_equal(a, b)


SIZES = (1, 3, 4, 15, 16, 17, 127, 128, 129, 255, 1000, 32000)
FILTERS = {
    "none": SamplingParams(),
    "top-k": SamplingParams(top_k=40),
    "top-k of more than there are blocks": SamplingParams(top_k=300, top_p=0.9),
    "top-p": SamplingParams(top_p=0.9),
    "top-p of next to nothing": SamplingParams(top_p=1e-9, min_tokens_to_keep=3),
    "top-p of nearly all": SamplingParams(top_p=1 - 1e-9),
    "min-p": SamplingParams(min_p=0.02),
    "epsilon": SamplingParams(epsilon_cutoff=1e-3),
    "typical": SamplingParams(typical_p=0.9, epsilon_cutoff=1e-4),
    "eta": SamplingParams(eta_cutoff=1e-3),
    "keep many": SamplingParams(top_p=0.1, min_p=0.9, epsilon_cutoff=0.5, min_tokens_to_keep=200),
    "cold": SamplingParams(temperature=0.05, top_p=0.9),
    "hot": SamplingParams(temperature=50.0, top_p=0.9),
}


@pytest.mark.parametrize("name", FILTERS)
def test_every_instruction_set_finds_the_same_set(name: str):
    """Rows around the sizes of vectors and blocks, where a pass over a row has its edges."""
    require("native")
    rng = np.random.default_rng(5)
    for vocabulary in SIZES:
        for kind in KINDS:
            x = row(kind, vocabulary, rng)
            theirs = sample(x, FILTERS[name], seed=vocabulary, backend="reference")
            filtered = filter_logits(x, FILTERS[name], backend="reference")
            for isa in draws.ways("native"):
                ours = sample(x, FILTERS[name], seed=vocabulary, backend="native")
                for a, b in zip(columns(ours), columns(theirs), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{kind}, V = {vocabulary} on {isa}")
                np.testing.assert_array_equal(filter_logits(x, FILTERS[name], backend="native"), filtered)


@pytest.mark.parametrize("name", FILTERS)
def test_the_logits_beside_zero(native_isa, name: str):
    """Between 0 and the greatest logit below it lies -0, which equals 0: a search by halving must get past it."""
    x = np.float32([0, -1e-45, -0.0, 1e-45, -1e-45, 0])
    ours, theirs = (sample(x, FILTERS[name], seed=1, backend=b) for b in ("native", "reference"))
    for a, b in zip(columns(ours), columns(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_wide_rows_of_every_type(native_isa, dtype: torch.dtype):
    """Rows long enough for the sample of top-p, whose last block is full, of one logit, or nearly full."""
    rng = np.random.default_rng(7)
    for vocabulary in (8192, 8193, 8319):
        for kind in KINDS:
            with np.errstate(over="ignore"):
                x = torch.from_numpy(row(kind, vocabulary, rng)).to(dtype)
            for p in (SamplingParams(temperature=3, top_p=0.9), SamplingParams(top_p=0.3)):
                arguments = dict(seed=vocabulary, on_invalid="mark")
                ours = sample(x, p, backend="native", **arguments)
                theirs = sample(x.float().numpy(), p, backend="reference", **arguments)
                for a, b in zip(columns(ours), columns(theirs), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{kind}, V = {vocabulary}, {p}")


def test_a_bad_logit_is_seen_at_every_place(native_isa):
    for vocabulary in (1, 17, 128, 300):
        for at in range(vocabulary):
            for bad in (np.nan, np.inf):
                x = np.zeros(vocabulary, np.float32)
                x[at] = bad
                assert sample(x, seed=0, backend="native", on_invalid="mark").tokens[0] == -1


def test_the_callers_rounding_is_no_concern(native_isa):
    """Flushed subnormals would change distances; the thread's mode is put back afterwards."""
    x, cold = np.float32([0, -3e-40, -1e-38, -1e-37]), SamplingParams(temperature=1e-6)
    expected = filter_logits(x, cold, backend="native")
    d = -np.arange(1, 5, dtype=np.float32) * np.float32(1e-39)
    assert torch.set_flush_denormal(True)
    try:
        assert (torch.tensor([1e-39]) * 0.5).item() == 0
        np.testing.assert_array_equal(filter_logits(x, cold, backend="native"), expected)
        np.testing.assert_array_equal(native_isa.weights(d), [2**40] * 4)
        assert (torch.tensor([1e-39]) * 0.5).item() == 0  # the caller's mode is back
    finally:
        torch.set_flush_denormal(False)


@pytest.fixture(params=["generic", "avx2", "avx512"])
def native_isa(request):
    """The extension, with one instruction set forced."""
    require("native")
    from samplers import _native

    if not _native.use_isa(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield _native
    _native.use_isa("auto")


def test_native_weights_everywhere(native_isa):
    """Every 997th float32 of [-60, 0], subnormals included."""
    bits = np.arange(0x80000000, 0xC2700001, 997, dtype=np.uint32)
    d = bits.view(np.float32)
    assert d[0] == 0 and -60 <= d[-1] < -59.9
    np.testing.assert_array_equal(native_isa.weights(d), weights(d))


@examples(60)
@given(
    data=st.data(),
    size=st.integers(1, 6),
    vocabulary=st.integers(1, 300),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_a_row_draws_the_same_in_any_batch(data, size: int, vocabulary: int, seed: int):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = np.stack(
        [row(data.draw(st.sampled_from(("peaked", "flat", "tied", "riddled"))), vocabulary, rng) for _ in range(size)]
    )
    ps = [data.draw(params()) for _ in range(size)]
    stream, position = rng.integers(0, 2**40, size), rng.integers(0, 2**40, size)
    for backend in ("reference", "native"):
        if backend == "native":
            require("native")
        whole = sample(x, ps, seed=seed, position=position, stream=stream, backend=backend)
        order = rng.permutation(size)
        permuted = sample(
            x[order],
            pack([ps[i] for i in order]),
            seed=seed,
            position=position[order],
            stream=stream[order],
            backend=backend,
        )
        for a, b in zip(columns(whole), columns(permuted), strict=True):
            np.testing.assert_array_equal(a[order], b)
        for i in range(size):
            alone = sample(x[i], ps[i], seed=seed, position=int(position[i]), stream=[stream[i]], backend=backend)
            for a, b in zip(columns(whole), columns(alone), strict=True):
                np.testing.assert_array_equal(a[i : i + 1], b)


def test_philox_vectors():
    """Oracle: the test vectors published with Random123."""
    for counter, key, expected in (
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ):
        words = philox(*([np.array([word], np.uint64) for word in words] for words in (counter, key)))
        assert " ".join(f"{int(word[0]):08x}" for word in words) == expected


def test_logits_as_far_apart_as_float32_goes(backend: str, recwarn):
    """A model log-probability beyond float32 is -inf, and nobody is warned. Oracle: the difference, by hand."""
    x = np.float32([3e38, -3e38])
    out = sample(x, SamplingParams(), seed=0, allowed=np.array([False, True]), details=True, backend=backend)
    assert (int(out.tokens[0]), float(out.model_logprobs[0])) == (1, -np.inf)
    assert [one.message for one in recwarn if "samplers" in one.filename] == []
