"""`python -m bench.gpu` with a stopwatch that runs on the CPU; on a GPU, with its own. No figure is judged.

Oracle of its verification: a sampler that is wrong.
"""

import json
from typing import Any

import pytest
import torch

from bench import gpu, gpu_peers
from bench.cases import FILTERS, Case


class Stopwatch:
    """Of the CPU: calls what it is given and makes figures up."""

    device, name, l2 = torch.device("cpu"), "none", 0

    def bandwidth(self) -> float:
        return 1e9

    def captured(self, call: gpu_peers.Call) -> gpu_peers.Call | None:
        return None if "multinomial" in call.__qualname__ else call

    def cold(self, call: gpu_peers.Call) -> list[float]:
        assert call().dtype == torch.int64
        return [4.0, 1.0, 2.0, 3.0, 5.0, 6.0]

    hot = waited = cold


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu, "VOCABULARIES", (600, 300))
    monkeypatch.setattr(gpu, "BATCHES", (1, 20))
    gpu.rows.cache_clear()
    gpu.unfit_peers.cache_clear()
    yield
    gpu.rows.cache_clear()
    gpu.unfit_peers.cache_clear()


def test_records_are_lines_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "stopwatch", Stopwatch)
    assert gpu.main(["--out", str(tmp_path / "new")]) == 0
    records = [json.loads(line) for line in (tmp_path / "new/gpu.jsonl").read_text().splitlines()]
    assert len(records) == len(list(gpu.cases())) == 2 * 2 * 2 * 2 * len(FILTERS)
    for record in records:
        assert {"commit", "machine", "versions", "time", "bandwidth", "bytes", "read_limit"} <= record.keys()
        assert record["microseconds"].keys() == {"alea", "torch", "torch.multinomial"}
        assert record["skipped"].keys() == {"flashinfer"} and "flashinfer" in record["skipped"]["flashinfer"]
        assert record["microseconds"]["alea"]["cold"] == {"p20": 2.0, "p50": 3.5, "p80": 5.0}
        graphs = {name: figures["graph"] for name, figures in record["microseconds"].items()}
        assert graphs == {"alea": True, "torch": True, "torch.multinomial": False}
    assert records[0]["bytes"] == 2400 and records[0]["read_limit"] == 2.4
    out = capsys.readouterr().out
    assert "peaked  float32        600     1" in out and "3.5 69% 1.0×" in out and "left out" not in out


def test_what_there_was_no_time_for_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "stopwatch", Stopwatch)
    clock = iter(range(1000))
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    assert gpu.main(["--seconds", "3", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = [line for line in lines if line.startswith("left out, its time was up: ")]
    assert len((tmp_path / "gpu.jsonl").read_text().splitlines()) == 3 and len(left_out) == 61
    assert left_out[0].endswith("peaked float32, V = 600, batch 1, all")


def test_rows_lie_apart_and_differ():
    x = gpu.rows("peaked", 300, 20, "bfloat16", torch.device("cpu"))
    assert x.shape == (20, 300) and x.dtype == torch.bfloat16 and x.is_contiguous()
    assert len({tuple(row.tolist()) for row in x}) == 20
    assert torch.equal(x[:8], Case("peaked", 300, 8, dtype="bfloat16").logits)


@pytest.mark.parametrize("filters", FILTERS)
def test_wrong_draws_are_not_timed(filters: str, monkeypatch):
    def greedy(case: Case, x: torch.Tensor, position: torch.Tensor) -> gpu_peers.Call:
        return lambda: x.argmax(-1)

    monkeypatch.setitem(gpu_peers.PEERS, "torch", greedy)
    reasons = gpu.unfit_peers("peaked", filters, "float32", torch.device("cpu"))
    assert reasons.keys() == {"torch", "flashinfer"} and "draws from another distribution" in reasons["torch"]
    gpu.unfit_peers.cache_clear()
    monkeypatch.setattr(gpu_peers, "alea", greedy)
    with pytest.raises(RuntimeError, match="alea and the reference differ"):
        gpu.unfit_peers("peaked", filters, "float32", torch.device("cpu"))


def test_dry_run(capsys):
    assert gpu.main(["--dry-run", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "peaked float32, V = 300, batch 1, none"


def test_wrong_options():
    with pytest.raises(ValueError, match=r"--seconds must be > 0, got 0\.0"):
        gpu.main(["--seconds", "0"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises(RuntimeError, match=r"needs a GPU: torch\.cuda\.is_available\(\) is False"):
        gpu.main([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")
def test_the_stopwatch():
    from bench.stopwatch import Stopwatch

    watch: Any = Stopwatch()
    x = torch.zeros(1 << 24, device="cuda")
    graph = watch.captured(lambda: x.add_(1))
    before = int(x[0])
    for clock in (watch.cold, watch.hot, watch.waited):
        assert min(clock(graph)) > 10  # 128 MiB are not read and written faster
    assert int(x[0]) > before
    assert watch.captured(lambda: x.sum().item()) is None
    assert 1e11 < watch.bandwidth() < 1e14
