"""The tensors of a Hugging Face checkpoint: their names, shapes and files.

All names and shapes are checked before the first weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from model.config import CONFIG, LlamaConfig
from model.llama import Llama, Stacked
from model.untrusted import is_there, read_json, require_file, shown

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
LAYER = re.compile(r"model\.layers\.(\d+)\.")
Layout = dict[str, dict[str, torch.Size]]  # {parameter: {stored tensor: shape}}
FLOAT_TYPES = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def layout(model: Llama) -> Layout:
    """The stored tensors of each parameter of a model that is not quantized.

    A stacked projection is made of several tensors, one below the other; a tied lm_head of none.
    """
    parts: Layout = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module_name, _, leaf = name.rpartition(".")
        module, shape = model.get_submodule(module_name), parameter.shape
        if isinstance(module, Stacked):
            block = module_name.rpartition(".")[0]
            parts[name] = {
                f"model.{block}.{part}.{leaf}": torch.Size((rows, *shape[1:])) for part, rows in module.parts.items()
            }
        elif name != "lm_head.weight":
            parts[name] = {f"model.{name}": shape}
        elif not model.config.tie_word_embeddings:
            parts[name] = {name: shape}
    return parts


def shapes_of(parts: Layout) -> dict[str, torch.Size]:
    """The shape of each stored tensor."""
    return {name: shape for shapes in parts.values() for name, shape in shapes.items()}


def tensor_homes(folder: Path) -> dict[str, Path]:
    """{stored tensor: file}, from the single file or from the index of the shards."""
    if is_there(folder / SINGLE):
        with opened(require_file(folder / SINGLE)) as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    if is_there(folder / INDEX):
        return shard_homes(folder)
    others = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    hint = f"; found {shown(others[0])}, a pickle, which could run code: save it as safetensors" if others else ""
    raise FileNotFoundError(f"{folder}: holds neither {SINGLE} nor {INDEX}{hint}")


def shard_homes(folder: Path) -> dict[str, Path]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index}: weight_map must be an object, got {shown(weight_map)}")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            raise ValueError(
                f"{index}: {shown(name)} must lie in a *.safetensors file of this folder, got {shown(shard)}"
            )
        require_file(folder / shard, f", though {INDEX} names it for {shown(name)}")
    homes = {name: folder / shard for name, shard in weight_map.items()}
    for path in sorted(set(homes.values())):
        with opened(path) as file:
            names = set(file.keys())
        for name in sorted(n for n, home in homes.items() if home == path and n not in names):
            raise ValueError(f"{path}: tensor {shown(name)} is missing, though {INDEX} names this file for it")
        homes.update(dict.fromkeys(names - homes.keys(), path))  # not in the index: `check` reports it
    return homes


def check_layers(config: LlamaConfig, homes: dict[str, Path], folder: Path) -> None:
    """Compare num_hidden_layers with the tensors' names, before the layers of a config are built."""
    stored = len({match[1] for name in homes if (match := LAYER.match(name))})
    if config.num_hidden_layers != stored:
        raise ValueError(
            f"{folder / CONFIG}: num_hidden_layers must be {stored}, the layers that the folder's *.safetensors hold, "
            f"got {config.num_hidden_layers}"
        )


def check(model: Llama, homes: dict[str, Path], folder: Path) -> None:
    """Raises ValueError unless the files hold exactly the model's tensors, each with its shape."""
    wanted = shapes_of(layout(model))
    for name in wanted:
        if name not in homes:
            raise ValueError(f"{folder}: tensor {shown(name)} is missing from its *.safetensors")
    ignored = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, path in homes.items():
        if name not in wanted and name not in ignored and not name.endswith("rotary_emb.inv_freq"):
            raise ValueError(f"{path}: tensor {shown(name)} is no part of the Llama that {CONFIG} describes")
    for path in sorted(set(homes.values())):
        with opened(path) as file:
            for name in (n for n in wanted if homes[n] == path):
                check_tensor(path, name, file.get_slice(name), wanted[name])


def check_tensor(path: Path, name: str, stored: Any, shape: torch.Size) -> None:
    if tuple(stored.get_shape()) != tuple(shape):
        found = shown(tuple(stored.get_shape()))
        raise ValueError(f"{path}: tensor {shown(name)} must have shape {tuple(shape)}, got {found}")
    if stored.get_dtype() not in FLOAT_TYPES:
        raise ValueError(
            f"{path}: tensor {shown(name)} must be one of {', '.join(FLOAT_TYPES)}, got {stored.get_dtype()}"
        )


def stored_dtype(homes: dict[str, Path]) -> torch.dtype:
    """The dtype of the embedding. A model with several dtypes gets this one for all of its tensors."""
    name = "model.embed_tokens.weight"
    return stored_type(homes[name], name)


def stored_type(path: Path, name: str) -> torch.dtype:
    """The dtype of one tensor."""
    with opened(path) as file:
        return FLOAT_TYPES[file.get_slice(name).get_dtype()]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated, or not a safetensors file ({shown(str(error))})") from None
