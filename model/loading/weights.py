"""Loads the weights of a checkpoint one tensor at a time: reads, merges an adapter, casts or quantizes.

A file is opened again for each tensor: memory holds the loaded weights and a single tensor of the file.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import exact
from model.config import BUILT_IN, CONFIG, LlamaConfig, token_ids
from model.exact import is_quantized
from model.llama import Llama
from model.loading import quantization
from model.loading.blank import blank
from model.loading.checkpoint import check, check_layers, layout, opened, stored_dtype, stored_type, tensor_homes
from model.loading.lora import Adapter
from model.packed import MISSING, TYPES, PackedLinear
from model.untrusted import optional_json, shown
from samplers import SamplingParams

DTYPES = tuple(TYPES)


def load(
    folder: str | Path | None,
    dtype: torch.dtype | None,
    device: torch.device,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    double_quant: bool = False,
    weights: torch.dtype | None = None,
) -> Llama:
    """The model in `folder` (None: the built-in one), to compute in dtype (None: the file's own) on device.

    A LoRA adapter is merged into each tensor as it is read, before the tensor is quantized. Weights are packed for the
    exact forward pass where it can run the model; then matrices keep the type of the file, or that of `weights`.

    Raises: FileNotFoundError if the folder or a file is missing; ValueError naming file and tensor if a tensor is
    missing, unknown, misshapen or not a float, if a file is truncated, or if a shard is outside the folder.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be one that is there, got {device}: torch.cuda.is_available() is False")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16, bfloat16 or None (as stored), got {dtype}")
    if weights is not None and weights not in DTYPES:
        raise ValueError(f"weights must be float32, float16, bfloat16 or None (as stored), got {weights}")
    folder = BUILT_IN if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a folder with config.json and *.safetensors")
    quantization.check(quantize, double_quant)
    config, homes = LlamaConfig.from_pretrained(folder), tensor_homes(folder)
    check_layers(config, homes, folder)
    model = empty(config, folder)
    check(model, homes, folder)
    dtype = dtype or stored_dtype(homes)
    lora = None if adapter is None else Adapter(adapter, model)
    sources = layout(model)
    if quantize is not None:
        quantization.prepare(model, quantize, double_quant, dtype)
        sources = quantization.unstacked(sources)
    model.why_not_exact = exact.why_not_loaded(config, dtype, device, quantize)
    if MISSING and model.why_not_exact == MISSING:
        warnings.warn(
            f"{MISSING}; torch runs the model, so a text may depend on its batch", RuntimeWarning, stacklevel=3
        )
    for name, parts in sources.items():
        is_matrix = len(next(iter(parts.values()))) == 2
        kind = weights if model.is_packed and is_matrix else dtype  # None: as stored
        assign(model, name, read(parts, homes, kind, device, lora, weights))
        if model.is_packed and is_matrix:
            quantization.trim_heap()  # of the dense matrix; the next one would not fit into its pieces
    if quantize is not None:
        quantization.trim_heap()
    if model.config.tie_word_embeddings and not model.is_packed:
        model.lm_head.weight = model.embed_tokens.weight
    model.generation_config = read_generation_config(folder, config.vocab_size)
    model.source = str(folder) if adapter is None else f"{folder} with the adapter {adapter}"
    return model.eval()


def empty(config: LlamaConfig, folder: Path) -> Llama:
    """A model without values."""
    try:
        with blank():
            return Llama(config)
    except (RuntimeError, TypeError):  # torch counts bytes and rows in 63 bits
        raise ValueError(f"{folder / CONFIG}: describes matrices of more than 2^63 bytes") from None


def read_generation_config(folder: Path, vocabulary: int) -> dict[str, Any]:
    """The content of `folder/generation_config.json`, {} if it is missing; the values that are used are checked."""
    path = folder / "generation_config.json"
    raw = optional_json(path)
    try:
        token_ids(raw.get("eos_token_id"), vocabulary)
        SamplingParams.from_generation_config({**raw, "do_sample": True})
        if not isinstance(raw.get("do_sample", False), bool):
            raise ValueError(f"do_sample must be true or false, got {shown(raw['do_sample'])}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error!s:.300}") from None  # a value may be long
    return raw


def stored_tensors(model: Llama) -> dict[str, Tensor]:
    """The model's weights under their names in a Hugging Face checkpoint, quantized ones as dense matrices."""
    with blank():
        sources = layout(Llama(model.config))
    if any(isinstance(module, quantization.UnstackedProjections) for module in model.modules()):
        sources = quantization.unstacked(sources)
    tensors: dict[str, Tensor] = {}
    for name, parts in sources.items():
        rows = [shape[0] for shape in parts.values()]
        tensors.update(zip(parts, dense_weight(model, name).split(rows), strict=True))
    return tensors


def dense_weight(model: Llama, name: str) -> Tensor:
    """A parameter; of a quantized weight, the dense matrix."""
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    if leaf == "weight" and is_quantized(module):
        return quantization.dequantized(module)
    return getattr(module, leaf).detach()


def read(
    parts: dict[str, torch.Size],
    homes: dict[str, Path],
    dtype: torch.dtype | None,
    device: torch.device,
    lora: Adapter | None = None,
    rounded: torch.dtype | None = None,
) -> Tensor:
    """The stored tensors with the adapter merged, one below the other, cast to dtype on device.

    dtype: None keeps the file's, but float32 for a sum with an adapter's change. rounded: a type to round to before.
    The result is a copy, independent of the file.
    """
    rows = [shape[0] for shape in parts.values()]
    value = torch.empty(
        (sum(rows), *next(iter(parts.values()))[1:]), dtype=dtype or kept_type(parts, homes, lora), device=device
    )
    for name, target in zip(parts, value.split(rows), strict=True):
        with opened(homes[name]) as file:
            stored = file.get_tensor(name)
            merged = stored if lora is None else lora.merged(name, stored)
            target.copy_(merged if rounded is None else merged.to(rounded))
    return value


def kept_type(parts: dict[str, torch.Size], homes: dict[str, Path], lora: Adapter | None) -> torch.dtype:
    """The one type of the stored tensors; float32 for several, and where an adapter changes one."""
    types = {stored_type(homes[name], name) for name in parts}
    is_changed = lora is not None and any(map(lora.changes, parts))
    return torch.float32 if is_changed or len(types) > 1 else types.pop()


def by_columns(value: Tensor) -> Tensor:
    """Store a float32 matrix on the CPU by columns, which makes a product with one token faster; others unchanged."""
    if value.ndim == 2 and value.dtype == torch.float32 and value.device.type == "cpu":
        return value.t().contiguous().t()
    return value


def assign(model: Llama, name: str, value: Tensor) -> None:
    """Set a parameter to a dense value, which is quantized or packed if the module asks for it."""
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    if leaf == "weight" and is_quantized(module):
        module.weight = quantization.quantized(module, value)
    elif leaf == "weight" and model.is_packed and isinstance(module, nn.Linear):
        model.set_submodule(module_name, packed_linear(module, value))
    elif module is model.embed_tokens and model.is_packed and model.config.tie_word_embeddings:
        model.set_submodule("lm_head", packed_linear(model.lm_head, value))
        exact.tie(model)
    else:
        setattr(module, leaf, nn.Parameter(value if model.is_packed else by_columns(value), requires_grad=False))


def packed_linear(empty: nn.Linear, weight: Tensor) -> PackedLinear:
    empty.weight = nn.Parameter(weight, requires_grad=False)
    return PackedLinear(empty)
