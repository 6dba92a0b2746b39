"""LoRA (Hu et al. 2021): a small change to a large matrix, W + scale · B · A with A [r, in] and B [out, r].

An adapter is a folder as PEFT saves it. `adapter_config.json` names the modules and their scales.
`adapter_model.safetensors` holds A and B of each module, and whole tensors that replace the model's. Both files are
checked against the model and against each other; then `model.loading.weights` merges one tensor at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.config import at_least_one
from model.llama import Llama
from model.loading.checkpoint import check_tensor, layout, opened, shapes_of
from model.loading.regex import fullmatch
from model.untrusted import read_json, require_file, shown

T = TypeVar("T")
CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # PEFT's two wrappers around the model
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
CHOICES: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", "all", "lora_only", None),  # in every case the trained biases are in the file
    # pissa, olora, corda, loftq and lora_ga change the base weights before training.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "mica", None),
}
LISTS: dict[str, type] = {
    "target_modules": str,
    "exclude_modules": str,
    "layers_to_transform": int,
    "layers_pattern": str,
    "modules_to_save": str,
}
HARMLESS = {  # for training, for bookkeeping, or used only with another field
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",  # PEFT goes by the module, and no linear layer of a Llama is stored [in, out]
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
}


@dataclass(frozen=True)
class LoraConfig:
    """The modules that an adapter changes, and their scales; names, meanings and defaults are PEFT's.

    Args:
        r: int >= 1, the rank of A and B; rank_pattern: {regex: rank}, exceptions.
        lora_alpha: number, scale = lora_alpha / r (Hu et al. 2021, sec. 4.1); alpha_pattern: {regex: alpha}.
        use_rslora: scale = lora_alpha / sqrt(r) (Kalajdzievski 2023).
        target_modules: endings of module names, a regex for whole names, or "all-linear".
        exclude_modules: the same, for modules that do not change.
        layers_to_transform: the layers that change, if target_modules is a list of endings; default: all.
        layers_pattern: regexes for the part of a name before the layer's number; default: anything.
        modules_to_save: names of modules that the adapter replaces.

    Raises: ValueError naming the field.

    >>> config = LoraConfig(r=4, lora_alpha=8, target_modules=("q_proj", "o_proj"), rank_pattern={"o_proj": 16})
    >>> config.targets("model.layers.0.self_attn.q_proj"), config.targets("model.layers.0.mlp.up_proj")
    (True, False)
    >>> config.scale("model.layers.0.self_attn.q_proj"), config.scale("model.layers.0.self_attn.o_proj")
    (2.0, 0.5)
    """

    r: int = 8
    lora_alpha: int | float = 8
    use_rslora: bool = False
    target_modules: str | tuple[str, ...] = ("q_proj", "v_proj")
    exclude_modules: str | tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least_one("r", self.r)
        check_number("lora_alpha", self.lora_alpha)
        if not isinstance(self.use_rslora, bool):
            raise ValueError(f"use_rslora must be true or false, got {shown(self.use_rslora)}")
        for name, kind in LISTS.items():
            value = getattr(self, name)
            one_regex = isinstance(value, str) and name in ("target_modules", "exclude_modules")
            if not one_regex and not (isinstance(value, tuple) and all(type(entry) is kind for entry in value)):
                raise ValueError(f"{name} must be {kind.__name__} or a list of {kind.__name__}, got {shown(value)}")
        if self.layers_to_transform and isinstance(self.target_modules, str):
            raise ValueError(f"layers_to_transform needs a list of target_modules, got {shown(self.target_modules)}")
        for name, check in (("rank_pattern", at_least_one), ("alpha_pattern", check_number)):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be an object of regexes and numbers, got {shown(getattr(self, name))}")
            for pattern, value in getattr(self, name).items():
                check(f"{name}[{shown(pattern)}]", value)

    @classmethod
    def from_pretrained(cls, folder: Path) -> LoraConfig:
        """Read `folder/adapter_config.json`. Raises FileNotFoundError if missing, ValueError if not LoRA."""
        path = folder / CONFIG
        raw = read_json(require_file(path, f"; an adapter's folder holds {CONFIG} and {TENSORS}"))
        try:
            return cls.from_dict(raw)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> LoraConfig:
        """Translate the keys of `adapter_config.json`. An unknown key that is set is refused: it could matter."""
        for name, choices in CHOICES.items():
            if raw.get(name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {shown(raw.get(name))}")
        known = {f.name for f in fields(cls)}
        for name, value in raw.items():
            if value and name not in known | HARMLESS | CHOICES.keys():
                raise ValueError(
                    f"{shown(name)} is not supported: must be absent, null, false or empty, got {shown(value)}"
                )
        values: dict[str, Any] = {name: raw[name] for name in known if raw.get(name) is not None}
        for name in LISTS.keys() & values.keys():
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
            elif name in (
                "layers_to_transform",
                "layers_pattern",
            ):  # PEFT accepts a single value for a list of one, "" for an empty list
                values[name] = (values[name],) if values[name] != "" else ()
        return cls(**values)

    def targets(self, module: str) -> bool:
        """Whether A and B change the module, by the rules of PEFT."""
        if matches(module, self.exclude_modules) or self.saves(module):
            return False
        if isinstance(self.target_modules, str):
            if self.target_modules.lower() == "all-linear":
                return module not in (EMBEDDING, HEAD)
            return matches(module, self.target_modules)
        return module in self.target_modules or (matches(module, self.target_modules) and self.in_layers(module))

    def saves(self, module: str) -> bool:
        """Whether the adapter replaces the module, or a module that contains it."""
        path = [module, *(module[: dot.start()] for dot in re.finditer(r"\.", module))]  # the module and its parents
        return any(ends_with(saved, parent) for saved in self.modules_to_save for parent in path)

    def in_layers(self, module: str) -> bool:
        """Whether the module is in one of layers_to_transform: by the number in its name, after a layers_pattern."""
        if not self.layers_to_transform:
            return True
        number = re.search(r"\.(\d+)\.", module)
        if number is None or int(number[1]) not in self.layers_to_transform:
            return False
        before = module[: number.start()]
        return not self.layers_pattern or any(ends_with(pattern, before) for pattern in self.layers_pattern)

    def rank(self, module: str) -> int:
        return first_match(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        alpha, rank = first_match(self.alpha_pattern, module, self.lora_alpha), self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def matches(module: str, names: str | tuple[str, ...]) -> bool:
    """Whether a regex matches the whole name, or the name ends with one of several endings (of whole parts)."""
    if isinstance(names, str):
        return fullmatch(names, module)
    return any(f".{module}".endswith(f".{name}") for name in names)


def first_match(patterns: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first regex that matches the end of a name."""
    return next((value for key, value in patterns.items() if ends_with(key, module)), default)


def ends_with(pattern: str, module: str) -> bool:
    """Whether a regex matches the last parts of a name."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", module))]
    return any(fullmatch(pattern, module[start:]) for start in starts)


def check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**31:
        raise ValueError(f"{name} must be a number between -2^31 and 2^31, got {shown(value)}")


class Adapter:
    """The changes that a LoRA adapter makes to the stored tensors of a model.

    Args: folder with adapter_config.json and adapter_model.safetensors; model, not quantized.
    Raises: FileNotFoundError if the folder or a file is missing; ValueError naming file and field, or file and tensor,
    if something is missing, unknown, misshapen or not a float.
    """

    def __init__(self, folder: str | Path, model: Llama) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; give a folder with {CONFIG} and {TENSORS}")
        config = LoraConfig.from_pretrained(folder)
        self.file = tensor_file(folder)
        self.names = stored_names(self.file)  # {tensor: its name in the file}
        shapes = shapes_of(layout(model))
        matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
        try:
            self.scales = {module: config.scale(module) for module in matrices if config.targets(module)}
            saved = {PREFIX + name for name in shapes if config.saves(name.rpartition(".")[0])}
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from None
        if not self.scales:
            raise ValueError(
                f"{folder / CONFIG}: target_modules must match a linear layer or the embedding of this Llama, "
                f"got {shown(config.target_modules)}"
            )
        factors: dict[str, torch.Size] = {}
        for module in self.scales:
            factors |= factor_shapes(module, matrices[module], config.rank(module))
        self.check(factors.keys() | saved, factors | {PREFIX + name: shape for name, shape in shapes.items()})

    def check(self, needed: Iterable[str], known: Mapping[str, torch.Size]) -> None:
        """Raises ValueError if a needed tensor is missing, or if one is unknown or has another shape."""
        tied = f"{PREFIX}{HEAD}.weight" not in known
        for name, stored in self.names.items():
            if tied and name.startswith((f"{PREFIX}{HEAD}.", f"{PREFIX}{EMBEDDING}.")):
                raise ValueError(
                    f"{self.file}: tensor {shown(stored)} would change one of two tied embeddings (tie_word_embeddings)"
                )
            if name not in known:
                raise ValueError(
                    f"{self.file}: tensor {shown(stored)} is no part of the adapter that {CONFIG} describes"
                )
        for name in sorted(needed):
            if name not in self.names:
                raise ValueError(f"{self.file}: tensor {shown(name)} is missing, though {CONFIG} speaks of its module")
        with opened(self.file) as file:
            for name, stored in self.names.items():
                check_tensor(self.file, stored, file.get_slice(stored), known[name])

    def changes(self, name: str) -> bool:
        """Whether the adapter replaces or adds to a stored tensor of the model."""
        return PREFIX + name in self.names or name.removesuffix(".weight") in self.scales

    def merged(self, name: str, value: Tensor) -> Tensor:
        """A stored tensor of the model with the adapter merged: W + scale · B · A (Hu et al. 2021, eq. 3).

        Args: name in the checkpoint; value of any float dtype. Returns the value itself or a new float32 tensor.
        """
        value = self.read(PREFIX + name) if PREFIX + name in self.names else value
        module = name.removesuffix(".weight")
        if module not in self.scales:
            return value
        a, b = map(self.read, factor_names(module))
        left, right = (a.t(), b.t()) if module == EMBEDDING else (b, a)
        return torch.addmm(value.float(), left, right, alpha=self.scales[module])

    def read(self, name: str) -> Tensor:
        with opened(self.file) as file:
            return file.get_tensor(self.names[name]).float()


def factor_names(module: str) -> tuple[str, str]:
    """The names of A and B of a module in the file."""
    if module == EMBEDDING:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def factor_shapes(module: str, shape: torch.Size, rank: int) -> dict[str, torch.Size]:
    """{name: shape} of A [r, in] and B [out, r]; an embedding is stored [in, out], any other matrix [out, in]."""
    inputs, outputs = shape if module == EMBEDDING else reversed(shape)
    return dict(zip(factor_names(module), (torch.Size((rank, inputs)), torch.Size((outputs, rank))), strict=True))


def tensor_file(folder: Path) -> Path:
    hint = f"; found {PICKLE}, a pickle, which could run code: PEFT's save_pretrained turns it into safetensors"
    return require_file(folder / TENSORS, hint if (folder / PICKLE).is_file() else "")


def stored_names(path: Path) -> dict[str, str]:
    """{name: name in the file}, the first without PEFT's wrapper around a layer and without the adapter's name."""
    names: dict[str, str] = {}
    with opened(path) as file:
        for stored in file.keys():  # noqa: SIM118
            name = stored.replace(".base_layer.", ".").replace(".default", "")
            if name in names:
                raise ValueError(f"{path}: tensor {shown(stored)} says the same as {shown(names[name])}")
            names[name] = stored
    return names
