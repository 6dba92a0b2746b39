"""`alea bench decode` end to end at toy size; figures are not judged here, only that they are told truly."""

import json

import pytest

from bench import measure
from bench.speed import decode
from model.cli import main


def test_interleaved_rounds():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = measure.interleaved(functions, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_records_are_lines_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert main(["bench", "decode", "--batch", "2", "--rounds", "2", "-n", "4", "--save"]) == 0
    record = json.loads((tmp_path / "decode.jsonl").read_text())
    assert {"benchmark", "batch", "tokens_a_second", "commit", "dirty", "machine", "versions", "time"} <= record.keys()
    assert record["tokens_a_second"].keys() == {"alea", "transformers"}
    assert "alea / transformers" in capsys.readouterr().out.replace("\n", " ")


def test_wrong_contestants_are_not_timed():
    with pytest.raises(RuntimeError, match="b and alea differ"):
        decode.check({"alea": lambda n: [[1]], "b": lambda n: [[2]]})
