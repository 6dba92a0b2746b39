"""Checkpoints of random weights, generated on the spot in the shape of known models."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.loading.memory import MIB
from model.config import BUILT_IN, LlamaConfig
from model.loading.checkpoint import INDEX, SINGLE

SHAPES = {
    "tiny": LlamaConfig(512, 64, 172, 5, 8, 4, 8, 512, 1e-5),
    "storyteller": LlamaConfig.from_pretrained(BUILT_IN),
    "110M": LlamaConfig(32000, 768, 2048, 12, 12, 12, 64, 1024, 1e-5, tie_word_embeddings=True),
    "1B": LlamaConfig(32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e-5),
    "7B": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, 1e-5),  # Llama-2-7B
}
DEPTHS = (8, 20)  # layers of 7B, for the line to all 32 where these are too many for the memory
SHAPES |= {f"7B-{layers}-layers": replace(SHAPES["7B"], num_hidden_layers=layers) for layers in DEPTHS}
WARM_UP = LlamaConfig(64, 32, 64, 1, 2, 2, 16, 64, 1e-5)
STORED = ("bfloat16", "float32")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SHARD = 1024 * MIB  # bytes of a file, but for a larger tensor


def tensors(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a Hugging Face checkpoint, without help of the loaders, which they judge."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, shared = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    block: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    embedding: tuple[int, ...] = (config.vocab_size, hidden)
    found = {"model.embed_tokens.weight": embedding}
    for layer in range(config.num_hidden_layers):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    found["model.norm.weight"] = (hidden,)
    return found if config.tie_word_embeddings else found | {"lm_head.weight": embedding}


def count(config: LlamaConfig) -> int:
    """Parameters, a tied lm_head once.

    >>> f"{count(SHAPES['7B']):,}"
    '6,738,415,616'
    """
    return sum(map(math.prod, tensors(config).values()))


class Checkpoints:
    """Folders of weights, generated when first asked for; one at a time, and the small one to warm up with."""

    def __init__(self, home: Path, stored: str) -> None:
        self.home, self.stored = home, stored
        self.warm_up = generate(home / "warm-up", WARM_UP, stored)

    def folder(self, shape: str) -> Path:
        folder = self.home / shape
        if shape == "storyteller":
            return BUILT_IN
        if not folder.is_dir():
            for other in set(self.home.iterdir()) - {self.warm_up}:
                shutil.rmtree(other)
            generate(folder, SHAPES[shape], self.stored)
        return folder


def generate(folder: Path, config: LlamaConfig, stored: str, shard_bytes: int = SHARD) -> Path:
    """A checkpoint as transformers would save it, written shard by shard: memory never holds more than one."""
    folder.mkdir()
    write_config(folder, config, stored)
    shapes, homes = tensors(config), {}
    groups = list(shards(shapes, shard_bytes // BYTES[stored]))
    for number, names in enumerate(groups, 1):
        path = folder / (SINGLE if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors")
        save_file({name: weights(name, shapes[name], stored) for name in names}, path, metadata={"format": "pt"})
        with path.open("rb") as file:
            os.fsync(file.fileno())  # no write to the disk may go on while loading is timed
        homes.update(dict.fromkeys(names, path.name))
    if len(groups) > 1:
        index = {"metadata": {"total_size": count(config) * BYTES[stored]}, "weight_map": homes}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_config(folder: Path, config: LlamaConfig, stored: str) -> None:
    own = {name: value for name, value in asdict(config).items() if name not in ("rope_scaling", "eos_token_ids")}
    fixed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": stored}
    (folder / "config.json").write_text(json.dumps(fixed | own, indent=2), encoding="utf-8")


def shards(shapes: dict[str, tuple[int, ...]], most: int) -> Iterator[list[str]]:
    """The names in groups of at most `most` parameters; a larger tensor is a group by itself.

    >>> list(shards({"a": (2, 2), "b": (3,), "c": (9,)}, 8))
    [['a', 'b'], ['c']]
    """
    names: list[str] = []
    for name in shapes:
        if names and sum(math.prod(shapes[n]) for n in [*names, name]) > most:
            yield names
            names = []
        names.append(name)
    yield names


def weights(name: str, shape: tuple[int, ...], stored: str) -> torch.Tensor:
    """Random numbers, others for each name; a forward pass neither blows them up nor lets them vanish."""
    size = math.prod(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    numbers = torch.randn(min(size, 2**20 - 1), generator=generator)  # then repeated: fast, and rows still differ
    scaled = 1 + numbers / 10 if len(shape) == 1 else numbers * shape[-1] ** -0.5
    return scaled.to(getattr(torch, stored)).repeat(-(-size // len(numbers)))[:size].view(shape)
