"""Oracle: vLLM's documented meaning of its parameters, and masks computed with `samplers.sample`'s own filters."""

from __future__ import annotations

import pytest

from samplers import SamplingParams
from samplers.vllm.request import Request, request_of
from tests.samplers.vllm.conftest import asked


def test_vllm_s_own_parameters():
    request = request_of(asked(temperature=0.7, top_k=-1, top_p=0.9, seed=7))
    assert request == Request(SamplingParams(temperature=0.7, top_p=0.9), None, 7, None)


def test_extra_args_set_what_vllm_does_not_have_and_override_the_rest():
    own = dict(typical_p=0.9, epsilon_cutoff=0.01, eta_cutoff=0.02, top_p=0.8, seed=3, stream=2, min_tokens_to_keep=2)
    request = request_of(asked(top_k=5, top_p=0.9, seed=7, extra_args=own | {"another plugin's": object()}))
    expected = {name: value for name, value in own.items() if name not in ("seed", "stream")}
    assert request == Request(SamplingParams(top_k=5, **expected), None, 3, 2)


@pytest.mark.parametrize("others", [{}, {"top_k": 3}])
def test_min_p_alone_or_with_top_k_needs_no_filter_of_its_own(others):
    assert request_of(asked(min_p=0.1, **others)).params == SamplingParams(min_p=0.1, **others)


@pytest.mark.parametrize("others", [{"top_p": 0.9}, {"extra_args": {"typical_p": 0.9, "min_tokens_to_keep": 2}}])
def test_min_p_of_vllm_acts_before_filters_that_look_at_masses(others):
    request = request_of(asked(temperature=0.5, min_p=0.1, **others))
    n = request.params.min_tokens_to_keep
    assert request.min_p == SamplingParams(temperature=0.5, min_p=0.1, min_tokens_to_keep=n)
    assert request.params.min_p == 0


def test_min_p_of_extra_args_acts_where_the_engine_has_it():
    request = request_of(asked(top_p=0.9, min_p=0.3, extra_args={"min_p": 0.1}))
    assert request.min_p is None and request.params == SamplingParams(top_p=0.9, min_p=0.1)


@pytest.mark.parametrize("fields", [{"seed": 7, "extra_args": {"stream": 8}}, {"seed": 7}, {}])
def test_choices_that_differ_by_vllm_s_own_seed_or_by_their_streams(fields):
    request_of(asked(n=3, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra_args": {"typical_p": 2.0}}, r"typical_p must be in \(0, 1\], got 2.0"),
        ({"extra_args": {"typical_p": "0.9"}}, "typical_p must be a number"),
        ({"extra_args": {"stream": "x"}}, r"stream must be an integer in -2\^63 .. 2\^63 - 1, got 'x'"),
        ({"extra_args": {"stream": 2**63}}, "stream must be an integer"),
        ({"extra_args": {"seed": True}}, "seed must be an integer"),
        ({"extra_args": {"seed": 1.0}}, "seed must be an integer"),
        ({"n": 3, "seed": 7, "extra_args": {"seed": 8}}, "n must be 1 .* got 3"),
        ({"n": 3, "extra_args": {"stream": 8}}, "n must be 1 .* got 3"),
        ({"extra_args": {"logit_bias": {1: 2.0}}}, "logit_bias must be vLLM's own parameter"),
        ({"extra_args": {"min_tokens": 3}}, "min_tokens must be vLLM's own parameter"),
        ({"extra_args": {"repetition_penalty": 1.3}}, "repetition_penalty must be vLLM's own parameter"),
    ],
)
def test_refusals_name_the_parameter(fields, message):
    with pytest.raises(ValueError, match=message):
        request_of(asked(**fields))
