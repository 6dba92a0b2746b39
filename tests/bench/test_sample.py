"""`alea bench sample` end to end at toy size; figures are not judged here, only that they are of draws that are right.

Oracle of `verify`: contestants that are wrong in one known way each.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import samplers
from bench import goals, measure, peers, sample
from bench.cases import FILTERS, Case
from bench.verify import verify

SMALL = Case(vocabulary=300, batch=2, filters="k50+p.9")


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """The command sets torch's threads and seed, being alone in its process."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    return sample.run(parser.parse_args(words))


def test_records_are_lines_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert run("--quick", "--vocabulary", "300", "--batch", "2", "--save") == 0
    records = [json.loads(line) for line in (tmp_path / "sample.jsonl").read_text().splitlines()]
    assert [record["filters"] for record in records] == list(FILTERS)
    for record in records:
        assert record.keys() >= {"kind", "dtype", "kept", "rounds", "commit", "dirty", "machine", "versions", "time"}
        assert (record["benchmark"], record["vocabulary"], record["batch"]) == ("sample", 300, 2)
        contestants = record["microseconds"].keys() | record["skipped"].keys()
        assert contestants == peers.OURS.keys() | peers.PEERS.keys() | peers.LIMITS.keys()
        assert {"max", "alea", "torch", "transformers"} <= record["microseconds"].keys()
        assert all(0 < q["p20"] <= q["p50"] <= q["p80"] for q in record["microseconds"].values())
        assert record["versions"].keys() >= {"torch", "transformers", "llama-cpp-python"}
    printed = capsys.readouterr().out
    assert "µs a call" in printed and "V = 300, batch 2, k50+p.9" in printed and "skipped: llama.cpp" in printed


RIGHT = [
    *(("peaked", filters, "float32") for filters in FILTERS),
    *((kind, filters, "float32") for kind in ("flat", "tied", "normal") for filters in ("p.9", "all")),
    ("peaked", "k50+p.9", "bfloat16"),
]


@pytest.mark.parametrize(("kind", "filters", "dtype"), RIGHT)
def test_every_contestant_is_right(kind: str, filters: str, dtype: str):
    case = Case(kind, vocabulary=600, batch=2, filters=filters, dtype=dtype)  # beyond torch's first guess at top-p
    verify(case, sample.prepared(peers.OURS | peers.PEERS, case)[0], peers.OURS | peers.PEERS)


def unfiltered(case: Case) -> peers.Draw:
    return lambda step: torch.multinomial(torch.softmax(case.logits / case.params.temperature, -1), 1)[:, 0]


def greedy(case: Case) -> peers.Draw:
    return lambda step: case.logits.argmax(-1)


def hot(case: Case) -> peers.Draw:
    kept = samplers.filter_logits(case.logits, case.params)
    return lambda step: torch.multinomial(torch.softmax(0.7 * kept, -1), 1)[:, 0]


def another_seed(case: Case) -> peers.Draw:
    return lambda step: samplers.sample(case.logits, case.params, seed=peers.SEED + 1, position=step).tokens


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("transformers", unfiltered, "transformers draws tokens that the filters cut"),
        ("transformers", greedy, "transformers draws from another distribution"),
        ("transformers", hot, "transformers draws from another distribution"),
        ("kernel", another_seed, "kernel and the reference differ in tokens"),
    ],
)
def test_wrong_contestants_are_not_timed(monkeypatch, name: str, wrong: Any, message: str):
    monkeypatch.setitem(peers.OURS if name in peers.OURS else peers.PEERS, name, wrong)
    monkeypatch.setattr(measure, "interleaved", lambda *_: pytest.fail("timed all the same"))
    with pytest.raises(RuntimeError, match=message):
        sample.measured_case(SMALL, rounds=2)


def test_fast_calls_are_repeated():
    steps = []
    seconds = sample.seconds_a_call({"fast": steps.append}, rounds=2)
    assert len(steps) > 100 and steps[4:] == list(range(len(steps) - 4))  # every call at a position of its own
    assert all(s < sample.LEAST_SECONDS for s in seconds["fast"])


def test_goals():
    def record(filters: str, **microseconds: float) -> dict[str, Any]:
        times = {name.replace("llama", "llama.cpp"): {"p50": value} for name, value in microseconds.items()}
        return {"kind": "peaked", "vocabulary": 32000, "batch": 1, "filters": filters, "microseconds": times}

    records = [record("k50+p.9", kernel=10.0, max=5.0, llama=40.0), record("p.9", kernel=10.0, llama=119.0)]
    verdicts = list(goals.verdicts(records))
    for expected in (
        "holds: llama.cpp / kernel >= 4 (peaked, k50+p.9, batch 1); got 4 in one case",
        "missed: llama.cpp / kernel >= 12 (peaked, p.9, batch 1); got 11.9 in one case",
        "missed: kernel / max <= 1.5 (peaked, k50+p.9, batch 1); got 2 in one case",
        "not measured: kernel / max <= 15 (flat and tied, every filter)",
    ):
        assert expected in verdicts
    assert sample.show_goals(records) == 1
    assert sample.show_goals(records[:0]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rounds 1", "--rounds must be >= 2, got 1"),
        ("--kinds steep", "kind must be one of peaked, flat, tied, normal, got 'steep'"),
        ("--filters none k7", "filters must be one of none, .*, got 'k7'"),
        ("--dtype int8", "dtype must be one of float32, bfloat16, got 'int8'"),
        ("--vocabulary 0", "vocabulary must be in 1 .. 1048576, got 0"),
    ],
)
def test_errors_name_what_is_accepted(words: str, message: str):
    with pytest.raises(ValueError, match=message):
        run(*words.split())
