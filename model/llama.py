"""Llama-2 (Touvron et al. 2023): RMSNorm, RoPE, grouped-query attention, SwiGLU.

B batch, L tokens, E hidden size, H heads, H_kv key-value heads, D head size, V vocabulary.
Parameter names are those of a Hugging Face checkpoint without the leading `model.`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import exact
from model.block_cache import BlockCache
from model.config import LlamaConfig, token_ids
from model.kv_cache import KVCache, Slots

Cache = KVCache | BlockCache


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, in float32 (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # [B, L, E] -> [B, L, E]
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


@functools.lru_cache
def rotary_frequencies(config: LlamaConfig, device: torch.device) -> Tensor:
    """Radians per position of each pair of channels, float32 [D / 2] (Su et al. 2021, eq. 15).

    They are not weights: a cast of the model to 16 bits must not round them.
    """
    return torch.from_numpy(exact.rotary(config)).to(device)


def angles(radians: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine."""
    return radians.cos(), radians.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pair (i, i + D/2) of x [B, H, L, D] by its angle; cos, sin [B, 1, L, D / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Stacked(nn.Linear):
    """Several projections of the same input as one matrix product; `parts` names them and their output sizes."""

    def __init__(self, size: int, parts: dict[str, int], bias: bool) -> None:
        super().__init__(size, sum(parts.values()), bias)
        self.parts = parts


class Attention(nn.Module):
    """Causal attention; H / H_kv query heads share a key-value head (Ainslie et al. 2023)."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.heads = (config.num_attention_heads, config.num_key_value_heads)
        self.qkv_proj = Stacked(
            config.hidden_size,
            {
                "q_proj": self.heads[0] * self.head_dim,
                "k_proj": self.heads[1] * self.head_dim,
                "v_proj": self.heads[1] * self.head_dim,
            },
            bias=config.attention_bias,
        )
        self.o_proj = nn.Linear(self.heads[0] * self.head_dim, config.hidden_size, bias=config.attention_bias)

    def forward(self, x: Tensor, view: View) -> Tensor:  # [B, L, E] -> [B, L, E]
        queries, shared = self.heads
        qkv = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H + 2 H_kv, L, D]
        turned = rotate(qkv[:, : queries + shared], view.cos, view.sin)
        query, key, value = turned[:, :queries], turned[:, queries:], qkv[:, queries + shared :]
        if view.cache is not None:
            key, value = view.cache.write(self.layer, view.slots, key, value)  # [B, H_kv, S, D]
        mixed = attend(query, key, value, view)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor, view: View) -> Tensor:
    """Queries [B, H, L, D] over keys and values [B, H_kv, S, D] up to their own positions -> [B, H, L, D]."""
    is_grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, view.mask, is_causal=view.causal, enable_gqa=is_grouped)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        inner = config.intermediate_size
        self.gate_up_proj = Stacked(config.hidden_size, {"gate_proj": inner, "up_proj": inner}, bias=config.mlp_bias)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, E] -> [B, L, E]
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(swiglu(gate, up))


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normed stream and added to it."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, view: View) -> Tensor:  # [B, L, E] -> [B, L, E]
        x = x + self.self_attn(self.input_layernorm(x), view)
        return x + self.mlp(self.post_attention_layernorm(x))


class View:
    """Shared by all layers of one forward pass: the rotary angles, the cache and the attention mask."""

    def __init__(self, slots: Slots, frequencies: Tensor, dtype: torch.dtype, cache: KVCache | None) -> None:
        radians = slots.positions[:, None, :, None].float() * frequencies  # [B, 1, L, D / 2]
        self.cos, self.sin = (x.to(dtype) for x in angles(radians))
        self.slots, self.cache = slots, cache
        first, count = slots.start, slots.positions.shape[1]
        self.causal = first == 0 and count > 1
        # A single token sees all slots before it; from slot 0, `causal` replaces the mask.
        open_view = first is not None and (count == 1 or first == 0)
        self.mask = None if open_view else self.visible()  # [B, 1, L, S] or None

    def visible(self) -> Tensor:
        slots = torch.arange(self.slots.end, device=self.slots.positions.device)
        return slots <= self.slots.positions[:, None, :, None]


UNPACKED = "its weights are torch's; pack() hands them to the exact forward pass"


class Llama(nn.Module):
    """A Llama-2 decoder: token ids in, logits out.

    With packed weights, `model.exact` computes all of it in C++, and the logits at a position depend on the tokens up
    to it and on nothing else. Otherwise torch runs the modules below (and calls hooks on them), and `why_not_exact`
    gives the reason; it is "" with packed weights. To replace a module or a Parameter, unpack() before
    and pack() after it.

    >>> model = Llama(LlamaConfig(vocab_size=8, hidden_size=4, intermediate_size=8, num_hidden_layers=1,
    ...                           num_attention_heads=2, num_key_value_heads=1, head_dim=2))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.generation_config: dict[str, Any] = {}  # the folder's generation_config.json
        self.source = "the model"  # the origin of its weights, for error messages
        self.why_not_exact = UNPACKED
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        dtype: torch.dtype | None = torch.float32,
        device: str | torch.device = "cpu",
        adapter: str | Path | None = None,
        quantize: str | None = None,
        double_quant: bool = False,
        weights: torch.dtype | None = None,
    ) -> Llama:
        """Load a Llama folder as transformers saves it; no folder: the built-in storyteller.

        Args:
            folder: with config.json and *.safetensors.
            dtype: that the model computes in, float32, float16 or bfloat16, None for the file's own. In float32 on the
                CPU, 16-bit weights stay as the file has them: they widen exactly, so they give the same logits as
                float32 weights in half the memory. Otherwise weights are cast to dtype.
            device: "cpu" or "cuda".
            adapter: a folder with a LoRA adapter as PEFT saves it, merged into the weights (`model.loading.lora`).
            quantize: "int8", "nf4" or "fp4" for the matrices of the layers (`model.loading.quantization`);
                embedding, norms and lm_head stay in dtype.
            double_quant: bool, quantize the scales of nf4 or fp4 as well.
            weights: float16 or bfloat16 rounds the weights to it first; float32 widens them. Default: as stored.

        Raises: FileNotFoundError, ValueError naming file and tensor (see `model.loading.weights`); RuntimeError where
            bitsandbytes is needed and missing.
        """
        from model.loading.weights import load  # here, since loading builds Llamas: a shortcut for its users

        return load(folder, dtype, torch.device(device), adapter, quantize, double_quant, weights)

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """That the model computes in."""
        return self.norm.weight.dtype

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        own = self.generation_config.get("eos_token_id")
        return token_ids(own, self.config.vocab_size) or self.config.eos_token_ids

    def new_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` sequences of at most `length` tokens."""
        if self.is_packed:
            return self.exact_pass.new_cache(batch, length)
        return KVCache(self.config, batch, length, self.dtype, self.device)

    def forward(self, ids: Tensor, cache: Cache | None = None, slots: Slots | None = None) -> Tensor:
        """ids int64 [B, L] -> logits float32 [B, L, V]."""
        return self.logits(self.hidden(ids, cache, slots))

    def hidden(self, ids: Tensor, cache: Cache | None = None, slots: Slots | None = None) -> Tensor:
        """ids [B, L] -> the stream after the last norm [B, L, E]; slots: of the ids in the cache."""
        if slots is None:
            slots = Slots.aligned(len(ids), 0, ids.shape[1], ids.device)
        if self.is_packed:
            return self.exact_pass.hidden(ids, cache, slots)
        if isinstance(cache, BlockCache):
            raise TypeError("cache must come from new_cache() since the weights were unpacked, got one from before")
        x = self.embed_tokens(ids)
        view = View(slots, rotary_frequencies(self.config, ids.device), x.dtype, cache)
        for layer in self.layers:
            x = layer(x, view)
        return self.norm(x)

    def step(self, tokens: Sequence[int], cache: Cache, lengths: Sequence[int]) -> Tensor:
        """One more token of each row, which has `lengths` tokens before it -> float32 [B, V]."""
        if isinstance(cache, BlockCache) and self.is_packed:
            return self.logits(self.exact_pass.step(tokens, cache, lengths))
        last = torch.tensor(tokens, device=self.device)[:, None]
        return self(last, cache, Slots.ragged(lengths, self.device))[:, -1]

    def steps(self, runs: Sequence[Sequence[int]], cache: Cache, lengths: Sequence[int]) -> Tensor:
        """As `step` with one token or more of each row -> float32 [N, V], row after row. Several need `is_packed`."""
        if all(len(run) == 1 for run in runs):
            return self.step([run[0] for run in runs], cache, lengths)
        assert isinstance(cache, BlockCache) and self.is_packed
        parts = [exact.Part(row, run, length) for row, (run, length) in enumerate(zip(runs, lengths, strict=True))]
        return self.logits(self.exact_pass.read_parts(parts, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., E] -> float32 [..., V]."""
        return self.lm_head(hidden).float()

    @property
    def is_packed(self) -> bool:
        return not self.why_not_exact

    @property
    def exact_pass(self) -> exact.ExactPass:
        made: exact.ExactPass | None = self.__dict__.get("_exact_pass")
        if made is None or not made.is_current:
            made = self.__dict__["_exact_pass"] = exact.ExactPass(self)
        return made

    def pack(self) -> Llama:
        """Hand the weights to the exact forward pass, which runs on the CPU in float32. Returns itself.

        Raises: ValueError with the reason where that is not possible.
        """
        if not self.is_packed:
            reason = exact.why_not(self)
            if reason:
                raise ValueError(f"{self.source}: can't be packed: {reason}")
            exact.pack(self)
            self.why_not_exact = ""
        return self

    def unpack(self) -> Llama:
        """Give the weights back to torch, as float32 matrices. Returns itself."""
        if self.is_packed:
            self.__dict__.pop("_exact_pass", None)
            exact.unpack(self)
            self.why_not_exact = UNPACKED
        return self

    def unpack_for(self, what: str) -> None:
        """`unpack`, with a warning where somebody asked for something else."""
        if self.is_packed:
            self.unpack()
            warnings.warn(
                f"{what} gives the weights back to torch: the same prompt and seed may give another text in another "
                "batch, until pack() is called",
                RuntimeWarning,
                stacklevel=3,
            )

    def train(self, mode: bool = True) -> Llama:
        """As nn.Module's; training needs unpacked weights."""
        if mode:
            self.unpack_for("train()")
        return super().train(mode)

    def requires_grad_(self, requires_grad: bool = True) -> Llama:
        """As nn.Module's; gradients need unpacked weights."""
        if requires_grad:
            self.unpack_for("requires_grad_()")
        return super().requires_grad_(requires_grad)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Llama:
        """As nn.Module's, for to(), half() and the like; another type or device needs unpacked weights."""
        after = function(self.norm.weight)
        if (after.dtype, after.device) != (self.dtype, self.device):
            self.unpack_for(f"a change to {after.dtype} on {after.device}")
        return super()._apply(function, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_exact_pass"}
