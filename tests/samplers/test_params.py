"""Every parameter of docs/definition.md step 7: what is accepted; anything else is refused by name, range and value."""

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from samplers import InvalidLogits, PackedParams, SamplingParams, pack, sample
from samplers.params import PENALTY_RANGES
from samplers.reference.filters import FILTERS

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


RANGES = PENALTY_RANGES | {f.name: f.accepts for f in FILTERS if not f.is_integer}


@pytest.mark.parametrize("name", RANGES)
def test_just_outside_either_end(name):
    accepted = RANGES[name]
    for end, way in ((accepted.low, -math.inf), (accepted.high, math.inf)):
        outside = math.nextafter(end, way)
        with pytest.raises(ValueError, match=name):
            SamplingParams(**{name: 10**400 if outside == math.inf else outside})
    for end, is_open in ((accepted.low, accepted.open_low), (accepted.high, accepted.open_high)):
        if is_open:
            with pytest.raises(ValueError, match=name):
                SamplingParams(**{name: end})
        else:
            SamplingParams(**{name: end})


def test_a_number_beyond_floats_is_out_of_range():
    for name in ("temperature", "top_p", "presence_penalty"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            SamplingParams(**{name: 10**400})


def test_unknown_name():
    with pytest.raises(TypeError, match="topp"):
        SamplingParams(topp=0.5)


def test_frozen_and_hashable():
    p = SamplingParams(top_p=0.9, logit_bias={1: 2.0})
    with pytest.raises(AttributeError):
        p.top_p = 0.5
    assert p == SamplingParams(top_p=0.9, logit_bias={1: 2.0}) != SamplingParams(top_p=0.9)
    assert len({p, SamplingParams(top_p=0.9, logit_bias={1: 2.0})}) == 1


def test_a_bias_is_copied_and_read_only():
    bias = {1: 2.0}
    p = SamplingParams(logit_bias=bias)
    bias[1] = math.nan
    assert p.logit_bias == {1: 2.0}
    with pytest.raises(TypeError):
        p.logit_bias[-1] = 99.0


def test_copies():
    p = SamplingParams(top_p=0.9, logit_bias={1: 2.0})
    for other in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p), copy.copy(p)):
        assert other == p
        with pytest.raises(TypeError):
            other.logit_bias[1] = 3.0
    assert dataclasses.replace(p, top_k=3).logit_bias == {1: 2.0}
    error = pickle.loads(pickle.dumps(InvalidLogits([1, 2])))
    assert error.rows == [1, 2] and "row 1, 2" in str(error)


def test_as_a_dict():
    values = dataclasses.asdict(SamplingParams(top_p=0.9, logit_bias={1: 2.0}))
    assert values["top_p"] == 0.9 and values["logit_bias"] == {1: 2.0}
    assert json.loads(json.dumps(values))["logit_bias"] == {"1": 2.0}
    assert SamplingParams(**values) == SamplingParams(top_p=0.9, logit_bias={1: 2.0})


def test_python_reads_what_is_printed():
    for bias in ({1: 2.0, 3: -math.inf, 5: -1e-7}, {}, None):
        p = SamplingParams(temperature=0.7, logit_bias=bias)
        assert eval(repr(p)) == p
    assert repr(p.logit_bias) == repr(bias)


@pytest.mark.parametrize("used", [False, True])
def test_copies_of_packed_parameters(used, backend):
    """Also of those that a backend has laid out; the copies draw the same."""
    packed = pack([SamplingParams(top_k=5), SamplingParams(logit_bias={1: 2.0})], device="cpu")
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    if used:
        sample(x, packed, seed=1, backend=backend)
    expected = sample(x, packed.params, seed=1, backend="reference")
    for other in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed), copy.copy(packed)):
        assert other.params == packed.params and other.device == packed.device
        assert torch.equal(sample(x, other, seed=1, backend=backend).tokens, expected.tokens)


def test_from_generation_config():
    chat = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, top_k=0, repetition_penalty=1.1)
    assert SamplingParams.from_generation_config(chat) == SamplingParams(
        temperature=0.6, top_p=0.9, repetition_penalty=1.1
    )
    assert SamplingParams.from_generation_config(GenerationConfig(do_sample=True)).top_k == 50
    assert SamplingParams.from_generation_config({"do_sample": True}) == SamplingParams()
    with pytest.raises(TypeError, match="config must be a GenerationConfig or its dict, got str"):
        SamplingParams.from_generation_config("chat")
    counted = {"do_sample": False, "presence_penalty": 1.0, "top_k": 5}
    assert SamplingParams.from_generation_config(counted) == SamplingParams(temperature=0.0, presence_penalty=1.0)
    greedy = GenerationConfig(do_sample=False, temperature=0.6, repetition_penalty=1.2)
    assert SamplingParams.from_generation_config(greedy) == SamplingParams(temperature=0.0, repetition_penalty=1.2)


def test_pack():
    p, q = SamplingParams(), SamplingParams(top_k=3)
    assert pack(p).params == (p,) == pack(None).params
    assert pack([p, q]).row(1) == q
    packed = pack([p, q])
    assert isinstance(packed, PackedParams) and pack(packed) is packed
    assert pack(pack([p, q]), device="cpu").device.type == "cpu"
    assert pack(packed, device="meta").params == packed.params
    with pytest.raises(ValueError, match="device must be a torch device such as 'cpu' or 'cuda:0', got 'gpu'"):
        pack(p, device="gpu")
    with pytest.raises(TypeError, match="SamplingParams or a sequence of them, got dict"):
        pack([{"top_k": 3}])
