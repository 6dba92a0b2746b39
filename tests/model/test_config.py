"""config.json of both generations. Oracle: transformers' LlamaConfig reading the same dict."""

import json

import pytest
from transformers import LlamaConfig as Theirs

from model import LlamaConfig

OLD = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "torch_dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": None},
        {"rope_theta": 500000.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
        {"rope_theta": 9.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ],
)
def test_as_transformers_reads_it(change):
    raw = {k: v for k, v in (OLD | change).items() if v is not None}
    ours, theirs = LlamaConfig.from_dict(raw), Theirs(**raw)
    for name in ("vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings", "max_position_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


def test_null_is_the_default_where_transformers_writes_it():
    assert LlamaConfig.from_dict(OLD | {"num_key_value_heads": None, "head_dim": None}) == LlamaConfig.from_dict(OLD)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_scaling_of_either_generation(key):
    old = LlamaConfig.from_dict(OLD | {"rope_theta": 5e5, "rope_scaling": {key: "llama3", **LLAMA3}})
    new = LlamaConfig.from_dict(OLD | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}})
    assert old == new
    assert (old.rope_scaling.rope_type, old.rope_scaling.factor) == ("llama3", 8.0)


@pytest.mark.parametrize(("raw", "ids"), [(2, (2,)), ([2, 7], (2, 7)), (None, ())])
def test_end_tokens(raw, ids):
    assert LlamaConfig.from_dict(OLD | {"eos_token_id": raw}).eos_token_ids == ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "LlamaForCausalLM.*got .'MistralForCausalLM'"),
        (
            {"architectures": "LlamaForCausalLM"},
            "must be .'LlamaForCausalLM'. and model_type 'llama', got 'LlamaForCausalLM'",
        ),
        ({"architectures": None, "model_type": "gpt2"}, "got 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type must be one of default, linear, llama3, got 'dynamic'",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "missing: low_freq_factor"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads = 8, got 3"),
        ({"head_dim": 7}, "head_dim must be even for rotary embeddings, got 7"),
        ({"hidden_size": 0}, "hidden_size must be an integer >= 1 and < 2.31, got 0"),
        ({"vocab_size": "many"}, "vocab_size must be an integer >= 1 and < 2.31, got 'many'"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps must be a number > 0, got -1.0"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config must be absent.*awq"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer >= 1 and < 2.31, got 0"),
        ({"num_attention_heads": "8"}, "num_attention_heads must be an integer >= 1 and < 2.31, got '8'"),
        ({"vocab_size": 10**19}, "vocab_size must be an integer"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ({"rope_parameters": "linear"}, "rope_parameters must be an object, got 'linear'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor must be a number > 0, got 0"),
        ({"rope_scaling": {"type": "linear", "factor": "8"}}, "factor must be a number > 0, got '8'"),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4.0}},
            "high_freq_factor must be > low_freq_factor = 4.0, got 4.0",
        ),
        ({"eos_token_id": "2"}, r"eos_token_id must be a token id in 0 \.\. 31999, a list of them or none, got '2'"),
        ({"eos_token_id": [2, 2.5]}, "eos_token_id must be"),
        ({"eos_token_id": 32000}, "eos_token_id must be .* got 32000"),
        ({"vocab_size": None}, "vocab_size must be an integer >= 1 and < 2.31, got None"),
        ({"rms_norm_eps": None}, "rms_norm_eps must be a number > 0, got None"),
        ({"rope_theta": 0}, "rope_theta must be a number > 0, got 0"),
        ({"hidden_act": "\x1b[31m" + "x" * 5000}, r"hidden_act must be 'silu', got '\\x1b.31mx{0,80}\.\.\.x*'$"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_dict(OLD | change)


def test_a_file_is_named_in_its_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        LlamaConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        LlamaConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: must hold a JSON object, got list"):
        LlamaConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(OLD | {"model_type": "opt"}))
    with pytest.raises(ValueError, match=r"config\.json: architectures must be"):
        LlamaConfig.from_pretrained(tmp_path)
