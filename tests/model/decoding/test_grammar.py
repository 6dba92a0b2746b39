"""`generate` under a grammar. Oracles: re and json; the same text alone, in a batch and token by token."""

import json
import re

import pytest
import torch

from model import Llama, Tokenizer, generate
from model.decoding.grammar import vocabulary_of
from samplers.grammar import Grammar, InvalidGrammar

MODEL, TOKENIZER = Llama.from_pretrained(), Tokenizer.from_pretrained()
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red and green", "blue"]},
        "age": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["colour", "age"],
    "additionalProperties": False,
}
GRAMMARS = [
    Grammar.json_schema(SCHEMA),
    Grammar.json_schema(SCHEMA, compact=True),
    Grammar.regex(" The [a-z]{1,5} (was|is) [a-z]{3}\\."),
    Grammar.choice([" good", " bad", " 日本"]),
    Grammar.lark('start: "(" start ")" | "x"'),
]
PROMPTS = ["The king", "Once upon a time there was", "A"]


def texts(grammar: Grammar, prompts=PROMPTS, model=MODEL, **options):
    given = dict(max_new_tokens=40, top_p=0.95, seed=3, repetition_penalty=1.1)
    return generate(model, TOKENIZER, prompts, grammar=grammar, **{**given, **options})


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
def test_a_text_is_the_same_alone_in_a_batch_and_token_by_token(grammar):
    """A stop string that never comes makes every forced token a pass of its own."""
    together = texts(grammar, num_return_sequences=2)
    for number, row in enumerate(together):
        for copy, expected in enumerate(row):
            for options in ({}, {"stop_strings": "\x00"}, {"backend": "reference"})[: 3 if number == copy else 2]:
                ((alone,),) = texts(grammar, PROMPTS[number], stream=[2 * number + copy], **options)
                assert (alone.ids, alone.text) == (expected.ids, expected.text)
                assert alone.logprobs == expected.logprobs and alone.model_logprobs == expected.model_logprobs


def test_every_finished_text_follows_its_grammar():
    patterns = [None, None, GRAMMARS[2].source, " good| bad| 日本", "\\(*x\\)*"]
    finished = 0
    for grammar, pattern in zip(GRAMMARS, patterns, strict=True):
        for (found,) in texts(grammar, num_return_sequences=1):
            if found.finish_reason != "eos":
                continue
            finished += 1
            value = json.loads(found.text) if pattern is None else None
            assert re.fullmatch(pattern, found.text) if pattern else set(value) == {"colour", "age"}
    assert finished >= 8


def test_forced_tokens_share_a_pass(monkeypatch):
    passes, steps = [], Llama.steps
    monkeypatch.setattr(Llama, "steps", lambda self, runs, *rest: passes.append(len(runs)) or steps(self, runs, *rest))
    ((found,),) = texts(Grammar.lark('start: "日本日本" /[a-z]/'), "A")  # bytes of characters that are no pieces
    assert len(found.ids) > 10 and len(passes) < len(found.ids) / 2
    assert found.logprobs[:5] == [0.0] * 5 and len(found.model_logprobs) == len(found.ids)


def test_logprobs_are_those_of_what_may_come():
    ((found,),) = texts(Grammar.choice([" good", " bad"]), "A", logprobs=3, top_p=1.0, repetition_penalty=1.0)
    first = found.completion_logprobs.top_final_logprobs[0]
    assert all(" good".startswith(one.token) or " bad".startswith(one.token) for one in first) and len(first) == 3
    assert len(found.completion_logprobs.tokens) == len(found.ids)


def test_a_text_ends_where_it_must():
    ((cut,),) = texts(Grammar.regex("[a-z]+"), "A", max_new_tokens=5)
    assert cut.finish_reason == "length" and len(cut.ids) == 5 and re.fullmatch("[a-z]+", cut.text)
    ((stopped,),) = texts(Grammar.choice(["one two three"]), "A", stop_strings=" two")
    assert stopped.text == "one" and stopped.finish_reason == "stop"
    ((ended,),) = texts(Grammar.choice(["one"]), "A")
    assert ended.text == "one" and ended.ids[-1] == TOKENIZER.eos_id


def test_a_model_that_torch_runs():
    """Without shared passes."""
    unpacked = Llama.from_pretrained().unpack()
    ((found,),) = texts(Grammar.choice(["日本日本"]), "A", model=unpacked)
    assert found.text == "日本日本" and found.finish_reason == "eos"


def test_a_vocabulary_beyond_the_tokenizer():
    vocabulary = vocabulary_of(TOKENIZER, 4100)
    assert vocabulary.size == 4100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(grammar="[a-z]"), "grammar must be a samplers.grammar.Grammar or None, got str"),
        (dict(grammar=GRAMMARS[2], num_beams=2), "grammar must be None with num_beams above 1"),
        (dict(grammar=GRAMMARS[2], eos_token_id=()), "grammar needs an id that ends a text"),
        (dict(grammar=Grammar.regex("(")), "regex can't be followed"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        generate(MODEL, TOKENIZER, "A", max_new_tokens=3, **options)


def test_a_text_that_takes_too_much_is_an_error(monkeypatch):
    """And not a text that breaks its grammar."""
    import llguidance

    from samplers.grammar import compiled_grammar

    monkeypatch.setattr(compiled_grammar, "limits", lambda: llguidance.LLParserLimits(max_lexer_states=60))
    with pytest.raises(InvalidGrammar, match=r"grammar, after \d+ tokens: .*states"):
        texts(Grammar.regex("(a|b)*a(a|b){9}"), "A", max_new_tokens=400, top_p=1.0)


def test_greedy_is_the_best_that_is_allowed():
    ((found,),) = generate(MODEL, TOKENIZER, "The", max_new_tokens=9, grammar=Grammar.regex("[^ ]+"), do_sample=False)
    assert " " not in found.text and torch.isfinite(torch.tensor(found.logprobs)).all()
