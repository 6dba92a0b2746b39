"""Schemes of weights in memory, from float32 to 4 bits: their bytes by arithmetic, and Llama-2-7B's, also as measured.

The figures of a tutorial are shown for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench import runner
from bench.loading.checkpoints import BYTES, DEPTHS, SHAPES, tensors
from bench.loading.memory import MIB
from bench.records import Record
from model.config import LlamaConfig


@dataclass(frozen=True)
class Scheme:
    """The dtype of the weights; `quantize` is that of the layers' matrices, if they are quantized."""

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
TUTORIAL_MIB = {"float32": 25_713, "bfloat16": 12_860, "int8": 6_701, "fp4": 4_000, "nf4-double": 3_695}
SCHEMES_IN_WORDS = {
    "float32": "32 bits (float32)",
    "bfloat16": "16 bits (bfloat16)",
    "int8": "8 bits (int8)",
    "fp4": "4 bits (fp4)",
    "nf4-double": "4 bits (nf4), double quantization",
}
MEMORY_CAPTION = (
    "Llama-2-7B's shape with random weights, stored in bfloat16, each loaded once by alea. Resident: memory of "
    "the process above that before; peak: its most while loading; after a token: with the buffers of the first "
    "forward pass (for 4 bits, a CPU with AVX512-BF16 packs the weights again). Difference: of resident from the "
    "tutorial's, which is a GPU's. 32 bits do not fit this machine: the line through "
    f"{' and '.join(map(str, DEPTHS))} layers, drawn on to {SHAPES['7B'].num_hidden_layers}. In 8 and 4 bits "
    "embedding, norms and lm_head stay in bfloat16"
)
ARITHMETIC_CAPTION = (
    "Weights and their scales alone. As in bitsandbytes, embedding, norms and lm_head stay in 16 bits; int8 adds a "
    "float32 a row, 4 bits one a block of 64 weights, double quantization a byte instead, a float32 for 256 of these, "
    "and one a matrix. The tutorial's are figures of a GPU in use. The 8.1 MiB that torch lends cuBLAS for its "
    "work (on GPUs other than Hopper's) would explain the differences at 32 and 16 bits, and the last but for 0.4 MiB; "
    "of int8's 11 MiB and of 4 bits' 17 MiB would remain unexplained."
)


def weights_mib(config: LlamaConfig, scheme: str) -> float:
    """MiB of the weights and their scales in memory.

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


def memory_table(records: list[Record]) -> runner.Rows:
    """Llama-2-7B's weights as measured; a dash where the machine can't hold the whole model."""
    headings = ["weights", "by arithmetic, MiB", "resident, MiB", "tutorial, MiB", "difference"]
    whole = {record["dtype"]: record for record in records if record["shape"] == "7B"}
    lines = []
    for scheme, tutorial in TUTORIAL_MIB.items():
        needed, resident = weights_mib(SHAPES["7B"], scheme), resident_7b(records, scheme)
        sizes = [f"{needed:,.0f}", f"{resident:,.0f}", f"{tutorial:,}", f"{resident / tutorial - 1:+.2%}"]
        figures = ("peak_mib", "running_mib")
        more = [f"{ours(whole[scheme], figure):,.0f}" if scheme in whole else "–" for figure in figures]
        lines.append([SCHEMES_IN_WORDS[scheme], *sizes, *more])
    return [*headings, "peak, MiB", "after a token, MiB"], lines


def resident_7b(records: Iterable[Record], scheme: str) -> float:
    """MiB in memory after alea loaded Llama-2-7B's shape; where it did not fit, by the line through two depths."""
    deep = [record for record in records if record["shape"].startswith("7B") and record["dtype"] == scheme]
    found = {record["shape"]: ours(record, "resident_mib") for record in deep}
    if "7B" in found:
        return found["7B"]
    low, high = (found[f"7B-{layers}-layers"] for layers in DEPTHS)
    a_layer = (high - low) / (DEPTHS[1] - DEPTHS[0])
    return low + (SHAPES["7B"].num_hidden_layers - DEPTHS[0]) * a_layer


def ours(record: Record, figure: str) -> float:
    """alea's median."""
    return record[figure]["alea"]["p50"]


def arithmetic_table() -> runner.Rows:
    """Llama-2-7B's weights by arithmetic alone."""
    lines = []
    for scheme, tutorial in TUTORIAL_MIB.items():
        needed = weights_mib(SHAPES["7B"], scheme)
        difference = f"{needed - tutorial:+.1f} ({needed / tutorial - 1:+.2%})"
        lines.append([SCHEMES_IN_WORDS[scheme], f"{needed:,.1f}", f"{tutorial:,}", difference])
    return ["weights", "by arithmetic", "tutorial", "difference"], lines
