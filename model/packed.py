"""Weights in panels, as the C++ forward pass reads them, in place of torch's matrices.

They keep the type of their file: 16-bit weights widen exactly, so they give what float32 weights give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

try:
    import model._native as _native

    MISSING = ""
except ModuleNotFoundError:
    MISSING = "model._native is not built: install a C++17 compiler and reinstall (pip -v shows its log)"
except ImportError as error:
    MISSING = f"model._native is built, but can't be loaded: {error}"

TYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def numbers_of(tensor: Tensor) -> np.ndarray:
    """The memory of a float tensor for C++: 16 bits as int16."""
    return (tensor if tensor.dtype == torch.float32 else tensor.view(torch.int16)).numpy()


def tensor_of(numbers: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(numbers).view(dtype)


class PackedLinear(nn.Module):
    """A linear layer whose weights lie in panels; its products have one order of summation (docs/definition.md).

    `weight` makes a dense copy; a state dict holds that copy, as that of any linear layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.panels = nn.Parameter(packed(linear.weight.detach()), requires_grad=False)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """A copy [outputs, inputs], in the type of the weights."""
        return tensor_of(self.native.unpack(), self.panels.dtype)

    @property
    def native(self) -> Any:
        """The layer in C++, which points into the memory of `panels` and `bias`; made again where that moved."""
        made, place = self.__dict__.get("_made"), [tensor.data_ptr() for tensor in self.parameters(recurse=False)]
        if made is None or place != self.__dict__["_place"]:
            bias = None if self.bias is None else self.bias.detach().float().contiguous().numpy()
            shape = (self.out_features, self.in_features)
            made = _native.Linear(numbers_of(self.panels.detach()), TYPES[self.panels.dtype], *shape, bias)
            self.__dict__["_made"], self.__dict__["_place"] = made, place
        return made

    def forward(self, x: Tensor) -> Tensor:  # [..., inputs] -> float32 [..., outputs]
        rows = x.detach().reshape(-1, x.shape[-1]).numpy()
        return torch.from_numpy(self.native(rows, torch.get_num_threads())).view(*x.shape[:-1], self.out_features)

    def dense(self) -> nn.Linear:
        """The layer as torch's, in float32, which holds every 16-bit number exactly."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=False)
        linear.weight = nn.Parameter(self.weight.float(), requires_grad=False)
        linear.bias = self.bias
        return linear

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_made"}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(
        self,
        state: dict[str, Any],
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        """Always copies, also where assign=True asks for less: C++ points into this memory."""
        wanted = {prefix + "weight": torch.Size((self.out_features, self.in_features))}
        if self.bias is not None:
            wanted[prefix + "bias"] = self.bias.shape
        for name, shape in wanted.items():
            if name not in state:
                missing.extend([name] * strict)
            elif state[name].shape != shape:
                errors.append(
                    f"size mismatch for {name}: {tuple(state[name].shape)}, where the model has {tuple(shape)}"
                )
            else:
                self.take(name.rpartition(".")[2], state[name].detach().cpu())
        unexpected.extend(name for name in state if strict and is_within(name, prefix) and name not in wanted)

    def take(self, name: str, value: Tensor) -> None:
        """New values of "weight" or "bias"."""
        target = self.panels if name == "weight" else self.bias
        new = packed(value.to(self.panels.dtype)) if name == "weight" else value
        with torch.no_grad():
            target.copy_(new)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """float() changes nothing, as the products are float32 already."""
        after = function(torch.empty(0, dtype=self.panels.dtype))
        if after.device != self.panels.device or after.dtype not in (self.panels.dtype, torch.float32):
            raise RuntimeError("packed weights must keep their type and device: call unpack() on the Llama first")
        return self


def packed(weight: Tensor) -> Tensor:
    """The panels of a matrix [outputs, inputs]."""
    panels = torch.empty(_native.panel_size(*weight.shape), dtype=weight.dtype)  # torch aligns it to 64 bytes
    _native.pack(numbers_of(weight.contiguous()), TYPES[weight.dtype], numbers_of(panels))
    return panels


def is_within(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "." not in name[len(prefix) :]


class TiedEmbedding(nn.Module):
    """The embedding of a model whose last layer has the same weights: rows of that layer's panels."""

    def __init__(self, head: PackedLinear) -> None:
        super().__init__()
        self.__dict__["head"] = head  # not a submodule: lm_head is one already

    @property
    def weight(self) -> Tensor:
        """A copy [V, E]."""
        return self.__dict__["head"].weight

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> float32 [..., E]
        return self.weight.float()[ids]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """lm_head.weight says the same, where it is there."""
        weight, head = state.pop(prefix + "weight", None), self.__dict__["head"]
        if (
            weight is not None
            and "lm_head.weight" not in state
            and weight.shape == (head.out_features, head.in_features)
        ):
            head.take("weight", weight.detach().cpu())
