"""Bytes of weights by arithmetic. Oracles: parameters times bytes, and a matrix worked out by hand.

What a quantised model holds in memory is compared to the byte in test_load.py, by the benchmark itself.
"""

import pytest

from bench.loading.checkpoints import BYTES, SHAPES, count
from bench.loading.schemes import SCHEMES, quantized_bytes, weights_mib


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
