"""Safetensors into a Llama: every name and shape checked first, then one tensor at a time.

A file is mapped afresh for each tensor, so that memory holds the loaded weights and one tensor of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.config import LlamaConfig
from model.llama import Llama

BUILT_IN = Path(__file__).parent / "storyteller"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def load(folder: str | Path | None, dtype: torch.dtype | None, device: torch.device) -> Llama:
    """The model in `folder` (None: the built-in one), its weights cast to dtype (None: as stored) on device.

    Raises: FileNotFoundError where the folder or a file is missing; ValueError naming file and tensor where one is
    missing, unknown, misshapen or no float, where a file is truncated, or a shard lies outside the folder.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16, bfloat16 or None (as stored), got {dtype}")
    folder = BUILT_IN if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder with config.json and *.safetensors")
    with torch.device("meta"):
        model = Llama(LlamaConfig.from_pretrained(folder))
    homes = tensor_homes(folder)
    check(model, homes)
    for name in expected(model):
        with opened(homes[stored_name(name)]) as file:
            put(model, name, file.get_tensor(stored_name(name)), dtype, device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    model.generation_config = read_generation_config(folder)
    return model.eval()


def read_generation_config(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def stored_name(name: str) -> str:
    """The name of a parameter in a Hugging Face checkpoint."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def expected(model: Llama) -> dict[str, Tensor]:
    """Parameters that a checkpoint must hold: all but a tied lm_head."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if name not in tied}


def tensor_homes(folder: Path) -> dict[str, Path]:
    """{stored tensor name: file} from the one file, or from the index of shards."""
    if (folder / INDEX).is_file():
        return shard_homes(folder)
    if not (folder / SINGLE).is_file():
        others = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        hint = f"; found {others[0]}, a pickle, which could run code: save it as safetensors" if others else ""
        raise FileNotFoundError(f"{folder}: holds neither {SINGLE} nor {INDEX}{hint}")
    with opened(folder / SINGLE) as file:
        return dict.fromkeys(file.keys(), folder / SINGLE)


def shard_homes(folder: Path) -> dict[str, Path]:
    index = folder / INDEX
    try:
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: not a valid index with a weight_map ({error!r})") from None
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(f"{index}: {name} must lie in a *.safetensors file of this folder, got {shard!r}")
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"{folder / shard}: no such file, though {INDEX} names it for {name}")
    for shard in sorted(set(weight_map.values())):
        with opened(folder / shard) as file:
            held = set(file.keys())
        for name in (n for n, home in weight_map.items() if home == shard and n not in held):
            raise ValueError(f"{folder / shard}: tensor {name} is missing, though {INDEX} names this file for it")
    return {name: folder / shard for name, shard in weight_map.items()}


def check(model: Llama, homes: dict[str, Path]) -> None:
    """Every parameter there, with its shape; nothing there that is no parameter."""
    wanted = {stored_name(name): parameter.shape for name, parameter in expected(model).items()}
    somewhere = next(iter(homes.values()), Path(SINGLE))
    for name in wanted:
        if name not in homes:
            raise ValueError(f"{somewhere}: tensor {name} is missing")
    ignored = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, path in homes.items():
        if name not in wanted and name not in ignored and not name.endswith("rotary_emb.inv_freq"):
            raise ValueError(f"{path}: tensor {name} is no part of the Llama that config.json describes")
    for path in sorted(set(homes.values())):
        with opened(path) as file:
            for name in (n for n in wanted if homes[n] == path):
                check_tensor(path, name, file.get_slice(name), wanted[name])


def check_tensor(path: Path, name: str, stored: Any, shape: torch.Size) -> None:
    if tuple(stored.get_shape()) != tuple(shape):
        raise ValueError(f"{path}: tensor {name} must have shape {tuple(shape)}, got {tuple(stored.get_shape())}")
    if stored.get_dtype() not in FLOAT_TYPES:
        raise ValueError(f"{path}: tensor {name} must be one of {', '.join(FLOAT_TYPES)}, got {stored.get_dtype()}")


def put(model: Llama, name: str, stored: Tensor, dtype: torch.dtype | None, device: torch.device) -> None:
    module_name, _, leaf = name.rpartition(".")
    # A copy even where nothing is cast: the model must not depend on the file once it is loaded.
    value = torch.empty(stored.shape, dtype=dtype or stored.dtype, device=device).copy_(stored)
    setattr(model.get_submodule(module_name), leaf, nn.Parameter(value, requires_grad=False))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated, or not a safetensors file ({error})") from None
