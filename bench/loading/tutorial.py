"""Llama-2-7B's weights in memory: measured and by arithmetic, beside the figures of a tutorial."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import runner
from bench.loading.checkpoints import DEPTHS, SHAPES
from bench.loading.schemes import weights_mib

MIB = {"float32": 25_713, "bfloat16": 12_860, "int8": 6_701, "fp4": 4_000, "nf4-double": 3_695}  # the tutorial's
NAMES = {
    "float32": "32 bits (float32)",
    "bfloat16": "16 bits (bfloat16)",
    "int8": "8 bits (int8)",
    "fp4": "4 bits (fp4)",
    "nf4-double": "4 bits (nf4), double quantisation",
}
MORE = ("peak_mib", "running_mib")
CAPTION = (
    "Weights and their scales alone. As bitsandbytes does it, embedding, norms and lm_head stay in 16 bits; int8 adds "
    "a float32 a row, 4 bits one a block of 64 weights, double quantisation a byte instead, a float32 for 256 of "
    "these, and one a matrix. The tutorial's are figures of a GPU in use. The 8.1 MiB that torch lends cuBLAS for its "
    "work (on GPUs other than Hopper's) would explain the differences at 32 and 16 bits, and the last but for 0.4 MiB; "
    "of int8's 11 MiB and of 4 bits' 17 MiB would remain unexplained."
)

Record = dict[str, Any]


def rows(records: Iterable[Record]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what was measured; a dash where the machine could not hold the whole."""
    headings = ["weights", "by arithmetic, MiB", "resident, MiB", "tutorial, MiB", "difference"]
    headings += ["peak, MiB", "after a token, MiB"]
    deep = [record for record in records if record["shape"].startswith("7B")]
    whole = {record["dtype"]: record for record in deep if record["shape"] == "7B"}
    cells = []
    for scheme, tutorial in MIB.items():
        needed, resident = weights_mib(SHAPES["7B"], scheme), resident_7b(deep, scheme)
        sizes = [f"{needed:,.0f}", f"{resident:,.0f}", f"{tutorial:,}", f"{resident / tutorial - 1:+.2%}"]
        more = [f"{mib(whole[scheme], figure):,.0f}" if scheme in whole else "–" for figure in MORE]
        cells.append([NAMES[scheme], *sizes, *more])
    return headings, cells


def resident_7b(records: Iterable[Record], scheme: str) -> float:
    """MiB in memory after Llama-2-7B's shape was loaded by alea; by the line through two depths where it was not."""
    deep = [record for record in records if record["shape"].startswith("7B") and record["dtype"] == scheme]
    found = {record["shape"]: mib(record, "resident_mib") for record in deep}
    if "7B" in found:
        return found["7B"]
    low, high = (found[f"7B-{layers}-layers"] for layers in DEPTHS)
    a_layer = (high - low) / (DEPTHS[1] - DEPTHS[0])
    return low + (SHAPES["7B"].num_hidden_layers - DEPTHS[0]) * a_layer


def mib(record: Record, figure: str) -> float:
    """Of ours, the median."""
    return record[figure]["alea"]["p50"]


def show_arithmetic() -> None:
    cells = []
    for scheme, tutorial in MIB.items():
        needed = weights_mib(SHAPES["7B"], scheme)
        difference = f"{needed - tutorial:+.1f} ({needed / tutorial - 1:+.2%})"
        cells.append([NAMES[scheme], f"{needed:,.1f}", f"{tutorial:,}", difference])
    headings = ["weights", "by arithmetic", "tutorial", "difference"]
    runner.print_table("Llama-2-7B's weights, MiB", headings, cells, caption=CAPTION)
