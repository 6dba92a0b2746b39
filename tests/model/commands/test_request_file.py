"""Oracles: the engine's answers to the same bodies, and openai's batch format."""

import json

import pytest

from model import Llama, Tokenizer
from model.cli import main
from model.commands import request_file
from model.serve.api.service import Service
from model.serve.engine.engine import Engine
from model.serve.offline import answers, asked_by, line_of

BODIES = [
    {"prompt": "Once upon a time", "max_tokens": 5, "seed": 3, "logprobs": 1},
    {"prompt": "The fox", "temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0, "stop": ["[/INST]"]},
    {"messages": [{"role": "user", "content": "Who are you?"}], "seed": 5, "max_tokens": 6, "n": 2},
    {"prompt": "The king", "seed": 4},
]
WRAPPED = {"custom_id": "my-own", "method": "POST", "url": "/v1/chat/completions", "body": BODIES[2]}


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = [BODIES[0], BODIES[1], WRAPPED, BODIES[3]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    return tmp_path


def expected() -> list:
    llama = Llama.from_pretrained()
    service = Service(llama, Tokenizer.from_pretrained(), ("storyteller",), "", "plain", True, 512)
    found = []
    for body in BODIES:
        numbered = [(0, lambda body=body: asked_by(service, line_of({"seed": 9, **body})))]
        ((_, _, reply),) = answers(Engine(llama, 1), numbered, 1)
        found.append(reply["choices"])
    return found


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["generate", *words])
    return status, *capsys.readouterr()


def test_each_line_gets_its_own_answer(capsys, lines):
    status, out, _ = run(capsys, "-f", "in.jsonl", "--seed", "9", "--batch-size", "3")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [line["response"]["body"]["choices"] for line in found] == expected()
    assert [line["custom_id"] for line in found] == ["line-1", "line-2", "my-own", "line-4"]
    assert [line["seed"] for line in found] == [3, 9, 5, 4]
    assert all(set(line) == {"id", "custom_id", "seed", "response", "error"} for line in found)


def test_options_fill_what_a_line_leaves_out(capsys, lines):
    _, out, _ = run(capsys, "-f", "in.jsonl", "-n", "2", "--temperature", "0")
    bodies = [json.loads(line)["response"]["body"] for line in out.splitlines()]
    assert [body["usage"]["completion_tokens"] for body in bodies] == [5, 2, 12, 2]


def test_a_stopped_run_goes_on(capsys, lines, monkeypatch):
    """The seed of the first run is kept, for lines that have none."""
    answered, count = request_file.Job.answered, 0

    def until_third(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return answered(*arguments)

    monkeypatch.setattr(request_file.Job, "answered", until_third)
    assert run(capsys, "-f", "in.jsonl", "-o", "out.jsonl", "--batch-size", "1")[0] == 130
    part = [json.loads(line) for line in (lines / "out.jsonl.part").read_text().splitlines()]
    monkeypatch.setattr(request_file.Job, "answered", answered)
    status, _, err = run(capsys, "-f", "in.jsonl", "-o", "out.jsonl", "--batch-size", "1")
    assert status == 0 and "going on after 2 of 4" in err and "wrote out.jsonl: 4 answers" in err
    whole = [json.loads(line) for line in (lines / "out.jsonl").read_text().splitlines()]
    assert [line["prompt_number"] for line in whole] == [0, 1, 2, 3]
    assert whole[1]["seed"] == part[0]["settings"]["seed"] + 1
    assert all(line in whole for line in part[1:])


WRONG = [
    ({"prompt": "A", "tempature": 1}, "tempature is no field"),
    ({"prompt": "A", "top_p": 2}, "top_p must be"),
    ({"prompt": "A", "stream": True}, "stream must not be true"),
    ({"custom_id": "a", "url": "/v1/embeddings", "body": {}}, "url must be one of"),
    ({"custom_id": "a", "url": "/v1/completions", "body": {}, "x": 1}, "x is no field"),
    ({"custom_id": "a", "url": "/v1/completions", "body": 7}, "body must be an object"),
    (7, "must be a JSON object"),
    ({"prompt": "B", "evil\x1b[31m": 4}, r"evil\x1b[31m is no field"),
]


@pytest.mark.parametrize(("value", "message"), WRONG)
def test_every_line_is_checked_before_any_is_answered(capsys, tmp_path, value, message):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(BODIES[0]) + "\n\n" + json.dumps(value) + "\n")
    status, out, err = run(capsys, "-f", str(path))
    assert (status, out) == (2, "") and "in.jsonl line 3: " in err and message in err
    assert err.count("\n") == 1 and err.strip().isprintable()


def test_options_that_do_not_apply(capsys, lines):
    for words in (["--beams", "3"], ["-r", "2"], ["-p", "A"], ["--json"]):
        status, _, err = run(capsys, "-f", "in.jsonl", *words)
        assert status == 2 and "does not apply to a file of requests" in err


def test_prompts_alone_are_numbered_through_the_call(capsys, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "The fox"}\n{"prompt": "The fox"}\n')
    first, second = run(capsys, "-f", str(path), "--seed", "3", "-n", "8")[1].splitlines()[::2]
    assert first != second
