"""The shape of a Llama, read from a Hugging Face `config.json` of either generation.

Older folders have `rope_theta` and `rope_scaling` at the top level; transformers 5 writes `rope_parameters` with both.
Missing keys take the defaults of transformers' `LlamaConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any

from model.untrusted import read_json, require_file, shown

BUILT_IN = Path(__file__).parent / "storyteller"
CONFIG = "config.json"
ROPE_TYPES = ("default", "linear", "llama3")
_LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_NULLABLE = ("num_key_value_heads", "head_dim")  # as older versions of transformers write their defaults


def at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise ValueError(f"{name} must be an integer >= 1 and < 2^31, got {shown(value)}")
    return value


def check_fields(config: Any) -> None:
    """Every int of a dataclass at least 1, every float a number > 0, every bool true or false."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type == "int":
            at_least_one(field.name, value)
        elif field.type == "float":
            number = not isinstance(value, bool) and isinstance(value, (int, float))
            if not (number and 0 < value < math.inf):
                raise ValueError(f"{field.name} must be a number > 0, got {shown(value)}")
        elif field.type == "bool" and not isinstance(value, bool):
            raise ValueError(f"{field.name} must be true or false, got {shown(value)}")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained window.

    rope_type: "default" (not at all), "linear" (Chen et al. 2023: every frequency divided by `factor`) or "llama3"
        (Llama 3.1: only the slow ones, with a smooth transition).
    """

    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        check_fields(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor must be > low_freq_factor = {self.low_freq_factor}, got {self.high_freq_factor}"
            )


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of a Llama; names as in `config.json`.

    >>> config = LlamaConfig.from_dict({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4})
    >>> config.head_dim, config.num_key_value_heads, config.rope_theta
    (16, 4, 10000.0)
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = RopeScaling()
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    eos_token_ids: tuple[int, ...] = (2,)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads must divide num_attention_heads = {self.num_attention_heads}, "
                f"got {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LlamaConfig:
        """Read `folder/config.json`. Raises: FileNotFoundError if it is missing, ValueError if it is no Llama."""
        path = Path(folder) / CONFIG
        raw = read_json(require_file(path, f"; a model folder holds {CONFIG} and *.safetensors"))
        try:
            return cls.from_dict(raw)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> LlamaConfig:
        """Translate the keys of `config.json`; unknown keys do not affect the arithmetic and are ignored."""
        _refuse_other_architectures(raw)
        known = {f.name for f in fields(cls)} - {"rope_theta", "rope_scaling", "eos_token_ids"}
        values = {name: raw[name] for name in known & raw.keys() if not (name in _NULLABLE and raw[name] is None)}
        heads = at_least_one("num_attention_heads", values.get("num_attention_heads", cls.num_attention_heads))
        size = at_least_one("hidden_size", values.get("hidden_size", cls.hidden_size))
        values.setdefault("num_key_value_heads", heads)
        values.setdefault("head_dim", size // heads)
        vocabulary = at_least_one("vocab_size", values.get("vocab_size", cls.vocab_size))
        values["eos_token_ids"] = token_ids(raw.get("eos_token_id", 2), vocabulary)
        values["rope_theta"], values["rope_scaling"] = _rope(raw)
        return cls(**values)


def token_ids(value: Any, vocabulary: int) -> tuple[int, ...]:
    """`eos_token_id` as transformers writes it (an id, a list or null) as a tuple; ValueError for anything else."""
    ids = () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, Integral) or not 0 <= int(token) < vocabulary:
            raise ValueError(
                f"eos_token_id must be a token id in 0 .. {vocabulary - 1}, a list of them or none, got {shown(value)}"
            )
    return tuple(int(token) for token in ids)


def _refuse_other_architectures(raw: Mapping[str, Any]) -> None:
    names = raw.get("architectures") or ["LlamaForCausalLM"]
    if raw.get("model_type", "llama") != "llama" or names != ["LlamaForCausalLM"]:
        found = raw.get("architectures") or raw.get("model_type")
        raise ValueError(f"architectures must be ['LlamaForCausalLM'] and model_type 'llama', got {shown(found)}")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {shown(raw['hidden_act'])}")
    if raw.get("quantization_config"):
        raise ValueError(f"quantization_config must be absent (plain floats), got {shown(raw['quantization_config'])}")


def _rope(raw: Mapping[str, Any]) -> tuple[float, RopeScaling]:
    """(rope_theta, scaling) from `rope_parameters` or `rope_scaling` (which wins, as in transformers)."""
    parameters = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ValueError(f"rope_parameters must be an object, got {shown(parameters)}")
    outer = raw.get("rope_theta")
    theta = parameters.get("rope_theta", 10000.0 if outer is None else outer)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}, got {shown(rope_type)}")
    wanted = {"default": (), "linear": ("factor",), "llama3": _LLAMA3_KEYS}[rope_type]
    missing = [key for key in wanted if key not in parameters]
    if missing:
        raise ValueError(f"rope_type {rope_type!r} needs {', '.join(wanted)}; missing: {', '.join(missing)}")
    return theta, RopeScaling(rope_type, **{key: parameters[key] for key in wanted})
