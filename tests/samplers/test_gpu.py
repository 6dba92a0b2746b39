"""On a GPU: captured graphs draw afresh, nothing waits for the host, and no row, view or memory changes a bit.

Oracle: the reference, on the CPU. Skipped without a GPU; `bench/gpu.sh` runs it on one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from samplers import SamplingParams, filter_logits, pack, sample
from samplers.identity import weights
from tests.samplers.golden import GoldenRow, digest, read
from tests.samplers.identity.test_draws import CHAIN, SETTINGS, integers
from tests.samplers.strategies import row

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")

PENALISED = SamplingParams(
    top_p=0.95, repetition_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.1, logit_bias={3: 1.5, 7: -np.inf}
)
DISTINCT = {"greedy": (1, 1), "top_k": (5, 7), "chain": (35, 90)}  # tokens in 100 draws from a flat row
FEW, MANY = 3, 600  # rows: many small programs share one, or a few large ones


def rows(kind: str, size: int, vocabulary: int) -> torch.Tensor:
    rng = np.random.default_rng(17)
    return torch.from_numpy(np.stack([row(kind, vocabulary, rng) for _ in range(size)]))


def on_gpu(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.as_tensor(value, device="cuda") for name, value in arguments.items()}


def poison() -> None:
    """What a kernel takes to be zero must not be so by chance: freed memory of all sizes, each byte 255."""
    blocks = [
        torch.full((1 << size,), 255, dtype=torch.uint8, device="cuda") for size in range(9, 26) for _ in range(4)
    ]
    del blocks


def assert_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(integers(ours), integers(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def arguments_of(params: SamplingParams, size: int, vocabulary: int) -> dict[str, Any]:
    if params is not PENALISED:
        return {}
    rng = np.random.default_rng(3)
    return {
        "history": rng.integers(-1, vocabulary, (size, 40)),
        "history_start": rng.integers(0, 40, size),
        "allowed": rng.random((size, vocabulary)) < 0.9,
    }


def test_weights_are_the_processors():
    """A thousandth of all distances, by the GPU's own fused operations. All of them: `alea bench identity`."""
    for start in weights.chunks(every=1024, size=1 << 20):
        weights.check("triton", start)


@pytest.mark.parametrize("size", [1, FEW, MANY])
@pytest.mark.parametrize("name", [*SETTINGS, "penalised"])
def test_a_captured_graph_draws_afresh(name: str, size: int):
    """A replay draws for the position that memory holds: each token of a text, from one capture."""
    params, vocabulary = SETTINGS.get(name, PENALISED), 5003
    x, given = rows("flat", size, vocabulary), arguments_of(SETTINGS.get(name, PENALISED), size, vocabulary)
    position = torch.zeros((), dtype=torch.int64, device="cuda")
    call = dict(on_gpu(given), seed=torch.tensor(11, device="cuda"), position=position, on_invalid="mark")
    logits, packed = x.cuda(), pack(params)
    out, graph = captured(lambda: sample(logits, packed, **call))
    drawn = []
    for _ in range(100):
        graph.replay()
        drawn.append([column.clone() for column in out[:4]])
        position += 1
    some = list({0, size // 2, size - 1})
    part = {name: value[some] for name, value in given.items()}
    for step in range(0, 100, 1 if size < MANY else 25):
        theirs = sample(x[some], params, seed=11, position=step, stream=some, backend="reference", **part)
        for ours, exact in zip(drawn[step], theirs[:4], strict=True):
            assert torch.equal(ours[some].cpu(), exact), f"position {step}"
    tokens = torch.stack([columns[0] for columns in drawn])  # [100, size]
    least, most = DISTINCT.get(name, (80, 100))
    assert all(least <= len(set(column)) <= most for column in tokens.T.tolist())


def captured(call: Callable[[], Any]) -> tuple[Any, torch.cuda.CUDAGraph]:
    """A call in a graph, after one on a side stream that compiles and lays out what is kept."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    return out, graph


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("size", [1, FEW, MANY])
@pytest.mark.parametrize("name", [*SETTINGS, "penalised"])
def test_nothing_waits_for_the_gpu(name: str, size: int, details: bool):
    params = SETTINGS.get(name, PENALISED)
    logits = rows("normal", size, 4099).cuda()
    packed, seeds = pack(params), torch.arange(size, device="cuda")
    changes = on_gpu(arguments_of(params, size, 4099))
    call = dict(changes, seed=seeds, position=seeds, stream=seeds, details=details)
    sample(logits, packed, on_invalid="mark", **call)  # compiles, and lays out what is kept
    filter_logits(logits, packed, on_invalid="mark", **changes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample(logits, packed, on_invalid="mark", **call)
        filter_logits(logits, packed, on_invalid="mark", **changes)
        with pytest.raises(RuntimeError, match="synchroniz"):  # the negative control: to raise, it must wait
            sample(logits, packed, on_invalid="raise", **call)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["peaked", "flat", "tied", "riddled"])
def test_one_row_of_any_size(kind: str, dtype: torch.dtype):
    for vocabulary in (1, 2, 127, 128, 129, 4095, 4097, 32_000, 128_256, 262_144):
        x = rows(kind, 1, vocabulary).to(dtype)
        poison()
        assert_equal(sample(x.cuda(), CHAIN, seed=vocabulary), sample(x, CHAIN, seed=vocabulary, backend="reference"))


def test_a_million_tokens():
    x = rows("normal", 2, 1 << 20)
    for params in (SETTINGS["none"], SETTINGS["top_p"]):
        assert_equal(sample(x.cuda(), params, seed=5), sample(x, params, seed=5, backend="reference"))


def test_seventy_thousand_rows():
    """More than a grid's second dimension holds; a row among many draws what it draws alone."""
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((70_000, 5), np.float32))
    poison()
    out, filtered = sample(x.cuda(), CHAIN, seed=1), filter_logits(x.cuda(), CHAIN).cpu()
    assert ((out.tokens >= 0) & (out.tokens < 5) & (out.kept >= 1) & (out.weight <= out.total)).all()
    some = [0, 1, 65_534, 65_535, 65_536, 69_999, *range(7, 70_000, 700)]
    alone = sample(x[some], CHAIN, seed=1, stream=some, backend="reference")
    for ours, theirs in zip(out[:4], alone[:4], strict=True):
        assert torch.equal(ours[some].cpu(), theirs)
    assert torch.equal(filtered[some], filter_logits(x[some], CHAIN, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_views(dtype: torch.dtype):
    """Every view gives what a copy of it gives; some begin at addresses that no wide load may start at."""
    big = rows("normal", 6, 4999).to(dtype)
    views = [lambda x: x[::2], lambda x: x[1:, 7:], lambda x: x[:, ::3], lambda x: x[2].expand(3, -1)]
    views += [lambda x: x.T[:4], lambda x: x[:, :1], lambda x: x[:, 1:4097], lambda x: x[5], lambda x: x[:, -4096:]]
    on_device = big.cuda()
    for view in views:
        poison()
        assert_equal(
            sample(view(on_device), CHAIN, seed=3), sample(view(big).clone(), CHAIN, seed=3, backend="reference")
        )


def test_rows_beyond_two_to_the_31():
    """Offsets need 64 bits: three rows of a matrix with 2.7·10^9 elements."""
    if torch.cuda.mem_get_info()[0] < 8 << 30:
        pytest.skip("needs 8 GiB of free GPU memory")
    big = torch.empty((41_000, 65_536), dtype=torch.bfloat16, device="cuda")
    x = rows("normal", 3, 65_536).bfloat16()
    far = big[:: 41_000 // 2 - 1][:3]
    far.copy_(x)
    assert_equal(sample(far, CHAIN, seed=2), sample(x, CHAIN, seed=2, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "vocabulary"), [(1, 1), (3, 8_193), (5, 128_256), (MANY, 32_001)])
@pytest.mark.parametrize("name", ["none", "top_p"])
def test_one_read(name: str, size: int, vocabulary: int, dtype: torch.dtype, monkeypatch):
    """Programs that wait for each other draw what two launches draw, several times in a row; also the reference's."""
    from samplers.kernels import one_read

    x = rows("normal", min(size, 5), vocabulary).to(dtype).repeat(-(-size // 5), 1)[:size].contiguous()
    expected = sample(x.cuda(), SETTINGS[name], seed=3)
    assert_equal(sample(x[:3].cuda(), SETTINGS[name], seed=3), sample(x[:3], SETTINGS[name], seed=3))
    monkeypatch.setattr(one_read, "is_used", lambda *_: True)
    for _ in range(3):
        poison()
        assert_equal(sample(x.cuda(), SETTINGS[name], seed=3), expected)


@pytest.mark.parametrize("size", [1, 8, MANY])
@pytest.mark.parametrize("name", ["none", "top_p", "chain"])
def test_the_same_again(name: str, size: int):
    """A result that moves is a race: 300 calls in a row must agree to the bit."""
    x = rows("peaked", size, 32_003).cuda()
    first = sample(x, SETTINGS[name], seed=9)
    differing = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(300 if size < MANY else 50):
        again = sample(x, SETTINGS[name], seed=9, on_invalid="mark")
        for a, b in zip(first[:4], again[:4], strict=True):
            differing += (a != b).sum()
    assert int(differing) == 0


def test_on_another_stream():
    x = rows("normal", FEW, 10_007)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        out = sample(x.to("cuda", non_blocking=True), CHAIN, seed=4, on_invalid="mark")
    stream.synchronize()
    assert_equal(out, sample(x, CHAIN, seed=4, backend="reference"))


def test_invalid_rows_are_marked():
    x = rows("normal", 5, 300)
    x[1, 299], x[2, 0], x[3] = torch.nan, torch.inf, -torch.inf
    out = sample(x.cuda(), CHAIN, seed=1, details=True, on_invalid="mark")
    assert_equal(out, sample(x, CHAIN, seed=1, details=True, on_invalid="mark", backend="reference"))
    assert out.tokens.tolist()[1:4] == [-1] * 3 and out.logprobs[1:4].isnan().all()


GOLDEN = read("rows") + read("penalties") + read("clamped")


@pytest.mark.parametrize("part", range(10))
def test_golden_rows(part: int):
    for golden in GOLDEN[part::10]:
        x = torch.from_numpy(golden.logits).cuda()
        out = sample(x, golden.params, **golden.seeds, **golden.changes, on_invalid="mark")
        assert tuple(int(column[0]) for column in out[:4]) == golden.drawn
        if golden.kept_digest is not None:
            assert_kept(x, golden)


def assert_kept(x: torch.Tensor, golden: GoldenRow) -> None:
    filtered = filter_logits(x, golden.params, **golden.changes)
    assert digest(filtered[0].cpu().numpy() > -np.inf) == golden.kept_digest
