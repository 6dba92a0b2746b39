"""Prompts as files hold them: each is taken whole, or its file and line are named before a model is loaded."""

import io
import json

import pytest

from model.cli import main
from model.commands.parser import parser
from model.commands.prompts import read_prompts


@pytest.fixture(autouse=True)
def no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("generate", "score"):
        monkeypatch.setattr(f"model.commands.{command}.load_model", lambda arguments: pytest.fail("loaded"))


def read(*words: str) -> list[str]:
    return read_prompts(parser().parse_args(["generate", *words]))


def test_a_line_holds_a_prompt_and_nothing_else(tmp_path):
    texts = ["A", "[INST] hi [/INST]", "two\nlines", "\u2028 Ä \x00"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in texts) + "\n\n")
    assert read("-f", "t.jsonl", "-p", "first") == ["first", *texts]


PAYLOAD = {  # of together.xyz
    "model": "togethercomputer/llama-2-7b",
    "max_tokens": 5,
    "prompt": "[INST] hi [/INST]",
    "temperature": 0.0,
    "stop": ["[/INST]"],
}
LINES = [
    (json.dumps(PAYLOAD), "must hold \"prompt\" alone, got also 'model', 'max_tokens', 'temperature', 'stop'"),
    ('{"prompt": "B", "id": 4}', "must hold \"prompt\" alone, got also 'id'"),
    ('{"prompt": "B", "evil\\u001b[31m": 4}', r"got also 'evil\x1b[31m'"),
    (json.dumps({"prompt": "B"} | dict.fromkeys(map(str, range(10**5)))), "'9'"),
    ('{"text": "B"}', 'must be an object with a text "prompt", got'),
    ('{"prompt": ""}', 'must be an object with a text "prompt", got'),
    ('{"prompt": 7}', 'must be an object with a text "prompt", got'),
    ("[" * 200000, 'must be an object with a text "prompt", got'),
    ('{"prompt": "' + "[" * 5000, 'got \'{"prompt": "[[['),
    (r'{"prompt": "\ud800"}', r"must be valid UTF-8, got '\ud800'"),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_whatever_else_a_line_holds_is_refused(tmp_path, capsys, line, message):
    """Only `alea generate` answers requests: tests/model/commands/test_request_file.py."""
    (tmp_path / "t.jsonl").write_text(f'{{"prompt": "A"}}\n\n{line}\n')
    assert main(["score", "-c", "Yes", "No", "-f", "t.jsonl"]) == 2
    error = capsys.readouterr().err
    assert "--file t.jsonl line 3" in error and message in error
    assert error.count("\n") == 1 and error.strip().isprintable() and len(error) < 500


def test_bytes_that_are_no_text_name_their_option(capsys, monkeypatch):
    assert main(["generate", "-p", "A", "-p", "M\udce4rchen"]) == 2  # as Python reads b"M\xe4rchen" in a command
    assert "--prompt must be valid UTF-8, got 'M\\udce4rchen'" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("A\nM\udce4rchen\n"))
    assert main(["generate"]) == 2
    assert "--file - line 2 must be valid UTF-8" in capsys.readouterr().err
