"""Oracle: `generate` for each choice alone. No schedule, batch, chunk, cache or neighbour may change an answer."""

import re
import time
from random import Random

import llguidance
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import Llama, Tokenizer, generate
from model.decoding.grammar import grammar_for
from model.decoding.logprobs import token_logprobs
from model.serve.engine.engine import Engine
from model.serve.engine.observer import Observer
from model.serve.engine.request import Choice, Failure, Request, Settings
from samplers import SamplingParams
from samplers.grammar import Grammar, compiled_grammar
from tests.conftest import examples
from tests.model.exactness import needs_native

LLAMA, TOKENIZER = Llama.from_pretrained(), Tokenizer.from_pretrained()
VOCABULARY = LLAMA.config.vocab_size
PROMPTS = ["Once upon a time", "Once upon a time there was a king who had three daughters", "A", "The fox " * 20]
PARAMS = [
    SamplingParams(temperature=0.8, top_p=0.9),
    SamplingParams(temperature=0),
    SamplingParams(top_k=5, repetition_penalty=1.3),
    SamplingParams(min_p=0.05, frequency_penalty=0.5, logit_bias={310: 2.0}),
]


def request(number: int, new: int = 12, **more) -> Request:
    """One of a few kinds; the same number asks for the same."""
    more = {"end_ids": frozenset({2}), "logprobs": 2 if number % 3 == 0 else None} | more
    settings = Settings(PARAMS[number % 4], 100 + number, new, VOCABULARY, **more)
    prompt = TOKENIZER.encode(PROMPTS[number % len(PROMPTS)])
    return Request([Choice(i, prompt, settings, i, TOKENIZER) for i in range(1 + number % 2)])


def answer(done: Request) -> list[tuple]:
    """All that a reader may see of it."""
    return [
        (choice.generation.text, choice.generation.ids, choice.generation.logprobs, choice.logprobs)
        for choice in done.choices
    ]


def answered(engine: Engine, *requests: Request) -> list[list[tuple]]:
    for one in requests:
        engine.submit(one)
    while engine.is_busy:
        engine.step()
    return [answer(one) for one in requests]


@needs_native
@pytest.mark.parametrize("number", range(4))
def test_an_answer_is_that_of_generate(number):
    asked = request(number)
    found = answered(Engine(LLAMA), asked)[0]
    choice = asked.choices[0]
    params = {name: getattr(PARAMS[number], name) for name in SamplingParams.__dataclass_fields__}
    ((alone, *rest),) = generate(
        LLAMA,
        TOKENIZER,
        [choice.prompt],
        max_new_tokens=12,
        do_sample=True,
        seed=choice.settings.seed,
        eos_token_id=2,
        num_return_sequences=len(found),
        logprobs=2,
        **params,
    )
    assert [(one.text, one.ids, one.logprobs) for one in (alone, *rest)] == [one[:3] for one in found]
    if found[0][3]:
        raw = [logprob.logprob for logprob in found[0][3]]
        tops = [[value for _, value in logprob.top] for logprob in found[0][3]]
        assert raw == alone.completion_logprobs.token_logprobs
        assert tops == [[one.logprob for one in top] for top in alone.completion_logprobs.top_logprobs]


@needs_native
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 6), chunk=st.integers(1, 40), blocks=st.integers(9, 40))
@examples(20)
def test_no_schedule_changes_an_answer(seed, batch, chunk, blocks):
    """Requests come and go at random, some are given up, and the cache has hardly room for the longest."""
    random = Random(seed)
    numbers = [random.randrange(12) for _ in range(10)]
    engine = Engine(LLAMA, batch, chunk, cache_tokens=16 * blocks)
    waiting, asked = [request(number) for number in numbers], []
    while waiting or engine.is_busy:
        if waiting and random.random() < 0.5:
            asked.append(waiting.pop())
            engine.submit(asked[-1])
        if asked and random.random() < 0.05:
            engine.fail(random.choice(asked), Failure(499, "gone", "gone"))
        engine.step()
    for number, one in zip(reversed(numbers), asked, strict=True):
        if one.failure is None:
            assert answer(one) == EXPECTED[number]
    assert engine.rows.usage == 0 and len(engine.free_rows) == batch
    assert engine.rows.blocks.used == len(engine.rows.prefixes.known) <= blocks


EXPECTED = {number: answered(Engine(LLAMA, 1), request(number))[0] for number in range(12)} if LLAMA.is_packed else {}


def test_torch_runs_what_is_not_exact():
    """The texts are the same here, though nothing promises it."""
    torchs = Llama.from_pretrained().unpack()
    engine = Engine(torchs, 3, chunk=5)
    found = answered(engine, *(request(number) for number in range(4)))
    expected = [answered(Engine(torchs, 1, chunk=1000), request(number))[0] for number in range(4)]
    assert [[one[1] for one in row] for row in found] == [[one[1] for one in row] for row in expected]
    assert engine.rows.usage == 0


class Reused(Observer):
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def began(self, choice: Choice, reused: int) -> None:
        self.tokens.append(reused)


@needs_native
def test_a_known_prefix_is_not_read_again():
    observer = Reused()
    engine = Engine(LLAMA, 2, observer=observer)
    first, second, third = (request(3, new=40) for _ in range(3))
    answered(engine, first)
    length = len(first.choices[0].prompt)
    assert observer.tokens[0] == 0 and observer.tokens[1] == (length - 1) // 16 * 16  # its second choice
    assert answered(engine, second) == [answer(first)]
    text = first.choices[0].prompt + first.choices[0].generation.ids
    longer = Request([Choice(0, text, third.choices[0].settings, 0, TOKENIZER)])
    answered(engine, longer)
    assert observer.tokens[-1] == (len(text) - 1) // 16 * 16  # what was drawn is known as well


@needs_native
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_logprobs_of_a_prompt(chunk):
    asked = request(1, new=0, prompt_logprobs=3)
    answered(Engine(LLAMA, chunk=chunk), request(1), asked)
    choice = asked.choices[0]
    rows = LLAMA(torch.tensor([choice.prompt]))[0]
    expected = [token_logprobs(row, token, 3) for row, token in zip(rows, choice.prompt[1:], strict=False)]
    assert [(one.logprob, one.top) for one in choice.prompt_logprobs] == expected
    assert (choice.generation.ids, choice.generation.finish_reason) == ([], "length")


def test_masks_and_the_least_length():
    allowed = [300, 301, 2]
    params, end = SamplingParams(logit_bias={2: 15.0}), frozenset({2})
    settings = Settings(params, 1, 30, VOCABULARY, end_ids=end, min_new_tokens=10, allowed=allowed)
    asked = [Request([Choice(0, [1, 5 + i], settings, i, TOKENIZER)]) for i in range(20)]
    answered(Engine(LLAMA), request(0), *asked)
    lengths = [len(one.choices[0].generation.ids) for one in asked]
    assert {token for one in asked for token in one.choices[0].generation.ids} <= set(allowed)
    assert min(lengths) == 11 and {one.choices[0].generation.finish_reason for one in asked} == {"eos"}


@needs_native
def test_a_row_without_numbers_fails_alone(monkeypatch):
    engine, bad, good = Engine(LLAMA), request(0), request(1)
    logits = LLAMA.logits

    def spoilt(hidden: torch.Tensor) -> torch.Tensor:
        found = logits(hidden)
        if len(engine.running) == 3:
            found[0] = np.nan
        return found

    monkeypatch.setattr(LLAMA, "logits", spoilt)
    answered(engine, bad, good)
    assert bad.failure.code == "invalid_logits" and good.failure is None and answer(good) == EXPECTED[1]


def test_a_deadline(monkeypatch):
    engine = Engine(LLAMA, 1)
    slow, late, patient = request(0, new=100), request(0), request(0)
    slow.deadline = late.deadline = time.monotonic() + 60
    for one in (slow, late, patient):
        engine.submit(one)
    engine.step()
    now = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert engine.step() == [slow, late]
    while engine.is_busy:
        engine.step()
    assert slow.failure.code == late.failure.code == "timeout" and patient.failure is None


# ---- grammars ----

ALIKE = ("temperature", "top_p", "top_k", "repetition_penalty")
GRAMMARS = [
    Grammar.json_schema({"type": "object", "properties": {"a": {"enum": ["red and green", 7]}}, "required": ["a"]}),
    Grammar.choice([" 日本", " a king"]),
    Grammar.regex(" [a-z]{1,9} was [a-z]+\\."),
]


def constrained(number: int, new: int = 30, **more) -> Request:
    grammar = grammar_for(GRAMMARS[number % len(GRAMMARS)], TOKENIZER, VOCABULARY, [2])
    return request(number, new, grammar=grammar, **more)


@needs_native
@pytest.mark.parametrize("number", range(3))
def test_a_constrained_answer_is_that_of_generate_alone_and_in_a_batch(number):
    alone = answered(Engine(LLAMA), constrained(number))[0]
    others = [*map(request, range(5)), *map(constrained, range(number + 1, number + 6))]
    among = answered(Engine(LLAMA, max_batch=5, chunk=7), *others[:5], constrained(number), *others[5:])
    assert among[5] == alone
    drawing = {name: value for name, value in vars(PARAMS[number]).items() if name in ALIKE}
    grammar = GRAMMARS[number]
    ((expected,),) = generate(
        LLAMA, TOKENIZER, PROMPTS[number], grammar=grammar, seed=100 + number, max_new_tokens=30, **drawing
    )
    assert alone[0][:3] == (expected.text, expected.ids, expected.logprobs)


def forced(new: int, **more) -> Request:
    """Bytes of characters that are no pieces, each the only token that is allowed."""
    return request(0, new, grammar=grammar_for(Grammar.choice(["日本日本"]), TOKENIZER, VOCABULARY, [2]), **more)


@needs_native
def test_forced_tokens_share_a_pass_and_end_at_the_limit():
    class Passes(Observer):
        count = 0

        def drew(self, choices, now):
            self.count += 1

    passes = Passes()
    ((found,),) = answered(Engine(LLAMA, observer=passes), forced(6))
    assert len(found[1]) == 6 and passes.count < 6 and found[2] == [0.0] * 6


def test_a_stop_string_among_forced_tokens():
    """What comes after it is not of the text, though the model has read it."""
    ((text, ids, logprobs, raw),) = answered(Engine(LLAMA), forced(20, stop_strings=("本日",)))[0]
    assert text == "日" and len(ids) == len(logprobs) == len(raw) == 9


def test_a_finished_text_ends_though_more_tokens_are_wanted():
    found = answered(Engine(LLAMA), constrained(1, min_new_tokens=25))[0]
    assert all(text in (" 日本", " a king") and ids[-1] == 2 for text, ids, *_ in found)


def test_a_text_that_can_go_on_has_as_many_tokens_as_wanted():
    words = grammar_for(Grammar.regex("( [a-z]+)+"), TOKENIZER, VOCABULARY, [2])
    ((text, ids, *_),) = answered(Engine(LLAMA), request(0, 40, grammar=words, min_new_tokens=40))[0]
    assert len(ids) == 40 and re.fullmatch("( [a-z]*)+", text)


def test_a_grammar_that_takes_too_much_fails_alone(monkeypatch):
    monkeypatch.setattr(compiled_grammar, "limits", lambda: llguidance.LLParserLimits(max_lexer_states=60))
    hard = grammar_for(Grammar.regex("(a|b)*a(a|b){9}"), TOKENIZER, VOCABULARY, [2])
    asked, neighbour = request(0, 300, grammar=hard, min_new_tokens=300), request(1)
    found = answered(Engine(LLAMA), asked, neighbour)[1]
    assert asked.failure is not None and asked.failure.code == "grammar_stuck" and "states" in asked.failure.message
    assert found == answered(Engine(LLAMA), request(1))[0]


@needs_native
def test_grammars_of_a_model_that_torch_runs():
    unpacked = Llama.from_pretrained().unpack()
    found = answered(Engine(unpacked, max_batch=2), *map(constrained, range(3)))
    assert all(text in (" 日本", " a king") for text, *_ in found[1])
