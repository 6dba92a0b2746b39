"""Oracle: the reference's weights, and the integers of `samplers.sample`."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from samplers import SamplingParams, filter_logits, sample
from samplers.vllm.logprobs import logprobs
from tests.conftest import examples


@examples(50)
@given(
    st.lists(st.floats(-40, 40, width=32) | st.just(-math.inf), min_size=1, max_size=40).filter(
        lambda row: max(row) > -math.inf
    ),
    st.sampled_from([0.0, 0.3, 1.0, 7.0]),
    st.sampled_from([{}, {"top_k": 2}, {"top_p": 0.7}, {"typical_p": 0.5}]),
)
def test_every_token_has_the_logprob_that_a_draw_of_it_reports(row, temperature, filters):
    params = SamplingParams(temperature=temperature, **filters)
    x = torch.tensor([row], dtype=torch.float32)
    inverse = torch.tensor(params.packed.table["inverse_temperature"])
    found = logprobs(x, filter_logits(x, params), inverse)
    draws = sample(x.expand(50, -1), params, seed=1)
    assert torch.allclose(found[0, draws.tokens], draws.logprobs, rtol=0, atol=1e-6)
    assert int((found > -math.inf).sum()) <= int(draws.kept[0])
    assert math.isclose(float(found.double().exp().sum()), 1, rel_tol=1e-6)
