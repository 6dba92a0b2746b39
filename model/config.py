"""The shape of a Llama, read from a Hugging Face `config.json` of either generation.

Older folders write `rope_theta` and `rope_scaling` at top level; transformers 5 writes
`rope_parameters` that holds both. Missing keys take the defaults of transformers' `LlamaConfig`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any

BUILT_IN = Path(__file__).parent / "storyteller"
ROPE_TYPES = ("default", "linear", "llama3")
_LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise ValueError(f"{name} must be an integer >= 1 and < 2^31, got {value!r}")
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
                raise ValueError(f"{field.name} must be a number > 0, got {value!r}")
        elif field.type == "bool" and not isinstance(value, bool):
            raise ValueError(f"{field.name} must be true or false, got {value!r}")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained window.

    rope_type: "default" (not at all), "linear" (Chen et al. 2023: every frequency divided by
    `factor`) or "llama3" (Llama 3.1: only the slow ones, with a smooth passage between).
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
        """Read `folder/config.json`. FileNotFoundError where it is missing, ValueError where it is no Llama."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a model folder holds config.json and *.safetensors")
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> LlamaConfig:
        """Translate the keys of `config.json`; unknown keys are of no concern to the arithmetic and are ignored."""
        _refuse_other_architectures(raw)
        known = {f.name for f in fields(cls)} - {"rope_theta", "rope_scaling", "eos_token_ids"}
        values = {name: raw[name] for name in known if raw.get(name) is not None}
        heads = at_least_one("num_attention_heads", values.get("num_attention_heads", cls.num_attention_heads))
        size = at_least_one("hidden_size", values.get("hidden_size", cls.hidden_size))
        values.setdefault("num_key_value_heads", heads)
        values.setdefault("head_dim", size // heads)
        values["eos_token_ids"] = token_ids(raw.get("eos_token_id", 2))
        values["rope_theta"], values["rope_scaling"] = _rope(raw)
        return cls(**values)


def token_ids(value: Any) -> tuple[int, ...]:
    """`eos_token_id` as transformers writes it (an id, a list or null) as a tuple; ValueError for anything else."""
    ids = () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, Integral) or token < 0:
            raise ValueError(f"eos_token_id must be a token id >= 0, a list of them or none, got {value!r}")
    return tuple(int(token) for token in ids)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError naming the file where there is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(raw).__name__}")
    return raw


def optional_json(path: Path) -> dict[str, Any]:
    """The same, {} where the file is missing."""
    return read_json(path) if path.is_file() else {}


def _refuse_other_architectures(raw: Mapping[str, Any]) -> None:
    names = raw.get("architectures") or ["LlamaForCausalLM"]
    if raw.get("model_type", "llama") != "llama" or names != ["LlamaForCausalLM"]:
        found = raw.get("architectures") or raw.get("model_type")
        raise ValueError(f"architectures must be ['LlamaForCausalLM'] and model_type 'llama', got {found!r}")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {raw['hidden_act']!r}")
    if raw.get("quantization_config"):
        raise ValueError(f"quantization_config must be absent (plain floats), got {raw['quantization_config']!r}")


def _rope(raw: Mapping[str, Any]) -> tuple[float, RopeScaling]:
    """(rope_theta, scaling) from `rope_parameters` or `rope_scaling` (which wins, as in transformers)."""
    parameters = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ValueError(f"rope_parameters must be an object, got {parameters!r}")
    theta = parameters.get("rope_theta", raw.get("rope_theta") or 10000.0)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}, got {rope_type!r}")
    wanted = {"default": (), "linear": ("factor",), "llama3": _LLAMA3_KEYS}[rope_type]
    missing = [key for key in wanted if key not in parameters]
    if missing:
        raise ValueError(f"rope_type {rope_type!r} needs {', '.join(wanted)}; missing: {', '.join(missing)}")
    return theta, RopeScaling(rope_type, **{key: parameters[key] for key in wanted})
