"""Safetensors into a Llama: every name and shape checked first, then one tensor at a time.

A file is mapped afresh for each tensor, so that memory holds the loaded weights and one tensor of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model import quantization
from model.config import LlamaConfig, read_json, token_ids
from model.llama import Llama, Stacked
from samplers import SamplingParams

if TYPE_CHECKING:
    from model.lora import Adapter

BUILT_IN = Path(__file__).parent / "storyteller"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOAT_TYPES = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def load(
    folder: str | Path | None,
    dtype: torch.dtype | None,
    device: torch.device,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    double_quant: bool = False,
) -> Llama:
    """The model in `folder` (None: the built-in one), its weights cast to dtype (None: as stored) on device.

    A LoRA adapter is merged into each tensor as it is read, before the tensor is quantised.

    Raises: FileNotFoundError where the folder or a file is missing; ValueError naming file and tensor where one is
    missing, unknown, misshapen or no float, where a file is truncated, or a shard lies outside the folder.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be one that is there, got {device}: torch.cuda.is_available() is False")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16, bfloat16 or None (as stored), got {dtype}")
    folder = BUILT_IN if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder with config.json and *.safetensors")
    quantization.check(quantize, double_quant)
    with torch.device("meta"):
        model = Llama(LlamaConfig.from_pretrained(folder))
    homes = tensor_homes(folder)
    check(model, homes, folder)
    dtype = dtype or stored_dtype(homes)
    if quantize is not None:
        quantization.prepare(model, quantize, double_quant, dtype)
    lora = None if adapter is None else open_adapter(adapter, model)
    for name, parts in layout(model).items():
        put(model, name, read(parts, homes, dtype, device, lora))
    if quantize is not None:
        quantization.give_back()
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    model.generation_config = read_generation_config(folder)
    return model.eval()


def read_generation_config(folder: Path) -> dict[str, Any]:
    """`folder/generation_config.json` as it stands, {} where there is none; what is used of it is checked here."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    raw = read_json(path)
    try:
        token_ids(raw.get("eos_token_id"))
        SamplingParams.from_generation_config({**raw, "do_sample": True})
        if not isinstance(raw.get("do_sample", False), bool):
            raise ValueError(f"do_sample must be true or false, got {raw['do_sample']!r}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return raw


def layout(model: Llama) -> dict[str, dict[str, torch.Size]]:
    """{parameter: {stored tensor: shape}}: where each parameter comes from in a Hugging Face checkpoint.

    The parts of a stacked projection stand one below the other; a tied lm_head comes from nowhere.
    """
    homes: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module_name, _, leaf = name.rpartition(".")
        module = model.get_submodule(module_name)
        shape = parameter.shape
        if leaf == "weight" and quantization.is_quantized(module):
            shape = torch.Size((module.out_features, module.in_features))  # type: ignore[arg-type]  # not as packed
        block, _, own = module_name.rpartition(".")
        if isinstance(module, Stacked):
            homes[name] = {f"model.{block}.{p}.{leaf}": torch.Size((n, *shape[1:])) for p, n in module.parts.items()}
        elif isinstance(model.get_submodule(block), quantization.Separate):
            homes[name] = {f"model.{block.rpartition('.')[0]}.{own}.{leaf}": shape}
        elif name != "lm_head.weight":
            homes[name] = {f"model.{name}": shape}
        elif not model.config.tie_word_embeddings:
            homes[name] = {name: shape}
    return homes


def stored_tensors(model: Llama) -> dict[str, Tensor]:
    """The model's weights under their names in a Hugging Face checkpoint; of quantised ones, what they stand for."""
    tensors: dict[str, Tensor] = {}
    for name, parts in layout(model).items():
        rows = [shape[0] for shape in parts.values()]
        tensors.update(zip(parts, meant(model, name).split(rows), strict=True))
    return tensors


def meant(model: Llama, name: str) -> Tensor:
    """A parameter as it is, or the weight that a quantised one stands for."""
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    if leaf == "weight" and quantization.is_quantized(module):
        return quantization.dequantized(module)
    return model.get_parameter(name).detach()


def tensor_homes(folder: Path) -> dict[str, Path]:
    """{stored tensor name: file} from the one file, or from the index of shards."""
    if not (folder / SINGLE).is_file():
        if (folder / INDEX).is_file():
            return shard_homes(folder)
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
    homes = {name: folder / shard for name, shard in weight_map.items()}
    for path in sorted(set(homes.values())):
        with opened(path) as file:
            held = set(file.keys())
        for name in sorted(n for n, home in homes.items() if home == path and n not in held):
            raise ValueError(f"{path}: tensor {name} is missing, though {INDEX} names this file for it")
        homes.update(dict.fromkeys(held - homes.keys(), path))  # not in the index: `check` says what is wrong with it
    return homes


def check(model: Llama, homes: dict[str, Path], folder: Path) -> None:
    """Every tensor there, with its shape; nothing there that belongs nowhere."""
    wanted = {name: shape for parts in layout(model).values() for name, shape in parts.items()}
    for name in wanted:
        if name not in homes:
            raise ValueError(f"{folder}: tensor {name} is missing from its *.safetensors")
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


def stored_dtype(homes: dict[str, Path]) -> torch.dtype:
    """The dtype of the embedding, which a model whose tensors differ takes as a whole."""
    name = "model.embed_tokens.weight"
    with opened(homes[name]) as file:
        return FLOAT_TYPES[file.get_slice(name).get_dtype()]


def open_adapter(folder: str | Path, model: Llama) -> Adapter:
    from model.lora import Adapter  # which imports this file

    return Adapter(folder, model)


def read(
    parts: dict[str, torch.Size],
    homes: dict[str, Path],
    dtype: torch.dtype,
    device: torch.device,
    lora: Adapter | None = None,
) -> Tensor:
    """The stored tensors, as the adapter changes them, one below the other, cast to dtype on device.

    A copy, so that the file may change later.
    """
    rows = [shape[0] for shape in parts.values()]
    value = torch.empty((sum(rows), *next(iter(parts.values()))[1:]), dtype=dtype, device=device)
    for name, target in zip(parts, value.split(rows), strict=True):
        with opened(homes[name]) as file:
            stored = file.get_tensor(name)
            target.copy_(stored if lora is None else lora.merged(name, stored))
    return by_columns(value)


def by_columns(value: Tensor) -> Tensor:
    """Float32 matrices on the CPU are kept by columns, where a product with one token is faster; others as they are."""
    if value.ndim == 2 and value.dtype == torch.float32 and value.device.type == "cpu":
        return value.t().contiguous().t()
    return value


def put(model: Llama, name: str, value: Tensor) -> None:
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    if leaf == "weight" and quantization.is_quantized(module):
        module.weight = quantization.quantized(module, value)
    else:
        setattr(module, leaf, nn.Parameter(value, requires_grad=False))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated, or not a safetensors file ({error})") from None
