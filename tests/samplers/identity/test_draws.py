"""One seed, one token: each backend gives the reference's integers on generated rows, in any batch, however split.

Oracle: the reference. `make identity` compares a million rows and keeps the record.
"""

import multiprocessing
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samplers import SamplingParams, pack, sample
from samplers.identity import draws
from samplers.reference.philox import random_bits
from tests.conftest import ROOT, require
from tests.samplers.strategies import KINDS, row

CHAIN = SamplingParams(
    temperature=1.2, top_k=90, top_p=0.95, min_p=1e-3, typical_p=0.97, epsilon_cutoff=1e-5, eta_cutoff=1e-5
)
FAST = SamplingParams(temperature=1.2, top_p=0.9)  # in Triton's interpreter, which takes long for the chain
SETTINGS = {
    "none": SamplingParams(temperature=0.9),
    "greedy": SamplingParams(temperature=0),
    "top_k": SamplingParams(top_k=7),
    "top_p": SamplingParams(top_p=0.9),
    "chain": CHAIN,
}


def parts(few: int, many: int, count: int) -> list[Any]:
    """Numbers of rows and a seed: `few` rows in the fast suite, `count` times `many` in the other."""
    exhaustive = [pytest.param(many, seed, marks=pytest.mark.exhaustive) for seed in range(1, count + 1)]
    return [(few, 0), *exhaustive]


@pytest.mark.parametrize(("rows", "seed"), parts(few=2_000, many=10_000, count=2))
def test_native(rows: int, seed: int):
    """With each instruction set that this processor has."""
    require("native")
    draws.check("native", rows, 100 + seed)


@pytest.mark.parametrize(("rows", "seed"), parts(few=10, many=120, count=3))
def test_triton(rows: int, seed: int):
    require("triton")
    if torch.cuda.is_available():
        draws.check("triton", 80 * rows, 200 + seed, device="cuda")
    else:
        draws.check("triton", rows, 200 + seed, largest=2000, full_every=5, busy=0.4)


def integers(out) -> list[np.ndarray]:
    return [np.asarray(torch.as_tensor(getattr(out, name)).cpu()) for name in draws.INTEGERS]


ALONE = [
    SamplingParams(top_k=3),
    SamplingParams(top_p=0.6),
    SamplingParams(min_p=0.9),
    SamplingParams(min_p=0.1),
    SamplingParams(typical_p=0.3),
    SamplingParams(epsilon_cutoff=0.06),
    SamplingParams(eta_cutoff=0.3),  # by the entropy
    SamplingParams(eta_cutoff=1e-3),  # by itself
]


@pytest.mark.parametrize(("n", "kind"), [(1, "normal"), (2, "tied")])
def test_each_filter_alone(n: int, kind: str, backend: str):
    """Each cuts here, so a fast path that skips one is seen; min_tokens_to_keep too."""
    x = np.tile(row(kind, 40, np.random.default_rng(8)), (len(ALONE), 1))
    params = [replace(p, min_tokens_to_keep=n) for p in ALONE]
    ours, theirs = (sample(x, params, seed=6, backend=name) for name in (backend, "reference"))
    assert (theirs.kept < 40).all() and (theirs.kept >= n).all()
    for a, b in zip(integers(ours), integers(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["seed", "position", "stream"])
def test_integers_of_any_size(name: str, backend: str):
    """Around the ends of 32 and 64 bits; the reference splits each into two words itself."""
    x = np.zeros(1 << 10, np.float32)
    for value in (-(1 << 63), -(1 << 31) - 1, -1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) + 5):
        given = {"seed": 3, name: value}
        ours, theirs = (sample(x, **given, backend=which) for which in (backend, "reference"))
        assert ours.tokens.tolist() == theirs.tokens.tolist(), value


# Position and stream for which seed 0 gives these random bits: Philox, backwards.
BITS = {
    0: (0x58DD724A86D9CCCE, 0xD9F19CE4D942A9DA),
    1 << 63: (0x5C9F89F137D0350D, 0x3A39C1A10501470C),
    (1 << 64) - 1: (0x95D63EE08131B39A, 0x8A8E56B694E383D7),
}


@pytest.mark.parametrize("p", [SamplingParams(), SamplingParams(top_k=4), SamplingParams(top_p=0.999)])
def test_u_at_the_ends_of_an_interval(p: SamplingParams, backend: str):
    """By hand: u = 0, half of all mass, all but one unit; the intervals are half open, and no mass is no interval."""
    position, stream = np.array(list(BITS.values()), np.uint64).T
    bits = random_bits(np.zeros(3, np.uint64), position, stream)
    assert bits.tolist() == list(BITS)
    x = np.tile(np.float32([-100, 0, 0, -100]), (3, 1))
    out = sample(x, p, seed=0, position=position, stream=stream, backend=backend)
    assert out.tokens.tolist() == [1, 2, 2] and out.total.tolist() == [2 << 40] * 3


def programs() -> Iterator[Any]:
    """Where filters keep much of a row, the interpreter takes long."""
    fast = [*product(("none", "greedy"), ("tied", "riddled")), ("top_k", "tied")]
    fast += [("chain", "one survivor")]
    for name, kind in product(SETTINGS, KINDS):
        is_slow = (name, kind) not in fast
        yield pytest.param(name, kind, marks=[pytest.mark.exhaustive] * is_slow)


@pytest.mark.parametrize(("name", "kind"), list(programs()))
def test_however_many_programs_share_a_row(name: str, kind: str, monkeypatch):
    """Each way to divide a row, with one program or several: the same bits."""
    require("triton")
    from samplers.kernels import launch, ways
    from samplers.kernels.scratch import words_of

    x = torch.from_numpy(row(kind, 8_500, np.random.default_rng(5)))[None]
    if torch.cuda.is_available():
        x = x.cuda()
    expected = integers(sample(x.cpu(), SETTINGS[name], seed=11, backend="reference"))
    for way, programs in ((ways.WAYS[0], 1), (ways.WAYS[1], 2), (ways.WAYS[2], 9), (ways.WAYS[3], 34)):
        tiles = -(-8_500 // way.tile)
        division = ways.Division(way, -(-tiles // programs), programs, words_of(8_500, way.steps))
        monkeypatch.setattr(launch, "division", lambda *_, division=division: division)
        for a, b in zip(integers(sample(x, SETTINGS[name], seed=11, backend="triton")), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_batch_takes_the_largest_programs_that_fill_the_gpu(monkeypatch):
    """By hand, for 132 SMs: one row takes the smallest programs, many rows the largest, in parts of several tiles."""
    pytest.importorskip("triton")
    from samplers.kernels import ways

    monkeypatch.setattr(ways, "multiprocessors", lambda device: 132)
    device = torch.device("cuda", 7)
    for (size, vocabulary), (way, tiles, parts) in {
        (1, 32_000): (ways.Way(1, 2), 1, 125),
        (1, 262_144): (ways.Way(1, 8), 1, 256),
        (8, 128_256): (ways.Way(4, 8), 1, 32),
        (64, 128_256): (ways.Way(8, 8), 1, 16),
        (1024, 128_256): (ways.Way(8, 8), 15, 2),
    }.items():
        assert ways.division(size, vocabulary, device)[:3] == (way, tiles, parts)


@pytest.mark.parametrize("p", [0.5, pytest.param(0.95, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", ["tied", "flat", *[pytest.param(k, marks=pytest.mark.exhaustive) for k in KINDS]])
def test_wide_top_p_in_triton(kind: str, p: float):
    """Where the shortlist can't hold what top-p keeps, whole passes narrow a bracket around its edge."""
    require("triton")
    x = row(kind, 9_001, np.random.default_rng(4))
    ours, theirs = (sample(x, SamplingParams(top_p=p), seed=2, backend=name) for name in ("triton", "reference"))
    for a, b in zip(integers(ours), integers(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["tied", "flat", "normal", "riddled"])
def test_wide_top_p(kind: str):
    """Where top-p keeps much of a long row, C++ looks for its edge in a sample of the row; ties at the edge too."""
    require("native")
    rng = np.random.default_rng(9)
    x = np.stack([row(kind, 9000, rng) for _ in range(60)])
    for p in (0.5, 0.95):
        ours, theirs = (sample(x, SamplingParams(top_p=p), seed=2, backend=name) for name in ("native", "reference"))
        for a, b in zip(integers(ours), integers(theirs), strict=True):
            np.testing.assert_array_equal(a, b)


def test_however_many_threads():
    """Rows on one thread, on several, in several Python threads at once, and in a forked child: the same bits."""
    require("native")
    from samplers import _native
    from samplers.backends import native

    rng = np.random.default_rng(6)
    x = np.stack([row(KINDS[i % len(KINDS)], 20_000, rng) for i in range(48)])
    parameters = native.parameters(pack([CHAIN if i % 2 else SETTINGS["top_p"] for i in range(48)]))

    def tokens(threads: int) -> list[np.ndarray]:
        return _native.sample(x, parameters, None, 3, 4, None, False, threads)[:4]

    alone = tokens(1)
    with ThreadPoolExecutor(4) as pool:
        spread = [tokens(threads) for threads in (2, 3, 64)] + list(pool.map(tokens, [2] * 8))
    with multiprocessing.get_context("fork").Pool(1) as children:
        spread.append(children.apply(_native_in_child, (x,)))
    for columns in spread[:-1]:
        for a, b in zip(columns, alone, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(spread[-1], _native_in_child(x))


def _native_in_child(x: np.ndarray) -> np.ndarray:
    from samplers import _native
    from samplers.backends import native

    return _native.sample(x, native.parameters(pack(CHAIN)), None, 3, 4, None, False, 2)[0]


def test_rows_anywhere_in_memory(backend: str):
    """Strided, offset, repeated and transposed views give what a copy of them gives."""
    rng = np.random.default_rng(2)
    big = torch.from_numpy((3 * rng.standard_normal((3, 101))).astype(np.float32))
    views = [big[::2], big[1:, 7:], big[:, ::3], big[2].expand(2, -1), big.T[:2], big[:, :1]]
    if torch.cuda.is_available() and backend == "triton":
        views = [view.cuda() for view in views]
    for view in views:
        ours = sample(view, FAST, seed=3, backend=backend)
        copy = sample(view.contiguous().cpu(), FAST, seed=3, backend="reference")
        for a, b in zip(integers(ours), integers(copy), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype: torch.dtype, backend: str):
    x = (4 * torch.randn(3, 300, generator=torch.Generator().manual_seed(1))).to(dtype)
    on_device = x.cuda() if torch.cuda.is_available() and backend == "triton" else x
    ours = sample(on_device, FAST, seed=3, backend=backend)
    widened = sample(x.float(), FAST, seed=3, backend="reference")
    for a, b in zip(integers(ours), integers(widened), strict=True):
        np.testing.assert_array_equal(a, b)


CONTRACTION = """
#include <cstdio>
#include "fixed_point.h"
#include "penalties.h"
int main() {
  alea::Buffer<float> x(1000);
  std::vector<int64_t> history;
  for (int i = 0; i < 1000; ++i) {
    x[i] = 1e-3f * i;
    for (int times = 0; times <= i % 7; ++times) history.push_back(i);
  }
  alea::penalise(x, history, 0, {1.0f, 0.1f, 0.3f});
  int64_t total = 0;
  for (int i = 0; i < 1000; ++i) total += alea::weight(alea::distance(x[i], 1.0f, 0.7f));
  std::printf("%lld", static_cast<long long>(total));
}
"""


def reference_total() -> int:
    """What the program must print: the reference's."""
    from samplers.reference.fixed_point import LOWEST, weights
    from samplers.reference.penalties import penalise

    x = np.float32(1e-3) * np.arange(1000, dtype=np.float32)
    history = np.repeat(np.arange(1000), np.arange(1000) % 7 + 1)
    x = penalise(x, None, None, history, 0, presence=0.1, frequency=0.3)
    return int(weights(np.maximum((x - np.float32(1)) * np.float32(0.7), LOWEST)).sum())


def test_nothing_is_left_to_fuse(tmp_path: Path):
    """C++ on this processor's fma gives the reference's total, even where the compiler may fuse what it likes.

    Unfused weights would be seen: `test_golden.test_unfused_weights_would_be_seen`.
    """
    source = tmp_path / "contraction.cpp"
    source.write_text(CONTRACTION)
    totals = {}
    for contract in ("off", "fast"):
        program = tmp_path / contract
        command = ["g++", "-std=c++17", "-O2", "-mfma", f"-ffp-contract={contract}", f"-I{ROOT / 'csrc'}"]
        try:
            subprocess.run([*command, str(source), "-o", str(program)], check=True, capture_output=True)
            totals[contract] = int(subprocess.run([str(program)], check=True, capture_output=True).stdout)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no compiler or processor with fused multiply-add: {error}")
    assert totals == {"off": reference_total(), "fast": reference_total()}
