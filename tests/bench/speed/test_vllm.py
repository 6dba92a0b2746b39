"""`alea bench vllm` without vLLM: what it says then, and its table. Oracle: records written by hand."""

import sys

import pytest

from bench.speed import goals, vllm
from tests.bench import command


def record(batch: int, stock: float, alea: float) -> dict[str, object]:
    times = {"stock": {"p50": stock}, "alea": {"p50": alea}}
    return {"vocabulary": 32000, "batch": batch, "filters": "k50+p.9", "milliseconds": times}


def test_without_vllm_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    for name in vllm.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"alea bench vllm needs vLLM: pip install 'alea-sampling\[vllm\]'"):
        command.run(vllm, "--quick")


def test_the_table():
    assert vllm.table([record(16, 74.71, 0.444)])[1] == [["16", "32,000", "k50+p.9", "74.7", "0.444", "168 ×"]]


def test_the_goals_bound_the_ratio():
    verdicts = list(goals.verdicts(goals.GOALS["vllm"], [record(16, 74.7, 0.4), record(1, 1.0, 2.0)]))
    assert [verdict.split(":")[0] for verdict in verdicts] == [goals.HOLDS, goals.MISSED]
