"""Oracles: lines with a known slope; samplers that are wrong."""

import pytest

from bench import peers
from bench.cases import Case
from bench.peers.base import DrawTokens
from bench.speed import growth
from tests.bench.command import run, saved


def test_records_are_lines_of_json(results, monkeypatch, capsys):
    monkeypatch.setattr(growth, "VOCABULARIES", [300, 0, 600])
    monkeypatch.setattr(growth, "BATCHES", [1, 0, 3])
    monkeypatch.setattr(growth, "SHORT", 200)
    assert run(growth, "--quick", "--save") == 0
    records = saved(results, "growth")
    assert [(r["scan"], r["contestant"]) for r in records] == [
        (scan, name) for scan in ("vocabulary", "batch") for name in ("alea", "torch")
    ]
    for record in records:
        sizes = [(point["vocabulary"], point["batch"]) for point in record["points"]]
        assert sizes == ([(300, 1), (600, 1)] if record["scan"] == "vocabulary" else [(200, 1), (200, 3)])
        assert all(point["microseconds"]["p50"] > 0 for point in record["points"])
        assert record["fit"].keys() == {"us_per_thousand", "fixed_us"} and record["filters"] == "k50+p.9"
    printed = capsys.readouterr().out
    assert "µs per thousand logits" in printed and "alea, k50+p.9, by vocabulary" in printed


@pytest.mark.parametrize(("slope", "fixed"), [(2.0, 10.0), (0.5, 0.0), (3.0, -1.0)])
def test_fit(slope: float, fixed: float):
    logits = [1000, 4000, 16000, 10**6]
    found = growth.fit(logits, [slope * n / 1000 + fixed for n in logits])
    assert found == pytest.approx((slope, fixed), rel=1e-9, abs=1e-9)


def test_small_calls_count_as_much_as_large_ones():
    """A large call that is 10 % off moves the fixed part by less than 10 % of the small call."""
    times = [12.0, 30.0, 1.1 * 2010.0]
    assert growth.fit([1000, 10_000, 1_000_000], times)[1] == pytest.approx(10, rel=0.12)


@pytest.mark.parametrize("name", ["alea", "transformers"])
def test_wrong_samplers_are_not_timed(monkeypatch, name: str):
    def greedy(case: Case) -> DrawTokens:
        return lambda step: case.logits.argmax(-1)

    monkeypatch.setitem(peers.OURS if name in peers.OURS else peers.PEERS, name, greedy)
    with pytest.raises(RuntimeError, match=f"{name} "):
        growth.measured(("vocabulary", "p.9", name), {"vocabulary": [(300, 1)]}, rounds=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--contestants alea us", "--contestants must be among kernel, .*, got 'us'"),
        ("--rounds 1", "--rounds must be >= 2, got 1"),
        ("--filters k7", "filters must be one of none, .*, got 'k7'"),
    ],
)
def test_errors_name_what_is_accepted(words: str, message: str):
    with pytest.raises(ValueError, match=message):
        run(growth, *words.split())
