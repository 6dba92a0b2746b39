"""`python -m bench.speed.gpu`: toy cases by the clock of the host, and on a GPU its stopwatch. No figure is judged.

Oracle of its verification: a sampler that is wrong. `make gpu-toy` runs the whole of `bench/gpu.sh`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import peers, records
from bench.cases import FILTERS, Case
from bench.peers.base import DrawOnGpu
from bench.speed import gpu, stopwatch
from samplers.backends.contract import Columns
from samplers.batch import Batch
from tests.bench.command import saved
from tests.conftest import ROOT, require


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu, "VOCABULARIES", (600, 300))
    monkeypatch.setattr(gpu, "BATCHES", (1, 20))
    monkeypatch.setattr(gpu, "BACKEND", "auto")
    gpu.rows.cache_clear()
    gpu.unfit_peers.cache_clear()
    yield
    gpu.rows.cache_clear()
    gpu.unfit_peers.cache_clear()


def test_what_there_was_no_time_for_is_named(tmp_path, monkeypatch, capsys):
    """The first case is made up; then the time is over."""
    clock = iter([0.0, 1.0, *[9.0] * 100])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(gpu, "stopwatch", stopwatch.HostStopwatch)
    times = {"alea": {"cold": {"p50": 4.0}}, "torch": {"cold": {"p50": 8.0}}}
    case = {"kind": "peaked", "dtype": "float32", "vocabulary": 600, "batch": 1, "filters": "none"}
    monkeypatch.setattr(gpu, "measured", lambda *_: {**case, "read_limit": 2.0, "microseconds": times})
    assert gpu.main(["--seconds", "3", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert len(saved(tmp_path, "gpu")) == 1 and "4.0 50% 2.0×" in printed
    assert printed.count("left out: ") == 63 and "left out: peaked float32, V = 600, batch 1, k50+p.9\n" in printed


def test_rows_lie_apart_and_differ():
    x = gpu.rows("peaked", 300, 20, "bfloat16", torch.device("cpu"))
    assert x.shape == (20, 300) and x.dtype == torch.bfloat16 and x.is_contiguous()
    assert len({tuple(row.tolist()) for row in x}) == 20
    assert torch.equal(x[:8], Case("peaked", 300, 8, dtype="bfloat16").logits)


@pytest.mark.parametrize("filters", FILTERS)
def test_wrong_draws_are_not_timed(filters: str, monkeypatch):
    def greedy(case: Case, x: torch.Tensor, position: torch.Tensor) -> DrawOnGpu:
        return lambda: x.argmax(-1)

    monkeypatch.setitem(peers.GPU_PEERS, "torch", greedy)
    reasons = gpu.unfit_peers("peaked", filters, "float32", torch.device("cpu"))
    assert reasons.keys() == {"torch", "flashinfer"} and "draws from another distribution" in reasons["torch"]
    gpu.unfit_peers.cache_clear()
    monkeypatch.setattr(gpu, "on_gpu", greedy)
    with pytest.raises(RuntimeError, match="alea and the reference differ"):
        gpu.unfit_peers("peaked", filters, "float32", torch.device("cpu"))


def test_dry_run(capsys):
    assert gpu.main(["--dry-run", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "peaked float32, V = 300, batch 1, none"


@pytest.fixture
def toy(monkeypatch):
    """Two tiny cases."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and its kernels are compiled in this process")
    require("triton")
    monkeypatch.setattr(gpu, "BACKEND", "triton")
    monkeypatch.setattr(gpu, "TOY_VOCABULARIES", (40, 51))
    monkeypatch.setattr(gpu, "TOY_EVERY", 5)


@pytest.mark.exhaustive
def test_a_toy_run_is_marked(toy, tmp_path, capsys):
    assert gpu.main(["--toy", "--quick", "--out", str(tmp_path)]) == 0
    found = saved(tmp_path, "gpu")
    assert [(record["vocabulary"], record["filters"]) for record in found] == [(40, "none"), (51, "k50+p.9")]
    for record in found:
        assert {"commit", "machine", "versions", "time", "bandwidth", "bytes", "read_limit"} <= record.keys()
        assert record["skipped"].keys() == {"flashinfer"} and "flashinfer" in record["skipped"]["flashinfer"]
        assert record["bytes"] == 4 * record["vocabulary"] * record["batch"]
        assert record["toy"] is True and record["machine"]["gpu"] == "Triton interpreter"
        ours = {"alea", gpu.ONE_READ} if record["filters"] == "none" else {"alea"}  # with top-k no row is weighed
        assert record["microseconds"].keys() == {*ours, "torch", "torch.multinomial"}
        for figures in record["microseconds"].values():
            assert figures["graph"] is False and min(figures[name]["p20"] for name in ("waited", "cold", "hot")) > 0
        for name in gpu.COUNTERS:
            assert record[name] == dict.fromkeys(record["microseconds"])
    out = capsys.readouterr().out
    assert gpu.TOY_CAPTION in out and "empty L2" not in out and "left out" not in out


def test_a_toy_run_holds_the_kernels_against_the_reference(toy, tmp_path, monkeypatch):
    from samplers.backends import triton

    def wrong(batch: Batch, details: bool) -> Columns:
        columns = sample(batch, details)
        return columns._replace(tokens=39 - columns.tokens)

    sample = triton.sample
    monkeypatch.setattr(triton, "sample", wrong)
    with pytest.raises(RuntimeError, match=r"tokens must be the reference's .* nothing was measured"):
        gpu.main(["--toy", "--quick", "--out", str(tmp_path)])
    assert not (tmp_path / "gpu.jsonl").exists()


def test_toy_cases_have_some_of_all():
    chosen = list(gpu.cases(toy=True))
    assert {case.filters for case in chosen} == set(FILTERS) and len(chosen) < 10
    assert {case.vocabulary for case in chosen} == set(gpu.TOY_VOCABULARIES)
    assert {case.batch for case in chosen} == set(gpu.TOY_BATCHES)
    assert {(case.kind, case.dtype) for case in chosen} == {(kind, dtype) for kind in gpu.KINDS for dtype in gpu.DTYPES}


def test_toys_are_kept_from_the_records():
    for arguments in (["--toy"], ["--toy", "--out", f"{records.RESULTS}/../results"]):
        with pytest.raises(ValueError, match=r"--out must be another folder with --toy, got .*results"):
            gpu.main(arguments)


def test_the_stopwatch_of_the_host():
    watch, calls = stopwatch.HostStopwatch(), []
    for clock in (watch.waited, watch.cold, watch.hot):
        times = clock(lambda: calls.append(0))
        assert len(times) == stopwatch.TOY_RUNS >= 2 and min(times) > 0
    assert len(calls) == 3 * stopwatch.TOY_RUNS
    assert watch.bandwidth() > 1e6
    unknown = [watch.captured, *(getattr(watch, name) for name in gpu.COUNTERS)]
    assert [method(lambda: calls.append(0)) for method in unknown] == [None] * 4


class Driver:
    """Of a graph with five nodes; `state` is what its calls return, 0 if they succeed."""

    def __init__(self, state: int) -> None:
        self.state = state

    def cuGraphGetNodes(self, graph: Any, nodes: None, count: Any) -> int:  # noqa: N802
        if self.state == 0:
            count._obj.value = graph.value - 0x7F00_0000_0000
        return self.state


def test_nodes_of_a_graph():
    assert stopwatch.nodes(0x7F00_0000_0005, Driver(0)) == 5
    assert stopwatch.nodes(0x7F00_0000_0005, Driver(1)) is None
    assert stopwatch.nodes(0x7F00_0000_0005, None) is None


def test_wrong_options():
    with pytest.raises(ValueError, match=r"--seconds must be > 0, got 0\.0"):
        gpu.main(["--seconds", "0"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises(RuntimeError, match=r"needs a GPU: torch\.cuda\.is_available\(\) is False; --dry-run .* --toy "):
        gpu.main([])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("argument", "message"),
    [([], "bench/gpu.sh needs a GPU, and .* bench/gpu.sh --toy"), (["--quick"], "nothing or --toy, got --quick")],
)
def test_the_script_refuses(argument: list[str], message: str, tmp_path: Path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path / "new"), "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(ROOT / "bench/gpu.sh"), *argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode > 0 and not done.stdout and not (tmp_path / "new").exists()
    assert re.search(message, done.stderr)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")
def test_the_stopwatch():
    watch: Any = stopwatch.Stopwatch()
    x = torch.zeros(1 << 24, device="cuda")
    graph = watch.captured(lambda: x.add_(1))
    before = int(x[0])
    for clock in (watch.cold, watch.hot, watch.waited):
        assert min(clock(graph)) > 10  # 128 MiB are not read and written faster
    assert int(x[0]) > before
    assert watch.captured(lambda: x.sum().item()) is None
    assert watch.waits(lambda: x.sum().item()) and not watch.waits(lambda: x.add_(1))
    assert watch.launches(lambda: x.sum().item()) is None
    assert watch.launches(lambda: x.add_(1).mul_(2)) == 2
    assert watch.temporary_bytes(lambda: x + 1) == 1 << 26 and watch.temporary_bytes(lambda: x.add_(1)) == 0
    assert 1e11 < watch.bandwidth() < 1e14
