"""Oracle: `model.study.score`. lm-evaluation-harness reads the same log-likelihoods from a server's replies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Ask

os.environ["HF_HUB_OFFLINE"] = "1"  # before datasets is imported

PROMPTS = [
    "Once upon a time there was a",
    "The king had three",
    "And the old woman said to the",
    "He died. The",  # greedy or not, the token after a prompt is no part of its score
    "The fisherman went down to the",
]
CHOICES = ["king", "poor old woman", "sea", "daughters, and the youngest was so beautiful that the sun wondered"]
TASK = {
    "task": "tales",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}],
}


@pytest.fixture
def tales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A task on a local file."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tales.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "choices": CHOICES}) + "\n" for prompt in PROMPTS))
    return TASK | {"dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(tmp_path / "datasets")}}


def test_log_likelihoods(url: str, ask: Ask, tales: dict[str, Any]):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    options = dict(
        model="storyteller",
        base_url=f"{url}/v1/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(ROOT / "model/storyteller"),
        add_bos_token=True,
        max_length=512,
        num_concurrent=4,
    )
    own_tasks_only = TaskManager(include_defaults=False)  # its own are 13,000 files
    result = simple_evaluate(
        model="local-completions", model_args=options, tasks=[tales], batch_size=3, task_manager=own_tasks_only
    )
    scores = ask("score", prompts=PROMPTS, choices=CHOICES, whole=True)
    samples = sorted(result["samples"]["tales"], key=lambda sample: sample["doc_id"])
    assert [sample["doc"]["prompt"] for sample in samples] == PROMPTS
    for sample, score in zip(samples, scores, strict=True):
        logprobs = [float(logprob) for logprob, _ in sample["filtered_resps"]]
        assert logprobs == pytest.approx([choice["logprob"] for choice in score["choices"]], abs=1e-6)


def test_what_greedy_search_finds_is_greedy(url: str, ask: Ask):
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    ((text,),) = ask("generate", prompts=PROMPTS[0], do_sample=False, max_new_tokens=8)
    client = get_model("local-completions")(
        model="storyteller",
        base_url=f"{url}/v1/completions",
        tokenizer=str(ROOT / "model/storyteller"),
        tokenizer_backend="huggingface",
        add_bos_token=True,
        max_length=512,
    )
    pairs = [(PROMPTS[0], text["text"]), (PROMPTS[0], text["text"] + " frog frog")]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    assert [is_greedy for _, is_greedy in client.loglikelihood(asked)] == [True, False]
    asked = [Instance("generate_until", {}, (PROMPTS[0], {"until": [","], "max_gen_toks": 8}), 0)]
    assert client.generate_until(asked) == [text["text"].split(",")[0]]
