"""`alea bench conformance` end to end at toy size; what it finds is not judged here, only that it is told truly."""

import pytest
import torch

from bench.exactness import conformance
from samplers import SamplingParams
from samplers.conformance import Finding
from tests.bench.command import run, saved


def test_records_are_lines_of_json(results, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    only = ["alea reference", "transformers", "torch multinomial"]
    assert run(conformance, "--draws", "100", "--save", "--only", *only) == 0
    records = saved(results, "conformance")
    assert [record["sampler"] for record in records] == only
    for record in records:
        assert {"benchmark", "draws", "seed", "findings", "commit", "dirty", "machine", "versions"} <= record.keys()
        assert all({"check", "passed", "statistic", "limit", "message"} == f.keys() for f in record["findings"])
    assert records[1]["findings"][-1] | {"message": ""} == {
        "check": "greedy",
        "passed": None,
        "statistic": None,
        "limit": 0,
        "message": "",
    }
    out = capsys.readouterr().out
    assert "pass*" in out and "—  transformers, greedy: not supported: T=0 (ValueError" in out


def test_infinity_becomes_null():
    assert conformance.in_json(Finding("counts", False, float("inf"), 6.0, ""))["statistic"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--draws", "0"], "--draws must be >= 1, got 0"), (["--only", "dice"], "--only must be among .*, got 'dice'")],
)
def test_wrong_options(words: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        run(conformance, *words)


def test_plain_torch_says_what_it_has_not():
    with pytest.raises(NotImplementedError, match="typical_p"):
        conformance.torch_chain(conformance.gumbel, torch.zeros(1, 3), SamplingParams(typical_p=0.5), 0)
