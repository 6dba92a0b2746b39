"""Bytes of weights. Oracles: parameters times bytes, a matrix worked out by hand, the tutorial's MiB, and for a line
through two depths, figures that lie on one.

What a quantized model holds in memory is compared to the byte in test_load.py, by the benchmark itself.
"""

import json

import pytest

from bench import report
from bench.loading import schemes
from bench.loading.checkpoints import BYTES, DEPTHS, SHAPES, count
from bench.loading.schemes import SCHEMES, quantized_bytes, weights_mib
from tests.test_architecture import ROOT


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", BYTES)
def test_whole_dtypes(shape, dtype):
    assert weights_mib(SHAPES[shape], dtype) * 2**20 == count(SHAPES[shape]) * BYTES[dtype]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("int8", 300 * 100 + 4 * 300),
        ("nf4", 15_000 + 4 * 469),  # 468.75 blocks of 64
        ("nf4-double", 15_000 + 469 + 4 * 2 + 4),  # 1.8 times 256 scales, and their mean
    ],
)
def test_a_matrix_with_its_scales(scheme, expected):
    assert quantized_bytes((300, 100), SCHEMES[scheme]) == expected


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match=r"scheme must be one of float32, bfloat16, .*, got '2 bits'"):
        weights_mib(SHAPES["7B"], "2 bits")


@pytest.mark.parametrize(
    ("scheme", "within"),
    [("float32", 1e-3), ("bfloat16", 1e-3), ("int8", 4e-3), ("fp4", 7e-3), ("nf4-double", 3e-3)],
)
def test_arithmetic_beside_the_tutorial(scheme, within):
    theirs = schemes.TUTORIAL_MIB[scheme]
    assert theirs * (1 - within) <= weights_mib(SHAPES["7B"], scheme) <= theirs


COMMITTED = list(
    {
        (record["shape"], record["dtype"]): record  # the newest of each
        for record in map(json.loads, (ROOT / "bench/results/load.jsonl").read_text(encoding="utf-8").splitlines())
    }.values()
)
PAGES = "".join(page.read_text(encoding="utf-8") for page in report.PAGES)


@pytest.mark.parametrize("scheme", schemes.TUTORIAL_MIB)
def test_the_memory_measured_is_near_the_tutorial(scheme):
    """To 3 %, in the committed records; and shown so on a page."""
    resident = schemes.resident_7b(COMMITTED, scheme)
    assert abs(resident / schemes.TUTORIAL_MIB[scheme] - 1) < 0.03
    assert abs(resident / weights_mib(SHAPES["7B"], scheme) - 1) < 0.03
    shown = (
        f" {resident:,.0f} | {schemes.TUTORIAL_MIB[scheme]:,} | {resident / schemes.TUTORIAL_MIB[scheme] - 1:+.2%} |"
    )
    (line,) = (line for line in PAGES.splitlines() if line.startswith(f"| {schemes.SCHEMES_IN_WORDS[scheme]} |"))
    assert shown in line


def test_a_model_too_deep_for_the_memory_lies_on_a_line():
    depths = [(layers, 1000.0 + 10 * layers) for layers in DEPTHS]
    records = [
        {"shape": f"7B-{layers}-layers", "dtype": "float32", "resident_mib": {"alea": {"p50": mib}}}
        for layers, mib in depths
    ]
    assert schemes.resident_7b(records, "float32") == 1320.0
    whole = {"shape": "7B", "dtype": "float32", "resident_mib": {"alea": {"p50": 7.0}}}
    assert schemes.resident_7b([*records, whole], "float32") == 7.0


def test_fewer_bits_take_less_cpu_at_7b():
    """As docs/decoding.md says; measured with AVX512-BF16."""
    seconds = {
        record["dtype"]: schemes.ours(record, "token_cpu_seconds")
        for record in COMMITTED
        if record["shape"] == "7B" and "token_cpu_seconds" in record
    }
    assert seconds["int8"] < seconds["bfloat16"] and seconds["nf4-double"] < seconds["bfloat16"]
