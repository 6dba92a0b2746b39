"""The operations of a forward pass. Oracles: exact fractions, mpmath, float64; C++ is compared to the bit."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import RopeScaling
from model.packed import _native
from model.reference import angles, attend, exponential, fused, linear, norm, swiglu
from tests.conftest import examples
from tests.model.exactness import bits, isa, isas, needs_native

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
MOST = float(np.finfo(np.float32).max)
mpmath.mp.dps = 40


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a fraction, ties to even, infinity beyond the greatest."""
    if abs(value) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        return np.float32(math.copysign(math.inf, value))
    guess = np.float32(np.clip(float(value), -MOST, MOST))
    around = [np.nextafter(guess, np.float32(s)) for s in (-np.inf, np.inf)]
    finite = [x for x in (guess, *around) if np.isfinite(x)]
    return min(finite, key=lambda x: (abs(Fraction(float(x)) - value), int(np.float32(x).view(np.int32)) & 1))


@given(FLOATS, FLOATS, FLOATS)
@examples(400)
def test_fma_rounds_once(a: float, b: float, c: float):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert fused.fma(np.float32([a]), np.float32([b]), np.float32([c]))[0] == nearest(exact)


@given(st.integers(0, 2**23 - 1), st.integers(0, 2**23 - 1), st.integers(-80, 20), st.booleans())
@examples(400)
def test_fma_next_to_a_tie(a: int, b: int, exponent: int, is_negative: bool):
    """c lies far below the last digit of the product, where two roundings go wrong."""
    x, y = (np.float32(1 + n * 2.0**-23) for n in (a, b))
    c = np.float32(math.ldexp(-1.0 if is_negative else 1.0, exponent))
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(c))
    assert fused.fma(np.array([x]), y, c)[0] == nearest(exact)


def test_exponential():
    d = np.linspace(-60, 0, 20011, dtype=np.float32)
    oracle = np.array([float(mpmath.exp(mpmath.mpf(float(x)))) for x in d])
    assert np.abs(exponential.exponential(d) / oracle - 1).max() < 2e-7
    assert np.isnan(exponential.exponential(np.float32([np.nan]))).all()


def test_angles():
    """Within a hair of half a unit of float32, also next to multiples of pi/2."""
    rng = np.random.default_rng(0)
    near = [np.float32(n * math.pi / 2) for n in rng.integers(0, 2**19, 500)]
    x = np.concatenate(
        [np.float32(rng.uniform(0, 2**19, 1500)), np.float32(rng.uniform(0, 4, 500)), near, [np.float32(0)]]
    )
    for found, function in zip(angles.angles(x), (mpmath.cos, mpmath.sin), strict=True):
        for value, radians in zip(found, x, strict=True):
            oracle = function(mpmath.mpf(float(radians)))
            assert abs(mpmath.mpf(float(value)) - oracle) <= 0.500001 * float(np.spacing(np.abs(value)))


@pytest.mark.parametrize("theta, size", [(10000.0, 64), (500000.0, 128), (5000.0, 10)])
def test_frequencies(theta: float, size: int):
    """Within the roundings of the exponent, the power and the quotient."""
    for i, f in enumerate(angles.frequencies(size, theta, RopeScaling())):
        oracle = mpmath.power(mpmath.mpf(theta), -mpmath.mpf(2 * i) / size)
        assert abs(float(f) / oracle - 1) < 1e-6


def test_scaled_frequencies():
    plain = angles.frequencies(64, 500000.0, RopeScaling())
    assert (angles.frequencies(64, 500000.0, RopeScaling("linear", 4.0)) == plain / 4).all()
    scaled = angles.frequencies(64, 500000.0, RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))
    turns = 8192 * plain / (2 * math.pi)
    assert (scaled[turns > 4] == plain[turns > 4]).all() and (scaled[turns < 1] == plain[turns < 1] / 8).all()
    between = (turns < 4) & (turns > 1)
    assert between.any() and ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_close_to_float64():
    """One chain of 5,632 products would be several times as far away."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5632), (8, 5632)))
    assert np.abs(linear.linear(x, w) - x.astype(float) @ w.T.astype(float)).max() < 2e-4
    row, weight = (rng.standard_normal(100).astype(np.float32) for _ in range(2))
    oracle = row / np.sqrt(np.mean(row.astype(float) ** 2) + 1e-5) * weight
    np.testing.assert_allclose(norm.norm(row, weight, 1e-5), oracle, rtol=4e-7)
    gate, up = (rng.standard_normal(1000).astype(np.float32) * 20 for _ in range(2))
    np.testing.assert_allclose(swiglu.swiglu(gate, up), gate / (1 + np.exp(-gate.astype(float))) * up, rtol=1e-6)
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((24,), (300, 24), (300, 24)))
    scores = k.astype(float) @ q / math.sqrt(24)
    weights = np.exp(scores - scores.max())
    np.testing.assert_allclose(attend.attend(q, k, v), weights @ v / weights.sum(), atol=2e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(bad: float):
    keys = np.float32([[1, 2], [3, 4], [5, 6]])
    values = keys.copy()
    keys[1, 0] = bad
    assert np.isnan(attend.attend(np.float32([1, 1]), keys, values)).all()
    assert not np.isfinite(swiglu.swiglu(np.float32([bad]), np.float32([1]))).any()
    assert np.isnan(norm.norm(np.float32([1, bad]), np.float32([1, 1]), 1e-5)).any()


def stored(w: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights as C++ gets them, and as float32."""
    if kind == "float32":
        return w, w
    if kind == "float16":
        half = w.astype(np.float16)
        return half.view(np.int16), half.astype(np.float32)
    half = (w.view(np.int32) >> 16).astype(np.int16)
    return half, (half.astype(np.int32) << 16).view(np.float32)


@needs_native
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", isas())
@pytest.mark.parametrize(
    "rows, inputs, outputs",
    [(1, 1, 1), (1, 5, 3), (3, 130, 70), (7, 300, 97), (13, 129, 64), (33, 17, 200), (100, 128, 32)],
)
def test_linear_in_cpp(kind: str, name: str, rows: int, inputs: int, outputs: int):
    rng = np.random.default_rng(rows)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, inputs), (outputs, inputs)))
    bias = rng.standard_normal(outputs).astype(np.float32)
    raw, wide = stored(w, kind)
    panels = np.empty(_native.panel_size(outputs, inputs), raw.dtype)
    _native.pack(raw, kind, panels)
    with isa(name):
        made = _native.Linear(panels, kind, outputs, inputs, bias)
        assert (made.unpack() == raw).all()
        assert (bits(made(x, 1)) == bits(linear.linear(x, wide, bias))).all()


@needs_native
@pytest.mark.parametrize("name", isas())
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_number_of_16_bits(name: str, kind: str):
    """Widened exactly: subnormals, infinities and NaN too."""
    raw = np.arange(-(2**15), 2**15, dtype=np.int16)[:, None]
    wide = (
        raw.view(np.float16).astype(np.float32) if kind == "float16" else (raw.astype(np.int32) << 16).view(np.float32)
    )
    panels = np.empty(_native.panel_size(*raw.shape), np.int16)
    _native.pack(raw, kind, panels)
    for rows in (1, 20):
        with isa(name):
            found = _native.Linear(panels, kind, *raw.shape, None)(np.ones((rows, 1), np.float32), 1)
        with np.errstate(invalid="ignore"):
            oracle = np.tile(wide.T, (rows, 1)) + np.float32(0)  # a chain begins with +0
        assert (bits(found) == bits(oracle)).all()


@needs_native
def test_angles_in_cpp():
    x = np.float32(np.random.default_rng(0).uniform(0, 2**19, 100000))
    assert all((bits(a) == bits(b)).all() for a, b in zip(_native.angles(x), angles.angles(x), strict=True))


@needs_native
@pytest.mark.parametrize(
    "message, arguments",
    [
        ("type must be", (np.zeros((2, 2), np.float32), "int8", np.zeros(64, np.float32))),
        ("must come as", (np.zeros((2, 2), np.float32), "bfloat16", np.zeros(64, np.int16))),
        ("two dimensions", (np.zeros(4, np.float32), "float32", np.zeros(64, np.float32))),
        ("panels must fit", (np.zeros((2, 2), np.float32), "float32", np.zeros(8, np.float32))),
    ],
)
def test_refused_by_pack(message: str, arguments: tuple):
    with pytest.raises(ValueError, match=message):
        _native.pack(*arguments)
