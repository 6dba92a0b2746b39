"""Oracle: `samplers.textbook`, the formulas in float64, for the probabilities and kept sets of the exact definition.

A kept set is compared where it is decided by more than rounding: where a threshold moved by one part in 10^5 keeps
the same tokens. (The definition itself forgives one part in 2^20.)
"""

import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from samplers import SamplingParams, filter_logits, textbook
from samplers.reference.filters import stages
from samplers.reference.fixed_point import ONE
from samplers.reference.kept import Kept
from samplers.reference.sampler import keep, model_logprob, sample_row
from tests.conftest import examples
from tests.samplers.strategies import params, rows

MARGIN = 1e-5
NEGLIGIBLE = 1e-6  # of the greatest probability: below, the definition's relative error may exceed 3e-6


def test_worked_example_through_the_public_entry():
    logits = np.log(textbook.example()).astype(np.float32)
    for temperature, size in ((0.5, 3), (1.0, 6), (1.5, 7), (10.0, 8)):
        filtered = filter_logits(logits, SamplingParams(temperature=temperature, top_p=0.8))
        expected = textbook.top_p(textbook.softmax(np.log(textbook.example()), temperature), 0.8)
        assert np.count_nonzero(filtered > -np.inf) == size
        np.testing.assert_allclose(textbook.softmax(filtered[0]), expected, rtol=1e-5)


@examples(400)
@given(rows(), params(greedy=False))
def test_probabilities_and_kept_sets(x: np.ndarray, p: SamplingParams):
    expected = textbook_distribution(x, p)
    kept = keep(x, p)
    actual = np.zeros(len(x))
    actual[kept.ids] = kept.w / kept.w.sum()
    sizeable = expected > NEGLIGIBLE * expected.max()
    np.testing.assert_allclose(actual[sizeable], expected[sizeable], rtol=3e-6 + 4 * len(x) / ONE)
    assert actual[~sizeable].max(initial=0) <= 2 * NEGLIGIBLE * expected.max()


@examples(100)
@given(rows(), params(greedy=False), st.integers(0, 2**64 - 1))
def test_numbers(x: np.ndarray, p: SamplingParams, bits: int):
    drawn = sample_row(x, p, bits)
    kept = keep(x, p)
    q = kept.w / kept.w.sum()
    assert drawn.weight / drawn.total == q[kept.ids == drawn.token][0]
    assert math.isclose(drawn.logprob, math.log(drawn.weight / drawn.total), abs_tol=1e-6)
    expected = textbook_softmax(kept, p)
    assert math.isclose(drawn.entropy, textbook.entropy(expected), abs_tol=3e-6)
    finite = np.where(np.isfinite(x), x.astype(np.float64), -np.inf)
    raw = finite[drawn.token] - finite.max() - math.log(np.exp(finite - finite.max()).sum())
    assert math.isclose(model_logprob(x, drawn.token), raw, abs_tol=3e-6)


def textbook_softmax(kept: Kept, p: SamplingParams) -> np.ndarray:
    return textbook.softmax(kept.x.astype(np.float64), p.temperature)


def textbook_distribution(x: np.ndarray, p: SamplingParams) -> np.ndarray:
    """The chain in float64; the example is dropped where a stage is not decided by more than rounding."""
    n = p.min_tokens_to_keep
    q = textbook.softmax(x.astype(np.float64), p.temperature)
    if p.top_k > 0:
        # On the logits, where tokens of probability 0 still have an order.
        least = np.sort(x)[-min(max(p.top_k, n), len(x))]
        q = textbook.renormalise(q, x >= least)
    for f, value in stages(p):
        if f.name != "top_k":
            q = decided(getattr(textbook, f.concept), q, value, n)
    return q


def decided(stage, q: np.ndarray, value: float, n: int) -> np.ndarray:
    survivors = np.flatnonzero(q > 0)
    some = q[survivors]
    kept = stage(some, value, n)
    low = stage(some, value * (1 - MARGIN), n) > 0
    high = stage(some, min(value * (1 + MARGIN), 1.0), n) > 0
    assume(np.array_equal(low, kept > 0) and np.array_equal(high, kept > 0))
    if stage is textbook.typical:
        surprise = np.abs(-np.log(some) - textbook.entropy(some))
        inside, outside = surprise[kept > 0], surprise[kept == 0]
        assume(outside.size == 0 or np.abs(outside[:, None] - inside.max()).min() > MARGIN)
    result = np.zeros_like(q)
    result[survivors] = kept
    return result
