"""Oracles: `generate` for the text, transformers' logits and `textbook` in float64 for what the stages left."""

import json
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from model import Llama, Tokenizer, generate
from model.cli import main
from model.loading.weights import BUILT_IN
from model.study.decoding_trace import trace_decoding
from samplers import SamplingParams, textbook

LLAMA, TOKENIZER = Llama.from_pretrained(), Tokenizer.from_pretrained()
CUTS = dict(top_k=50, top_p=0.9, epsilon_cutoff=0.02)
PARAMS = SamplingParams(**CUTS)
COMMAND = ["trace", "-p", "The dragon", "-n", "5", "--top-k", "50", "--top-p", "0.9", "--epsilon-cutoff", "0.02"]


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """Float64 [L, V] of transformers, after every token of the traced text."""
    trace = trace_decoding(LLAMA, TOKENIZER, "The dragon", PARAMS, seed=3, max_new_tokens=5)
    theirs = AutoModelForCausalLM.from_pretrained(BUILT_IN, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(torch.tensor([trace.prompt_ids + trace.ids])).logits[0].double().numpy()


@pytest.mark.parametrize(
    "options",
    [
        dict(top_k=50, top_p=0.9, epsilon_cutoff=0.02),
        dict(temperature=0.0),
        dict(temperature=1.3, repetition_penalty=1.5),
    ],
)
def test_the_text_is_that_of_generate(options):
    trace = trace_decoding(LLAMA, TOKENIZER, "The dragon", SamplingParams(**options), seed=3, max_new_tokens=8)
    sampling = {"temperature": 1.0, "top_p": 1.0} | options
    ours = generate(LLAMA, TOKENIZER, "The dragon", max_new_tokens=8, do_sample=True, seed=3, **sampling)[0][0]
    assert trace.ids == ours.ids and trace.text == "The dragon" + ours.text
    assert [step.model_logprob for step in trace.steps] == pytest.approx(ours.model_logprobs, abs=1e-5)


def test_every_step_is_the_textbooks(logits):
    """Independent logits, independent float64 filters: survivors and mass of every stage, and who was cut by which."""
    trace = trace_decoding(LLAMA, TOKENIZER, "The dragon", PARAMS, seed=3, max_new_tokens=5)
    for position, step in enumerate(trace.steps):
        p = textbook.softmax(logits[len(trace.prompt_ids) - 1 + position])
        after = {"logits": p, "temperature": p}
        after["top_k"] = textbook.top_k(p, 50)
        after["top_p"] = textbook.top_p(after["top_k"], 0.9)
        after["epsilon_cutoff"] = textbook.epsilon(after["top_p"], 0.02)
        assert [stage.name for stage in step.stages] == list(after)
        for number, (stage, q) in enumerate(zip(step.stages, after.values(), strict=True)):
            assert stage.survivors == (q > 0).sum() and stage.entropy == pytest.approx(textbook.entropy(q), abs=1e-4)
            listed = [one.probabilities[number] for one in step.candidates]
            assert sum(listed) + step.others.probabilities[number] == pytest.approx(1)
            assert listed == pytest.approx([q[one.id] for one in step.candidates], abs=1e-5)
        for one in step.candidates:
            cut = [name for name, q in after.items() if q[one.id] == 0]
            assert one.cut_by == (cut[0] if cut else None)


def test_logprobs_of_the_prompt(logits):
    trace = trace_decoding(LLAMA, TOKENIZER, "The dragon", PARAMS, seed=3, max_new_tokens=1)
    expected = [np.log(textbook.softmax(logits[i])[token]) for i, token in enumerate(trace.prompt_ids[1:])]
    assert trace.prompt_logprobs[0] is None and trace.prompt_logprobs[1:] == pytest.approx(expected, abs=1e-4)


def test_an_end_of_text_ends_it():
    trace = trace_decoding(LLAMA, TOKENIZER, "The dragon", PARAMS, seed=3, max_new_tokens=5)
    short = trace_decoding(
        LLAMA, TOKENIZER, "The dragon", PARAMS, seed=3, max_new_tokens=5, eos_token_id=[trace.ids[2]]
    )
    assert short.ids == trace.ids[: trace.ids.index(trace.ids[2]) + 1] and short.ended and not trace.ended


def test_printed(capsys):
    assert main([*COMMAND, "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("stage by stage") == 5 and printed.count("epsilon_cutoff") == 10
    assert "▁dragon" in printed and "4,096 → 50 → 30 → 12" in printed and "+4,084 others" in printed
    assert printed.rstrip().splitlines()[-1].startswith("The dragon was very")


def test_json(capsys):
    assert main([*COMMAND, "--seed", "3", "--json", "--top", "3"]) == 0
    trace = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    assert trace["prompt"] == "The dragon" and len(trace["steps"]) == 5
    assert [token["piece"] for token in trace["prompt_tokens"]] == ["<s>", "▁The", "▁dragon"]
    for step in trace["steps"]:
        assert 3 <= len(step["candidates"]) <= 4 and step["params"] == {
            "top_k": 50,
            "top_p": 0.9,
            "epsilon_cutoff": 0.02,
        }
        low, high = next(one["interval"] for one in step["candidates"] if one["id"] == step["token"])
        assert low <= step["u"] < high <= step["total"] and high - low == step["weight"]


def test_a_page(tmp_path, capsys):
    assert main([*COMMAND, "--seed", "3", "--html", str(tmp_path / "trace.html")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "5 steps" in captured.err
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert "the built-in storyteller" in page and "top_k 50, top_p 0.9, epsilon_cutoff 0.02" in page


@pytest.mark.parametrize("beams", [[], ["--beams", "2"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "here"], "--html must be a new file, got here, which already exists: --overwrite replaces it"),
        (["--html", "nowhere/trace.html"], "nowhere: no such folder; --html nowhere/trace.html needs one that exists"),
        (["--html", "."], "--html must be a file, got the folder ."),
        (["--overwrite"], "--overwrite needs --html"),
    ],
)
def test_a_page_that_can_not_be_written_is_refused_before_the_model_is_loaded(
    capsys, monkeypatch, tmp_path, beams, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("old")
    assert main(["trace", "missing", "-p", "A", *beams, *words]) == 2
    assert message in capsys.readouterr().err and (tmp_path / "here").read_text() == "old"


@pytest.mark.parametrize("beams", [[], ["--beams", "2"]])
def test_a_page_is_replaced_where_asked_for(tmp_path, beams):
    page = tmp_path / "trace.html"
    page.write_text("old")
    assert main(["trace", "-p", "A", "-n", "1", *beams, "--html", str(page), "--overwrite"]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_from_a_checkout_that_is_not_installed(tmp_path, monkeypatch):
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("model.versions.version", version)
    assert main([*COMMAND, "--html", str(tmp_path / "trace.html")]) == 0
    assert "alea-sampling not installed" in (tmp_path / "trace.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top-p", "1.2"], "top_p must be in [0, 1], got 1.2"),
        (["-n", "0"], "max_new_tokens must be an integer >= 1, got 0"),
        (["-n", "600"], "must fit the window of 512, got 3 + 600"),
        (["--top", "0"], "top must be an integer >= 1, got 0"),
    ],
)
def test_errors(words, message, capsys):
    assert main(["trace", "-p", "The dragon", *words]) == 2
    assert message in capsys.readouterr().err
