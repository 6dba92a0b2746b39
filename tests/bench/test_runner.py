"""What benchmarks share. Oracle: a Ctrl-C at the third case leaves the records of two, on the screen and on disk."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import runner
from bench.exactness import conformance
from bench.kernels import kernels
from bench.speed import decode, gpu, hf_step
from model.cli import main
from samplers import DEFINITION
from samplers.backends import native
from samplers.identity import draws, weights
from tests.bench.command import saved

SPEED = {"p20": 1.0, "p50": 2.0, "p80": 3.0}
BOTH = {"stock": SPEED, "attached": SPEED}
COUNTS = {"stock": 9, "attached": 1}
RECORDS: dict[Any, dict[str, Any]] = {
    decode: {
        **dict(shape="tiny", weights="float32", batch=1, new_tokens=4, prefill_tokens=9),
        "tokens_a_second": {"alea": SPEED, "llama.cpp": SPEED},
        "prefill_milliseconds": {"alea": SPEED},
    },
    conformance: {
        "sampler": "dice",
        "draws": 9,
        "findings": [{"check": "tail", "passed": True, "statistic": 0.0, "limit": 6.0, "message": ""}],
    },
    kernels: {
        **dict(target="sm_90", kernel="k", dtype="float32", vocabulary=1, details=False, changes=[], purpose=""),
        **dict(registers=7, shared=0, seconds=0.5, **dict.fromkeys((*kernels.FAULTS, "fused"), 0)),
    },
    hf_step: {
        **dict(batch=1, vocabulary=300, chain="none"),
        **dict.fromkeys(("microseconds", "microseconds_inside", "generate_ms_a_step"), BOTH),
        **dict.fromkeys(("operators", "computing_operators", "host_syncs"), COUNTS),
    },
}


def stopped_at_the_third(result: Any) -> Callable[..., Any]:
    """What measures a case; its user is impatient."""
    calls: list[None] = []

    def measured(*_: Any, **__: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    return measured


@pytest.fixture(autouse=True)
def wide(results, monkeypatch) -> None:
    """No line is broken, and no record is left."""
    monkeypatch.setenv("COLUMNS", "160")


def test_collect(results, capsys):
    measured, shown = stopped_at_the_third({"figure": 1}), list[int]()
    records = runner.collect("toy", range(4), measured, True, lambda _: shown.append(len(saved(results, "toy"))))
    assert records == saved(results, "toy") and shown == [1, 2]  # each was written before it was shown
    for record in records:
        assert (record["benchmark"], record["figure"]) == ("toy", 1)
        assert record.keys() >= {"time", "commit", "dirty", "machine", "versions"}
    assert "stopped: 2 of 4 cases were measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "measuring", "words", "shown"),
    [
        (decode, "measured", "--batch 1 2 3 4 --weights float32", "tiny float32 1 2 – – 2 1.00 × 2 / – / – / –"),
        (conformance, "measured", "--draws 9", "dice 9 pass"),
        (hf_step, "measured", "--vocabulary 300 --batch 1", "1 300 none 2 / 2"),
        (kernels, "measured", "--quick", "sm_90 k float32, odd V 7"),
        (kernels, "measured", "--quick --json", '"target": "sm_90"'),
    ],
)
def test_what_was_measured_before_a_ctrl_c_is_kept(results, capsys, monkeypatch, module, measuring, words, shown):
    measured = stopped_at_the_third(RECORDS[module])

    def one_after_the_other(*_: Any) -> Iterator[Any]:
        while True:
            yield measured()

    monkeypatch.setattr(module, measuring, one_after_the_other if module is kernels else measured)
    name = "hf" if module is hf_step else module.__name__.split(".")[-1]
    assert main(["bench", name, *words.split(), "--save"]) == 0
    assert len(saved(results, name)) == 2
    captured = capsys.readouterr()
    assert "stopped: 2 of " in captured.err and "saved 2 records" in captured.out
    assert " ".join(captured.out.split()).count(shown) == 2


@pytest.fixture
def no_distances(monkeypatch):
    """The rows alone: all 1.1·10^9 distances take a minute."""
    monkeypatch.setattr(weights, "chunks", lambda every: range(0))


def test_distances_that_were_equal_before_a_ctrl_c_are_told(results, capsys, monkeypatch):
    monkeypatch.setattr(weights, "check", stopped_at_the_third(1 << 20))
    assert main(["bench", "identity", "--save"]) == 0
    assert "2,097,152 distances: native has the weights" in capsys.readouterr().out
    (record,) = saved(results, "identity")
    assert (record["distances"], record["rows"], record["definition"]) == (1 << 21, 0, DEFINITION)


def test_rows_that_were_equal_before_a_ctrl_c_are_told(results, capsys, monkeypatch, no_distances):
    monkeypatch.setattr(draws, "check", stopped_at_the_third(1_013))
    assert main(["bench", "identity", "--rows", "5000", "--save"]) == 0
    assert "2,026 rows: native equals the reference to the bit" in capsys.readouterr().out
    (record,) = saved(results, "identity")
    assert (record["rows"], record["mismatches"]) == (2026, 0)


def test_no_row_compared_is_no_record(results, monkeypatch, no_distances):
    monkeypatch.setattr(draws, "check", stopped_at_the_third(1_013))
    draws.check(), draws.check()
    assert main(["bench", "identity", "--save"]) == 0
    assert not (results / "identity.jsonl").exists()


def test_each_part_has_rows_of_its_own(monkeypatch, no_distances):
    """All rows that were asked for, and none generated twice."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(draws, "check", lambda *call: calls.append(call) or call[1])
    assert main(["bench", "identity", "--rows", "2500", "--seed", "7"]) == 0
    assert [rows for _, rows, _ in calls] == [1000, 1000, 500]
    assert calls[0][2] == 7 and len({seed for _, _, seed in calls}) == 3


def test_a_gpu_that_a_ctrl_c_stops(tmp_path, capsys, monkeypatch):
    figures = {"kind": "peaked", "dtype": "float32", "vocabulary": 9, "batch": 1, "filters": "none", "read_limit": 1.0}
    figures["microseconds"] = {"alea": {"cold": SPEED}}
    monkeypatch.setattr(gpu, "measured", stopped_at_the_third(figures))
    monkeypatch.setattr(gpu, "environment", lambda watch: {})
    monkeypatch.setattr(gpu, "stopwatch", lambda: None)
    assert gpu.main(["--quick", "--out", str(tmp_path)]) == 0
    assert len(saved(tmp_path, "gpu")) == 2
    assert capsys.readouterr().out.count("left out: ") == len(list(gpu.cases(quick=True))) - 2


def test_options_that_have_a_least_value():
    arguments = argparse.Namespace(rounds=2, new_tokens=0, threads=None)
    runner.check_least(arguments, rounds=2, threads=1)
    with pytest.raises(ValueError, match="--new-tokens must be >= 1, got 0"):
        runner.check_least(arguments, rounds=2, new_tokens=1)


@pytest.mark.parametrize("command", [["identity", "--rows", "10"], ["isa", "--quick"]])
def test_without_the_extension_it_says_why(capsys, monkeypatch, command):
    """The reason that `samplers.backends` gives, in a line, and no traceback."""
    monkeypatch.setattr(native, "_reason", "not built here")
    assert main(["bench", *command]) == 2
    assert "backend 'native' can't run here: not built here" in capsys.readouterr().err
