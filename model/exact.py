"""The forward pass in C++, whose logits depend on the tokens before them and on nothing else.

`docs/definition.md`, part two, defines it; `model/reference/` is the same in NumPy. It needs packed weights, which a
Llama has that was loaded for float32 on the CPU.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.block_cache import BlockCache, Blocks
from model.config import LlamaConfig
from model.kv_cache import KVCache, Slots
from model.packed import MISSING, TYPES, PackedLinear, TiedEmbedding, _native, numbers_of
from model.reference.angles import frequencies

if TYPE_CHECKING:
    from model.llama import Llama


class Part(NamedTuple):
    """Tokens of a row that the model reads next, from position `start` on."""

    row: int
    ids: Sequence[int]
    start: int


MOST_POSITIONS = 1 << 19  # the sines' argument reduction is exact below


def why_not(model: Llama) -> str:
    """Why the exact forward pass can't run a model here, "" where it can."""
    if MISSING:
        return MISSING
    if any(is_quantized(module) for module in model.modules()):
        return "bitsandbytes computes its products"
    if model.device.type != "cpu":
        return f"its weights are on {model.device}"
    for parameter in model.parameters():
        if parameter.dtype not in TYPES:
            return f"a weight is of {parameter.dtype}"
    return why_not_shape(model.config)


def why_not_loaded(config: LlamaConfig, dtype: torch.dtype, device: torch.device, quantize: str | None) -> str:
    """The same for a model that is about to be loaded."""
    if quantize is not None:
        return f"bitsandbytes computes its products in {quantize}"
    if device.type == "cuda":
        return "torch computes on a GPU"
    if dtype != torch.float32:
        return f"it computes in {str(dtype).removeprefix('torch.')}"
    return MISSING or why_not_shape(config)


def is_quantized(module: nn.Module) -> bool:
    """Whether the module is a projection of bitsandbytes; asking does not import bitsandbytes."""
    return any(kind.__module__.startswith("bitsandbytes.") for kind in type(module).__mro__)


def why_not_shape(config: LlamaConfig) -> str:
    if config.max_position_embeddings > MOST_POSITIONS:
        return f"max_position_embeddings is above {MOST_POSITIONS:,}"
    if rotary(config).max() > 1:
        return "a rotary angle grows by more than 1 radian a position"
    return ""


@functools.lru_cache
def rotary(config: LlamaConfig) -> np.ndarray:
    return frequencies(config.head_dim, config.rope_theta, config.rope_scaling)


def pack(model: Llama) -> None:
    """Replace every linear layer by a packed one, one at a time, and the tied embedding by that of lm_head.

    Norms and biases become float32, as when they are loaded; no weight has a gradient any more.
    """
    for parameter in model.requires_grad_(False).parameters():
        if parameter.ndim == 1:
            parameter.data = parameter.data.float()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, PackedLinear(module))
    tie(model)


def tie(model: Llama) -> None:
    if model.config.tie_word_embeddings:
        model.set_submodule("embed_tokens", TiedEmbedding(cast(PackedLinear, model.lm_head)))


def unpack(model: Llama) -> None:
    """The opposite of `pack`: dense float32 weights for torch."""
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedLinear):
            model.set_submodule(name, module.dense())
    if model.config.tie_word_embeddings:
        weight = model.lm_head.weight
        with torch.device("meta"):
            embedding = nn.Embedding(*weight.shape)
        embedding.weight = weight
        model.set_submodule("embed_tokens", embedding)
    else:
        model.embed_tokens.weight.data = model.embed_tokens.weight.data.float()


class ExactPass:
    """The C++ model over the packed weights of a Llama."""

    def __init__(self, model: Llama) -> None:
        config = model.config
        self.vocabulary, self.size = config.vocab_size, config.hidden_size
        self.weights = list(model.parameters())
        self.places = [weight.data_ptr() for weight in self.weights]
        tied = cast(PackedLinear, model.lm_head).native if config.tie_word_embeddings else None
        rows, kind = np.zeros(0, np.float32), "float32"
        if tied is None:
            embedding = model.embed_tokens.weight.detach()
            rows, kind = numbers_of(embedding), TYPES[embedding.dtype]
        self.native: Any = _native.Llama(
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.rms_norm_eps,
            rotary(config),
            rows,
            kind,
            config.vocab_size,
            tied,
            self.vector(model.norm.weight),
        )
        layer: Any
        for layer in model.layers:
            products = (layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj)
            norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
            self.native.add_layer(*(product.native for product in products), *map(self.vector, norms))

    @property
    def is_current(self) -> bool:
        """Whether the weights lie where they lay; one whose `data` was set lies elsewhere."""
        return self.places == [weight.data_ptr() for weight in self.weights]

    def vector(self, weight: Tensor) -> np.ndarray:
        return weight.detach().float().contiguous().numpy()

    def new_cache(self, batch: int, length: int) -> BlockCache:
        return BlockCache(Blocks(self.native.block_size), batch, length)

    def hidden(self, ids: Tensor, cache: KVCache | BlockCache | None, slots: Slots) -> Tensor:
        """As `Llama.hidden`; what stands beyond the length of a row is 0."""
        if isinstance(cache, KVCache):
            raise TypeError("cache must come from new_cache() since the weights were packed, got one from before")
        batch, count = ids.shape
        cache = self.new_cache(batch, slots.end) if cache is None else cache
        if batch > len(cache.table):
            raise ValueError(f"ids must have at most {len(cache.table)} rows, as the cache, got {batch}")
        if ids.numel() == 0:
            return torch.zeros(batch, count, self.size)
        rows = np.arange(batch).repeat(count)
        tokens, positions = (x.to(torch.int64).contiguous().view(-1).numpy() for x in (ids, slots.positions))
        if slots.lengths is None:
            return torch.from_numpy(self.read(tokens, rows, positions, cache)).view(batch, count, -1)
        real = np.nonzero(positions < np.repeat(slots.lengths, count))[0]
        found = self.read(tokens[real], rows[real], positions[real], cache)
        out = torch.zeros(batch * count, found.shape[1])
        out[torch.from_numpy(real)] = torch.from_numpy(found)
        return out.view(batch, count, -1)

    def step(self, tokens: Sequence[int], cache: BlockCache, lengths: Sequence[int]) -> Tensor:
        """As `Llama.step`, up to the last norm: [B, E]."""
        return torch.from_numpy(self.read(np.array(tokens), np.arange(len(tokens)), np.array(lengths), cache))

    def read_parts(self, parts: Sequence[Part], cache: BlockCache) -> Tensor:
        """The stream after the last norm, part after part: [N, E]."""
        counts = [len(part.ids) for part in parts]
        tokens = np.array(list(itertools.chain.from_iterable(part.ids for part in parts)))
        rows, positions = (np.array([getattr(part, name) for part in parts]) for name in ("row", "start"))
        if len(tokens) > len(parts):  # some have several tokens
            ends = np.cumsum(counts)
            offsets = np.arange(len(tokens)) - np.repeat(ends - counts, counts)
            rows, positions = np.repeat(rows, counts), np.repeat(positions, counts) + offsets
        return torch.from_numpy(self.read(tokens, rows, positions, cache))

    def read(self, tokens: np.ndarray, rows: np.ndarray, positions: np.ndarray, cache: BlockCache) -> np.ndarray:
        """Tokens [N] of some rows at some positions -> the stream after the last norm [N, E]."""
        if tokens.min() < 0 or tokens.max() >= self.vocabulary:
            raise ValueError(f"ids must be in 0 .. {self.vocabulary - 1}, got {tokens.min()} .. {tokens.max()}")
        cache.prepare(rows, positions)
        blocks, threads = cache.blocks, torch.get_num_threads()
        found = self.native.forward(tokens, rows, positions, cache.table, blocks.slabs, blocks.shift, threads)
        cache.wrote(rows, positions)
        return found
