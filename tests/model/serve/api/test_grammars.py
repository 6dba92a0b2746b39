"""Every way to ask for a grammar. Oracles: json and re; the same grammar asked for in another way."""

import json
import re
import threading

import pytest

from model.serve.api.chat import ChatBody
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.grammars import Asked, GrammarCompiler
from model.serve.api.llama_cpp import LlamaCppBody
from model.serve.api.tgi import GenerateBody
from model.serve.api.trace import TraceBody
from samplers.grammar import Grammar, InvalidGrammar

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["red", 7]}}, "required": ["a"], "additionalProperties": False}
ASK = {"prompt": "The king", "max_tokens": 60, "seed": 7}
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60, "seed": 7}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}


def text(asking, **fields):
    return asking.whole(CompletionBody, **{**ASK, **fields})["choices"][0]["text"]


def test_a_schema_in_every_form(asking):
    first = text(asking, response_format=JSON_SCHEMA)
    assert json.loads(first)["a"] in ("red", 7)
    assert text(asking, structured_outputs={"json": SCHEMA}) == first
    assert text(asking, structured_outputs={"json": json.dumps(SCHEMA)}) == first
    assert text(asking, response_format={"type": "json_object", "schema": SCHEMA}) == first
    assert asking.whole(LlamaCppBody, prompt="The king", n_predict=60, seed=7, json_schema=SCHEMA)["content"] == first
    for grammar in (dict(type="json", value=SCHEMA), dict(type="json_schema", value={"name": "x", "schema": SCHEMA})):
        parameters = {"max_new_tokens": 60, "seed": 7, "grammar": grammar}
        assert asking.whole(GenerateBody, inputs="The king", parameters=parameters)["generated_text"] == first


def test_without_whitespace(asking):
    assert re.fullmatch(
        r'\{"a":("red"|7)\}', text(asking, structured_outputs={"json": SCHEMA, "disable_any_whitespace": True})
    )
    found = text(asking, structured_outputs={"json": SCHEMA, "whitespace_pattern": " "})
    assert re.fullmatch(r'\{ ?"a" ?: ?("red"|7) ?\}', found)


def test_any_object(asking):
    found = asking.whole(CompletionBody, **{**ASK, "max_tokens": 300}, response_format={"type": "json_object"})
    choice = found["choices"][0]
    assert choice["text"].startswith("{") and (
        choice["finish_reason"] == "length" or json.loads(choice["text"]) is not None
    )
    assert choice["text"] == text(asking, max_tokens=300, structured_outputs={"json_object": True})


def test_patterns_lists_and_rules(asking):
    assert re.fullmatch("[ab]{3}", text(asking, structured_outputs={"regex": "[ab]{3}"}))
    assert text(asking, structured_outputs={"choice": [" yes", " no"]}) in (" yes", " no")
    assert text(asking, structured_outputs={"grammar": 'root ::= " x" | " y"'}) in (" x", " y")
    assert text(asking, structured_outputs={"grammar": 'start: " x" | " y"'}) in (" x", " y")
    body = dict(prompt="The king", n_predict=9, seed=7)
    assert asking.whole(LlamaCppBody, **body, grammar='root ::= "ab"')["content"] == "ab"
    assert asking.whole(LlamaCppBody, **body, grammar="")["content"] == asking.whole(LlamaCppBody, **body)["content"]
    parameters = {"seed": 7, "grammar": {"type": "regex", "value": "[ab]{3}"}}
    assert re.fullmatch("[ab]{3}", asking.whole(GenerateBody, inputs="A", parameters=parameters)["generated_text"])


def test_chats_and_streams(asking):
    whole = asking.whole(ChatBody, **MESSAGES, response_format=JSON_SCHEMA)
    assert json.loads(whole["choices"][0]["message"]["content"])["a"] in ("red", 7)
    assert whole["choices"][0]["finish_reason"] == "stop"
    events = asking.streamed(ChatBody, **MESSAGES, response_format=JSON_SCHEMA, stream=True)
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events if event != "[DONE]"]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]


def test_text_is_the_default(asking):
    assert text(asking, response_format={"type": "text"}, max_tokens=9) == text(asking, max_tokens=9)


def test_several_choices_and_raw_logprobs(asking):
    """Logprobs are the model's own, as without a grammar."""
    found = asking.whole(CompletionBody, **ASK, n=4, logprobs=1, structured_outputs={"choice": [" yes", " no"]})[
        "choices"
    ]
    assert {choice["text"] for choice in found} == {" yes", " no"}
    assert all(choice["logprobs"]["token_logprobs"][-1] < -0.01 for choice in found)


def test_a_trace_shows_what_was_allowed(asking):
    found = asking.whole(TraceBody, **ASK, structured_outputs={"choice": [" yes", " no"]})
    names = [[stage["name"] for stage in step["stages"]] for step in found["steps"]]
    assert all("allowed" in stages for stages in names) and found["ended"]
    assert found["text"].removeprefix("The king") == text(asking, structured_outputs={"choice": [" yes", " no"]})


FORMAT = "response_format.json_schema"
REFUSED = [
    (dict(response_format={"type": "json_schema"}), FORMAT),
    (dict(response_format={"type": "text", "json_schema": {"schema": {}}}), FORMAT),
    (dict(response_format={"type": "text", "schema": {}}), "response_format.schema"),
    (dict(response_format={"type": "structural_tag"}), "response_format.type"),
    (dict(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), f"{FORMAT}.schema"),
    (dict(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}), f"{FORMAT}.schema"),
    (dict(structured_outputs={}), "structured_outputs"),
    (dict(structured_outputs={"regex": "a", "choice": ["b"]}), "structured_outputs"),
    (dict(structured_outputs={"json": {}, "json_object": True}), "structured_outputs"),
    (dict(structured_outputs={"regex": "("}), "structured_outputs.regex"),
    (dict(structured_outputs={"regex": "a", "whitespace_pattern": " "}), "structured_outputs.whitespace_pattern"),
    (dict(structured_outputs={"json": {"not": {}}}), "structured_outputs.json"),
    (dict(structured_outputs={"json": "{"}), "structured_outputs.json"),
    (dict(structured_outputs={"grammar": "start: a"}), "structured_outputs.grammar"),
    (dict(structured_outputs={"choice": []}), "structured_outputs.choice"),
    (dict(structured_outputs={"structural_tag": "x"}), "structured_outputs.structural_tag"),
    (dict(structured_outputs={"disable_fallback": 1, "x": {}}), "structured_outputs.x"),
    (dict(structured_outputs={"regex": "a"}, response_format={"type": "json_object"}), "structured_outputs"),
    (dict(structured_outputs={"regex": "a"}, ignore_eos=True), "ignore_eos"),
    (dict(structured_outputs={"regex": "a"}, allowed_token_ids=[5]), "allowed_token_ids"),
    (dict(guided_json={}), "guided_json"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_wrong_is_named(asking, fields, param):
    with pytest.raises(Refusal) as refusal:
        asking.prepared(CompletionBody, **ASK, **fields)
    assert refusal.value.status == 400 and refusal.value.param == param and param in str(refusal.value)


def tgi(kind, value):
    return dict(inputs="A", parameters={"grammar": {"type": kind, "value": value}})


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (LlamaCppBody, dict(prompt="A", grammar="root ::= ("), "grammar"),
        (LlamaCppBody, dict(prompt="A", grammar='root ::= "a"', json_schema={}), "grammar"),
        (GenerateBody, tgi("regex", "("), "parameters.grammar.value"),
        (GenerateBody, tgi("choice", "a"), "parameters.grammar"),
    ],
)
def test_what_is_wrong_in_other_requests_is_named(asking, kind, fields, param):
    with pytest.raises(Refusal) as refusal:
        asking.prepared(kind, **fields)
    assert refusal.value.status == 400 and refusal.value.param == param


def test_a_grammar_that_takes_too_long(asking, monkeypatch):
    """Nobody waits longer for it than the server allows, and the next is compiled when it ends."""
    service, begun, may_end = asking.service, threading.Event(), threading.Event()
    compiler = GrammarCompiler(service.tokenizer, 4096, seconds=0.05)
    quick = compiler.compile
    monkeypatch.setattr(compiler, "known", lambda *asked: (begun.set(), may_end.wait(9), quick(*asked))[2])
    asked = Asked("structured_outputs.regex", Grammar.regex("a"))
    with pytest.raises(
        Refusal, match=r"structured_outputs.regex takes longer to compile than --max-grammar-seconds = 0.05"
    ) as refusal:
        compiler.compiled(asked, (2,))
    assert refusal.value.code == "grammar_too_large" and begun.is_set()
    may_end.set()
    compiler.seconds = 9
    assert compiler.compiled(asked, (2,)).grammar == asked.grammar


def test_many_texts_of_a_large_grammar(asking, monkeypatch):
    """Each text has a parser of its own."""
    many = {"structured_outputs": {"choice": [f" x{i}" for i in range(999)]}}
    monkeypatch.setattr(asking.service, "grammar_seconds", 1e-6)
    monkeypatch.setattr(asking.service.grammars, "seconds", 9)
    with pytest.raises(Refusal, match="n: 200 texts need a copy each of a grammar that takes") as refusal:
        asking.prepared(CompletionBody, **ASK, n=200, **many)
    assert refusal.value.code == "grammar_too_large"


def test_a_grammar_is_compiled_once(asking):
    compiler = GrammarCompiler(asking.service.tokenizer, 4096)
    first, again = (compiler.compiled(Asked("x", Grammar.regex("ab")), (2,)) for _ in range(2))
    assert first is again
    with pytest.raises(Refusal, match="x: regex can't be followed") as refusal:
        compiler.compiled(Asked("x", Grammar.regex("(")), (2,))
    assert refusal.value.code == "invalid_grammar" and issubclass(InvalidGrammar, ValueError)
