"""`alea bench decode` end to end at toy size; figures are not judged here, only that they are told truly."""

import pytest

from bench.speed import decode, timing
from model.cli import main
from tests.bench.command import saved


def test_interleaved_rounds():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = timing.interleaved(functions, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_records_are_lines_of_json(results, monkeypatch, capsys):
    assert main(["bench", "decode", "--batch", "2", "--rounds", "2", "-n", "4", "--save"]) == 0
    record = saved(results, "decode")[0]
    assert {"benchmark", "batch", "tokens_a_second", "commit", "dirty", "machine", "versions", "time"} <= record.keys()
    assert record["tokens_a_second"].keys() == {"alea", "transformers"}
    assert "alea / transformers" in capsys.readouterr().out.replace("\n", " ")


def test_wrong_peers_are_not_timed():
    with pytest.raises(RuntimeError, match="b and alea differ"):
        decode.check({"alea": lambda n: [[1]], "b": lambda n: [[2]]})
