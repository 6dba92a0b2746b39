"""Checkpoints of random weights, generated on the spot in the shape of known models."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from model.config import BUILT_IN, LlamaConfig
from samplers.extras import how_to_install

SHAPES = {
    "tiny": LlamaConfig(512, 64, 172, 5, 8, 4, 8, 512, 1e-5),
    "storyteller": LlamaConfig.from_pretrained(BUILT_IN),
    "110M": LlamaConfig(32000, 768, 2048, 12, 12, 12, 64, 1024, 1e-5, tie_word_embeddings=True),
    "1B": LlamaConfig(32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e-5),
    "7B": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, 1e-5),  # Llama-2-7B
}
DEPTHS = (8, 20)  # layers of 7B, for the line to all 32 where these are too many for the memory
SHAPES["1B-4-layers"] = replace(SHAPES["1B"], num_hidden_layers=4)
SHAPES |= {f"7B-{layers}-layers": replace(SHAPES["7B"], num_hidden_layers=layers) for layers in DEPTHS}
WARM_UP = LlamaConfig(64, 32, 64, 1, 2, 2, 16, 64, 1e-5)
STORED = ("bfloat16", "float32")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SHARD = "1GB"  # of a file


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


def llama_of_transformers() -> Any:
    """Raises: RuntimeError if transformers is missing."""
    try:
        from transformers import LlamaForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise RuntimeError(f"generated checkpoints need transformers: {how_to_install('transformers')}") from None
    logging.disable_progress_bar()
    return LlamaForCausalLM


def generate(folder: Path, config: LlamaConfig, stored: str, shard: str | int = SHARD) -> Path:
    """A checkpoint that transformers saves, of weights with which a forward pass neither explodes nor vanishes."""
    writer = llama_of_transformers()
    sizes = {name: value for name, value in asdict(config).items() if name not in ("rope_scaling", "eos_token_ids")}
    with torch.device("meta"):  # memory will hold the stored dtype alone
        llama = writer(writer.config_class(**sizes)).to(getattr(torch, stored))
    llama.to_empty(device="cpu").tie_weights()
    torch.manual_seed(0)
    for weight in llama.parameters():
        is_norm = weight.dim() == 1
        torch.nn.init.normal_(weight, float(is_norm), 0.1 if is_norm else weight.shape[-1] ** -0.5)
    llama.save_pretrained(folder, max_shard_size=shard)
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # no write to the disk may go on while loading is timed
    return folder
