"""Every parameter of SPEC.md step 7: what is accepted, and that anything else is refused by name, range and value."""

import math

import numpy as np
import pytest
from transformers import GenerationConfig

from samplers import PackedParams, SamplingParams, pack

REFUSED = [
    ("temperature", -0.1, "0, or in [1e-6, 1e6]"),
    ("temperature", 1e-7, "0, or in [1e-6, 1e6]"),
    ("temperature", 1e7, "0, or in [1e-6, 1e6]"),
    ("top_k", -1, ">= 0"),
    ("top_p", 1.2, "[0, 1]"),
    ("top_p", -0.01, "[0, 1]"),
    ("min_p", 1.01, "[0, 1]"),
    ("typical_p", 0.0, "(0, 1]"),
    ("epsilon_cutoff", 1.0, "[0, 1)"),
    ("eta_cutoff", -1.0, "[0, 1)"),
    ("repetition_penalty", 0.0, "> 0"),
    ("repetition_penalty", 1e-50, "> 0"),
    ("presence_penalty", math.inf, "finite"),
    ("frequency_penalty", -math.inf, "finite"),
    ("min_tokens_to_keep", 0, ">= 1"),
    ("logit_bias", {3: math.inf}, "finite in float32 or -inf"),
    ("logit_bias", {-1: 0.0}, ">= 0"),
]
NUMBERS = [name for name in SamplingParams.__dataclass_fields__ if name != "logit_bias"]
ACCEPTED = {
    "temperature": (0, 1e-6, 1e6, np.float32(0.5)),
    "top_k": (0, 1, 10**9, np.int64(5)),
    "top_p": (0, 0.0, 1, 1.0),
    "min_p": (0, 1),
    "typical_p": (1e-9, 1),
    "epsilon_cutoff": (0, 0.999),
    "eta_cutoff": (0, 0.999),
    "repetition_penalty": (1e-30, 2),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "min_tokens_to_keep": (1, 10**9),
    "logit_bias": (None, {}, {0: -math.inf, 7: -1.5}),
}


@pytest.mark.parametrize(("name", "value", "accepted"), REFUSED)
def test_out_of_range(name, value, accepted):
    with pytest.raises(ValueError, match=name) as error:
        SamplingParams(**{name: value})
    shown = (
        value if not isinstance(value, dict) else next(iter(value.values() if math.inf in value.values() else value))
    )
    assert accepted in str(error.value)
    assert repr(shown) in str(error.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_not_a_number(name):
    for value in (math.nan, True, "0.5", None, [0.5]):
        with pytest.raises((ValueError, TypeError), match=name) as error:
            SamplingParams(**{name: value})
        assert isinstance(error.value, TypeError) == (
            not isinstance(value, float) or name in ("top_k", "min_tokens_to_keep")
        )


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    for value in ACCEPTED[name]:
        SamplingParams(**{name: value})


def test_unknown_name():
    with pytest.raises(TypeError, match="topp"):
        SamplingParams(topp=0.5)


def test_frozen_and_hashable():
    p = SamplingParams(top_p=0.9, logit_bias={1: 2.0})
    with pytest.raises(AttributeError):
        p.top_p = 0.5
    assert p == SamplingParams(top_p=0.9, logit_bias={1: 2.0}) != SamplingParams(top_p=0.9)
    assert len({p, SamplingParams(top_p=0.9, logit_bias={1: 2.0})}) == 1


def test_a_bias_is_copied():
    bias = {1: 2.0}
    p = SamplingParams(logit_bias=bias)
    bias[1] = math.nan
    assert p.logit_bias == {1: 2.0}


def test_from_generation_config():
    chat = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, top_k=0, repetition_penalty=1.1)
    assert SamplingParams.from_generation_config(chat) == SamplingParams(
        temperature=0.6, top_p=0.9, repetition_penalty=1.1
    )
    assert SamplingParams.from_generation_config(GenerationConfig(do_sample=True)).top_k == 50
    assert SamplingParams.from_generation_config({"do_sample": True}) == SamplingParams()
    greedy = GenerationConfig(do_sample=False, temperature=0.6, repetition_penalty=1.2)
    assert SamplingParams.from_generation_config(greedy) == SamplingParams(temperature=0.0, repetition_penalty=1.2)


def test_pack():
    p, q = SamplingParams(), SamplingParams(top_k=3)
    assert pack(p).rows == (p,) == pack(None).rows
    assert pack([p, q]).row(1) == q
    packed = pack([p, q])
    assert isinstance(packed, PackedParams) and pack(packed) is packed
    with pytest.raises(ValueError, match="at least one"):
        pack([])
    with pytest.raises(TypeError, match="SamplingParams or a sequence of them, got dict"):
        pack([{"top_k": 3}])
