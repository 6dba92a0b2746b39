"""The schemes in which weights are held in memory, from float32 to 4 bits, and their bytes by arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.loading.checkpoints import BYTES, tensors
from bench.loading.memory import MIB
from model.config import LlamaConfig


@dataclass(frozen=True)
class Scheme:
    """The dtype of the weights; `quantize` is that of the layers' matrices, if they are quantised."""

    dtype: str
    quantize: str | None = None
    double_quant: bool = False


SCHEMES = {
    "float32": Scheme("float32"),
    "bfloat16": Scheme("bfloat16"),
    "float16": Scheme("float16"),
    "int8": Scheme("bfloat16", "int8"),
    "fp4": Scheme("bfloat16", "fp4"),
    "nf4": Scheme("bfloat16", "nf4"),
    "nf4-double": Scheme("bfloat16", "nf4", True),
}


def weights_mib(config: LlamaConfig, scheme: str) -> float:
    """MiB of the weights and their scales in memory.

    >>> from bench.loading.checkpoints import SHAPES
    >>> round(weights_mib(SHAPES["7B"], "float32")), round(weights_mib(SHAPES["7B"], "int8"))
    (25705, 6682)
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    shapes = tensors(config)
    quantized = {name: shape for name, shape in shapes.items() if "_proj" in name and SCHEMES[scheme].quantize}
    rest = sum(math.prod(shape) for name, shape in shapes.items() if name not in quantized)
    inside = sum(quantized_bytes(shape, SCHEMES[scheme]) for shape in quantized.values())
    return (inside + rest * BYTES[SCHEMES[scheme].dtype]) / MIB


def quantized_bytes(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Of a matrix with its scales.

    >>> quantized_bytes((4096, 4096), SCHEMES["nf4"])
    9437184
    """
    weights = math.prod(shape)
    if scheme.quantize == "int8":
        return weights + 4 * shape[0]  # a float32 a row
    blocks = -(-weights // 64)
    scales = blocks + 4 * -(-blocks // 256) + 4 if scheme.double_quant else 4 * blocks
    return -(-weights // 2) + scales
