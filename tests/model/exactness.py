"""What the tests of the exact forward pass share: instruction sets, and llama.py run with the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

import model.llama as llama
from model import packed, reference

LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
CONFIGS = {
    "plain": {},
    "grouped heads": dict(num_key_value_heads=2),
    "one key-value head, tied": dict(num_key_value_heads=1, tie_word_embeddings=True),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "odd head size": dict(head_dim=10),
    "heads wider than the stream": dict(head_dim=34, num_key_value_heads=2),
    "odd sizes": dict(hidden_size=37, intermediate_size=151, vocab_size=131, head_dim=6, num_attention_heads=1),
    "more than a block of channels": dict(head_dim=132, num_attention_heads=2, num_hidden_layers=1),
    "linear rope": dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=5000.0)),
    "llama3 rope": dict(rope_parameters=dict(**LLAMA3, factor=8.0, rope_theta=500000.0)),
    "bfloat16": dict(dtype=torch.bfloat16, num_key_value_heads=2),
    "float16, tied": dict(dtype=torch.float16, tie_word_embeddings=True),
}


def isas() -> list[str]:
    """The instruction sets of this processor, of which generic runs everywhere."""
    return [] if packed.MISSING else packed._native.available_isas()


needs_native = pytest.mark.skipif(bool(packed.MISSING), reason=packed.MISSING)


@contextmanager
def isa(name: str) -> Iterator[None]:
    packed._native.use_isa(name)
    try:
        yield
    finally:
        packed._native.use_isa("auto")


def bits(x: Tensor | np.ndarray) -> np.ndarray:
    """float32 as integers: -0 is not 0, and every NaN is the same."""
    x = np.asarray(x, np.float32)
    return np.where(np.isnan(x), -1, x.view(np.int32))


@contextmanager
def reference_operations(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of llama.py, with unpacked weights, compute with model/reference/ instead of torch."""
    with patch.context() as context:
        context.setattr(llama.RMSNorm, "forward", norm)
        context.setattr(torch.nn.Linear, "forward", linear)
        context.setattr(llama, "angles", lambda x: tuple(map(torch.from_numpy, reference.angles.angles(x.numpy()))))
        context.setattr(llama, "rotate", rotate)
        context.setattr(llama, "attend", attend)
        context.setattr(llama, "swiglu", lambda g, u: torch.from_numpy(reference.swiglu.swiglu(g.numpy(), u.numpy())))
        yield


def norm(self: llama.RMSNorm, x: Tensor) -> Tensor:
    rows = [
        reference.norm.norm(row, self.weight.detach().numpy(), self.eps) for row in x.reshape(-1, x.shape[-1]).numpy()
    ]
    return torch.from_numpy(np.stack(rows)).view(x.shape)


def linear(self: torch.nn.Linear, x: Tensor) -> Tensor:
    bias = None if self.bias is None else self.bias.detach().numpy()
    y = reference.linear.linear(x.reshape(-1, x.shape[-1]).numpy(), self.weight.detach().float().numpy(), bias)
    return torch.from_numpy(y).view(*x.shape[:-1], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.from_numpy(reference.rotate.rotate(x.numpy(), cos.numpy(), sin.numpy()))


def attend(query: Tensor, key: Tensor, value: Tensor, view: llama.View) -> Tensor:
    group = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    for b, h, i in np.ndindex(query.shape[:3]):
        seen = int(view.slots.positions[b, i]) + 1
        keys, values = (x[b, h // group, :seen].numpy() for x in (key, value))
        out[b, h, i] = torch.from_numpy(reference.attend.attend(query[b, h, i].numpy(), keys, values))
    return out
