"""`alea bench hf` end to end at toy size; figures are not judged here, only that they are of draws that are right.

Oracle of `verify`: contestants that are wrong in one known way each. Of `counted`: steps whose operators are known.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, TopKLogitsWarper

import samplers
from bench import report
from bench.cases import CHAINS, Case, switched_on
from bench.peers.base import SEED, DrawTokens
from bench.speed import goals, hf, hf_step
from bench.speed.counters import counted
from samplers.hf import attach, fused
from samplers.hf.chain import Chain
from samplers.hf.options import Options
from tests.bench.command import run, saved

SMALL = Case(vocabulary=300, batch=2)


@pytest.fixture(autouse=True)
def quiet_profiler(monkeypatch) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "6")


@pytest.fixture(scope="module")
def model() -> Any:
    return hf_step.llama(SMALL.vocabulary)


@pytest.mark.exhaustive
def test_records_are_lines_of_json(results, monkeypatch, capsys):
    assert run(hf, "--quick", "--vocabulary", "300", "--batch", "2", "--save") == 0
    records = saved(results, "hf")
    assert [record["chain"] for record in records] == list(CHAINS)
    for record in records:
        assert record.keys() >= {"rounds", "generate_rounds", "commit", "dirty", "machine", "versions", "time"}
        assert (record["benchmark"], record["vocabulary"], record["batch"]) == ("hf", 300, 2)
        for name in ("microseconds", "microseconds_inside", "generate_ms_a_step"):
            assert all(0 < record[name][kind]["p20"] <= record[name][kind]["p80"] for kind in ("stock", "attached"))
        assert record["computing_operators"]["attached"] == 1 < record["computing_operators"]["stock"]
        assert record["operators"]["stock"] > record["operators"]["attached"]
        assert record["host_syncs"]["attached"] == 0
    printed = capsys.readouterr().out
    assert "stock / attached" in printed and all(chain in printed for chain in CHAINS)
    table = report.TABLES["hf"]()
    assert table.startswith("| batch | V | chain |") and table.count("| 2 | 300 |") == len(report.SHOWN_CHAINS)


@pytest.mark.parametrize("chain", CHAINS)
def test_right_ones_pass(model: Any, chain: str):
    step = hf_step.Step(model, SMALL.logits, chain)
    hf_step.verify(step, {"stock": step.stock(), "attached": step.attached()})
    names = [type(processor).__name__ for processor in step.processors]
    assert len(names) == len(switched_on(CHAINS[chain])) and ("TopKLogitsWarper" in names) == (
        "top_k" in switched_on(CHAINS[chain])
    )


def another_seed(step: hf_step.Step) -> DrawTokens:
    return lambda i: samplers.sample(step.logits, step.params, seed=SEED + 1, position=i).tokens


def always_the_same(step: hf_step.Step) -> DrawTokens:
    return lambda i: samplers.sample(step.logits, step.params, seed=SEED).tokens


def least_probable(step: hf_step.Step) -> DrawTokens:
    return lambda i: step.logits.argmin(-1)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("attached", another_seed, "attached and the reference differ in tokens"),
        ("attached", always_the_same, "attached and the reference differ in tokens"),
        ("stock", least_probable, "stock draws tokens that it cut"),
    ],
)
def test_wrong_draws_are_not_timed(monkeypatch, model: Any, name: str, wrong: Any, message: str):
    monkeypatch.setattr(hf_step.Step, name, wrong)
    refused(monkeypatch, model, message)


def test_another_kept_set_is_not_timed(monkeypatch, model: Any):
    build = type(model)._get_logits_processor

    def tighter(self: Any, *arguments: Any, **keywords: Any) -> Any:
        processors = build(self, *arguments, **keywords)
        processors[1] = TopKLogitsWarper(2)
        return processors

    monkeypatch.setattr(type(model), "_get_logits_processor", tighter)
    refused(monkeypatch, model, "attached and stock differ in what they keep")


def test_another_generate_is_not_timed(monkeypatch, model: Any):
    monkeypatch.setattr(hf_step, "attach", lambda model, seed: attach(model, seed=seed + 1))
    refused(monkeypatch, model, "generate and the reference differ in tokens")


def refused(monkeypatch: pytest.MonkeyPatch, model: Any, message: str) -> None:
    monkeypatch.setattr(hf_step, "seconds_a_call", lambda *_: pytest.fail("timed all the same"))
    with pytest.raises(RuntimeError, match=message):
        hf_step.measured((SMALL, "T+k+p"), rounds=2)


ONES, ONE = torch.ones(3), torch.ones(())
SMALL_TEXT, DRAWN = torch.zeros((2, 1), dtype=torch.int64), fused.FusedSampler.drawn
FUSED = fused.FusedSampler(Chain([], samplers.pack(None), []), Options(seed=0), SMALL_TEXT, None, scores=False)


@pytest.mark.parametrize(
    ("step", "operators", "computing", "syncs"),
    [
        (lambda i: ONES.exp(), 1, 1, 0),
        (lambda i: ONES.view(1, 3).detach(), 2, 0, 0),
        (lambda i: ONE.item(), 2, 1, 1),  # which calls _local_scalar_dense
        (lambda i: ONES[ONES > 0], None, None, 1),  # as many as there are
        (lambda i: ONE.is_nonzero(), None, None, 1),
        (lambda i: torch._assert_async(ONE), None, None, 0),  # a GPU is not waited for
        (lambda i: FUSED.drawn(SMALL_TEXT, SMALL.logits, i), None, 1, 0),
    ],
)
def test_counts(step: Callable[..., Any], operators: int | None, computing: int | None, syncs: int):
    counts = counted(step, hf_step.fused_calls_named())
    assert counts["host_syncs"] == syncs
    assert operators in (None, counts["operators"]) and computing in (None, counts["computing_operators"])
    assert fused.FusedSampler.drawn is DRAWN  # as it was


def test_the_stopwatch_sees_every_step(model: Any):
    """Stock and attached, lists within lists counted once; nothing stays patched."""
    before = LogitsProcessorList.__call__, fused.FusedList.__call__, torch.argmax, torch.multinomial
    for attached in (False, True):
        with hf_step.stopwatch() as seconds:
            hf_step.generated(model, 2, "T+k+p", attached, new_tokens=5)
        assert len(seconds) == 5 and min(seconds) > 0
    assert before == (LogitsProcessorList.__call__, fused.FusedList.__call__, torch.argmax, torch.multinomial)


def test_goal(capsys):
    def record(chain: str, stock: float) -> dict[str, Any]:
        times = {"stock": {"p50": stock}, "attached": {"p50": 1.0}}
        return {"chain": chain, "vocabulary": 32000, "batch": 1, "microseconds": times}

    assert goals.check("hf", [record("T+k+p", 50), record("T+p", 49)]) == 0
    assert goals.check("hf", [record("T+k+p", 50), record("T+k+p", 49)]) == 1
    assert goals.check("hf", [record("T+p", 49)]) == 0
    inside = record("T+k+p", 50) | {"microseconds_inside": {"stock": {"p50": 900.0}, "attached": {"p50": 41.0}}}
    assert goals.check("hf", [inside]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    for line in (
        "missed: microseconds_inside: attached <= 40 (chain T+k+p, vocabulary 32000, batch 1); got 41 in one case",
        "holds: stock / attached >= 50 (chain T+k+p); got 50 in one case",
        "missed: stock / attached >= 50 (chain T+k+p); got 49 in the worst of 2 cases",
        "not measured: stock / attached >= 50 (chain T+k+p)",
    ):
        assert line in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rounds 1", "--rounds must be >= 2, got 1"),
        ("--threads 0", "--threads must be >= 1, got 0"),
        ("--chains none T+q", "--chains must be among none, .*, got 'T\\+q'"),
        ("--vocabulary 300 0", "vocabulary must be in 1 .. 1048576, got 0"),
        ("--batch 1 0", "batch must be >= 1, got 0"),
    ],
)
def test_errors_name_what_is_accepted(monkeypatch, words: str, message: str):
    monkeypatch.setattr(hf_step, "measured", lambda *_: pytest.fail("measured all the same"))
    with pytest.raises(ValueError, match=message):
        run(hf, *words.split())
