"""Llama-2-7B's memory. Oracles: the tutorial's MiB; and for a line through two depths, figures that lie on one."""

import json

import pytest

from bench.loading import tutorial
from bench.loading.checkpoints import DEPTHS, SHAPES
from bench.loading.schemes import weights_mib
from tests.test_architecture import ROOT


@pytest.mark.parametrize(
    ("scheme", "within"),
    [("float32", 1e-3), ("bfloat16", 1e-3), ("int8", 4e-3), ("fp4", 7e-3), ("nf4-double", 3e-3)],
)
def test_arithmetic_beside_the_tutorial(scheme, within):
    theirs = tutorial.MIB[scheme]
    assert theirs * (1 - within) <= weights_mib(SHAPES["7B"], scheme) <= theirs


COMMITTED = list(
    {
        (record["shape"], record["dtype"]): record  # the newest of each
        for record in map(json.loads, (ROOT / "bench/results/load.jsonl").read_text(encoding="utf-8").splitlines())
    }.values()
)
PAGE = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", tutorial.MIB)
def test_the_memory_measured_is_near_the_tutorial(scheme):
    """To 3 %, in the committed records; as docs/benchmarks.md shows."""
    resident = tutorial.resident_7b(COMMITTED, scheme)
    assert abs(resident / tutorial.MIB[scheme] - 1) < 0.03
    assert abs(resident / weights_mib(SHAPES["7B"], scheme) - 1) < 0.03
    shown = f" {resident:,.0f} | {tutorial.MIB[scheme]:,} | {resident / tutorial.MIB[scheme] - 1:+.2%} |"
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {tutorial.NAMES[scheme]} |"))
    assert shown in line


def test_a_model_too_deep_for_the_memory_lies_on_a_line():
    depths = [(layers, 1000.0 + 10 * layers) for layers in DEPTHS]
    records = [
        {"shape": f"7B-{layers}-layers", "dtype": "float32", "resident_mib": {"alea": {"p50": mib}}}
        for layers, mib in depths
    ]
    assert tutorial.resident_7b(records, "float32") == 1320.0
    whole = {"shape": "7B", "dtype": "float32", "resident_mib": {"alea": {"p50": 7.0}}}
    assert tutorial.resident_7b([*records, whole], "float32") == 7.0


def test_fewer_bits_take_less_cpu_at_7b():
    """As docs/decoding.md says; measured with AVX512-BF16."""
    seconds = {
        record["dtype"]: tutorial.mib(record, "token_cpu_seconds")
        for record in COMMITTED
        if record["shape"] == "7B" and "token_cpu_seconds" in record
    }
    assert seconds["int8"] < seconds["bfloat16"] and seconds["nf4-double"] < seconds["bfloat16"]
