"""The rows of the conformance suite say what they are meant to. Oracle: their own parameters, nudged; the tutorials."""

from dataclasses import replace

import numpy as np
import pytest

from samplers import SamplingParams, conformance
from samplers.conformance_cases import LEVELS, Case, distributions, final_distribution, mask_cases, tail_case
from samplers.reference.filters import FILTERS

LIMITS = [f.name for f in FILTERS if not f.is_integer]  # parameters that a mass is held against


@pytest.mark.parametrize("case", distributions() + mask_cases(), ids=lambda case: case.name)
def test_no_kept_set_hangs_by_a_thread(case: Case):
    """Another rounding keeps the same tokens: no limit lies within 1e-4 of what it is held against, no tie at k."""
    kept = case.probabilities > 0
    for name in LIMITS:
        for nudge in (1 - 1e-4, 1 + 1e-4):
            value = getattr(case.params, name)
            if value not in (0, 1):
                nudged = final_distribution(case.logits, replace(case.params, **{name: value * nudge}))
                assert np.array_equal(nudged > 0, kept)
    if case.params.typical_p == 1 and not kept.all():
        assert case.logits[kept].min() > case.logits[~kept].max() + 1e-4


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"top_k": 3}, 3),
        ({"top_p": 0.8}, 6),
        ({"temperature": 0.5, "top_p": 0.8}, 3),
        ({"temperature": 1.5, "top_p": 0.8}, 7),
        ({"temperature": 10.0, "top_p": 0.8}, 8),
        ({"epsilon_cutoff": 0.05}, 7),
    ],
)
def test_the_worked_example(settings: dict[str, float], size: int):
    cases = [case for case in mask_cases() if case.params == SamplingParams(**settings)]
    assert [np.count_nonzero(case.probabilities) for case in cases] == [size, size]  # in order and spread


def test_every_kept_token_is_looked_for():
    for case in mask_cases():
        p = case.probabilities[case.probabilities > 0]
        assert ((1 - p) ** conformance.MASK_DRAWS < conformance.MISSED).all()


def test_tail_has_so_many_tokens_of_each_level():
    p = tail_case().probabilities
    for level, size in LEVELS.items():
        assert np.count_nonzero(np.isclose(p, level, rtol=0.01)) == size
