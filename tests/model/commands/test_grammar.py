"""Options that say what a text must be. Oracles: `generate` with the same grammar, json and re."""

import json
import re

import pytest

from model import Llama, Tokenizer, generate
from model.cli import main
from samplers.grammar import Grammar

SCHEMA = (
    '{"type": "object", "properties": {"a": {"enum": ["red", 7]}}, "required": ["a"], "additionalProperties": false}'
)
ASK = ["generate", "-p", "The king", "--seed", "3", "-n", "40", "--json"]


def generated(capsys, *words: str) -> str:
    assert main([*ASK, *words]) == 0
    return json.loads(capsys.readouterr().out)["text"]


def test_a_schema_as_text_and_from_a_file(capsys, tmp_path):
    (tmp_path / "schema.json").write_text(SCHEMA)
    text = generated(capsys, "--json-schema", SCHEMA)
    assert json.loads(text)["a"] in ("red", 7)
    assert generated(capsys, "--json-schema", str(tmp_path / "schema.json")) == text
    options = dict(seed=3, max_new_tokens=40, grammar=Grammar.json_schema(SCHEMA), do_sample=True)
    assert generate(Llama.from_pretrained(), Tokenizer.from_pretrained(), "The king", **options)[0][0].text == text


def test_a_pattern_a_list_and_rules(capsys, tmp_path):
    (tmp_path / "rules.lark").write_text('start: " x" | " y"')
    assert re.fullmatch("[ab]{3}", generated(capsys, "--regex", "[ab]{3}"))
    assert generated(capsys, "--choice", " yes", "--choice", " no") in (" yes", " no")
    assert generated(capsys, "--grammar", str(tmp_path / "rules.lark")) in (" x", " y")


def test_requests_of_a_file(capsys, tmp_path):
    """The option fills what a line leaves out."""
    lines = [
        {"prompt": "The king"},
        {"prompt": "The king", "response_format": {"type": "json_object"}, "max_tokens": 99},
    ]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["generate", "-f", str(tmp_path / "requests.jsonl"), "--choice", " yes", "--seed", "3"]) == 0
    bodies = [json.loads(line)["response"]["body"] for line in capsys.readouterr().out.splitlines()]
    texts = [body["choices"][0]["text"] for body in bodies]
    assert texts[0] == " yes" and texts[1].startswith("{")


def test_a_trace_shows_the_mask(capsys):
    assert main(["trace", "-p", "The king", "--seed", "3", "--choice", " yes", "--choice", " no", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert all(step["stages"][1]["name"] == "allowed" for step in steps) and len(steps) <= 5
    assert "".join(step["piece"] for step in steps) in ("▁yes</s>", "▁no</s>", "▁no</s>")


WRONG = [
    (["--regex", "("], "regex can't be followed"),
    (["--regex", ""], "--regex must be a non-empty text"),
    (["--choice", ""], "--choice must be a list of one or more non-empty strings"),
    (["--json-schema", '{"a":'], "--json-schema must be JSON"),
    (["--json-schema", "/no/such/file"], "--json-schema must be a text file"),
    (["--grammar", "/no/such/file"], "--grammar must be a text file"),
    (["--json-schema", '{"not": {}}'], "json_schema can't be followed"),
    (["--regex", "a", "--beams", "2", "--sample"], "grammar must be None with num_beams above 1"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_is_wrong_is_named(capsys, words, message):
    assert main([*ASK, *words]) == 2
    assert message in capsys.readouterr().err


def test_beams_have_no_grammar(capsys):
    assert main(["trace", "-p", "A", "--beams", "2", "--regex", "a"]) == 2
    assert "--regex must not be given with --beams" in capsys.readouterr().err
