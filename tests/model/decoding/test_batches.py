"""Batches by length change nothing. Oracle: one call of `generate` with all prompts, and sorted lengths."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Llama, Tokenizer, generate, generate_many
from model.decoding import batches
from model.decoding.batches import by_length
from model.decoding.options import GenerationOptions

PROMPTS = ["A", "Once upon a time there lived a king", "The wolf", "She said that the old man", [1, 310, 621]]
OPTIONS = {"max_new_tokens": 6, "seed": 11, "top_p": 0.9}


@pytest.fixture(scope="module")
def storyteller():
    return Llama.from_pretrained(), Tokenizer.from_pretrained()


def texts_of(model, tokenizer, prompts, *, on_text=None, **options):
    prompt_ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    checked = GenerationOptions.for_model(model, **options)
    return batches.generate_texts(model, tokenizer, prompt_ids, checked, on_text=on_text)


@pytest.mark.parametrize(
    "batch_size", [1, 2, pytest.param(3, marks=pytest.mark.exhaustive), pytest.param(99, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("more", [{}, {"num_return_sequences": 3}, {"stream": [9, 9, 4, 0, 2**63]}])
def test_every_text_is_that_of_one_call(storyteller, batch_size, more):
    together = generate(*storyteller, PROMPTS, **OPTIONS, **more)
    several = dict(generate_many(*storyteller, PROMPTS, batch_size=batch_size, **OPTIONS, **more))
    assert [[one.ids for one in several[i]] for i in range(5)] == [[one.ids for one in row] for row in together]


def test_beams_keep_a_stream_a_prompt(storyteller):
    options = {"num_beams": 3, "num_return_sequences": 2, "do_sample": True, "max_new_tokens": 5, "seed": 3}
    together = generate(*storyteller, PROMPTS, **options)
    several = dict(generate_many(*storyteller, PROMPTS, batch_size=2, **options))
    assert [[one.ids for one in several[i]] for i in range(5)] == [[one.ids for one in row] for row in together]


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_texts_of_a_prompt_may_follow_in_several_batches(storyteller, monkeypatch, at_once):
    """In the order of the texts of a prompt; never more than those at once."""
    shown: dict[int, str] = {}

    def on_text(number: int, text: str) -> None:
        shown[number] = shown.get(number, "") + text

    real, counts = batches.generate_batch, []

    def counting(model, tokenizer, prompt_ids, options, *others):
        counts.append(len(prompt_ids) * options.num_return_sequences)
        return real(model, tokenizer, prompt_ids, options, *others)

    monkeypatch.setattr(batches, "AT_ONCE", at_once)
    monkeypatch.setattr(batches, "generate_batch", counting)
    options = {**OPTIONS, "num_return_sequences": 3}
    together = [one for row in generate(*storyteller, PROMPTS, **options) for one in row]
    several = list(texts_of(*storyteller, PROMPTS, on_text=on_text, **options))
    assert max(counts) <= at_once and sum(counts) == 15
    assert [one.ids for _, one in sorted(several, key=lambda pair: pair[0])] == [one.ids for one in together]
    assert shown == {number: one.text for number, one in several}
    assert [number for number, _ in several if number < 3] == [0, 1, 2]


def test_so_many_texts_begin_at_once(storyteller):
    """A million are no list of a million streams, nor a batch of as many."""
    options = {"max_new_tokens": 2, "seed": 1, "top_p": 0.9}
    texts = texts_of(*storyteller, ["A"], num_return_sequences=10**9, **options)
    (three,) = generate(*storyteller, ["A"], num_return_sequences=3, **options)
    assert [(number, one.ids) for number, one in islice(texts, 3)] == [(i, one.ids) for i, one in enumerate(three)]


def test_beams_of_a_prompt_stay_together(storyteller, monkeypatch):
    """Their number is that of rows, so that fewer prompts are searched at a time."""
    options = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 3, "do_sample": False}
    together = generate(*storyteller, PROMPTS, **options)
    monkeypatch.setattr(batches, "AT_ONCE", 2)
    several = dict(generate_many(*storyteller, PROMPTS, **options))
    assert [[one.ids for one in several[i]] for i in range(5)] == [[one.ids for one in row] for row in together]


def test_on_text_counts_through_all_batches(storyteller):
    shown: dict[int, str] = {}

    def on_text(number: int, text: str) -> None:
        shown[number] = shown.get(number, "") + text

    options = {**OPTIONS, "num_return_sequences": 2, "on_text": on_text}
    results = dict(generate_many(*storyteller, PROMPTS, batch_size=2, **options))
    assert shown == {2 * i + place: one.text for i, row in results.items() for place, one in enumerate(row)}


def test_what_is_skipped_is_left_out_and_the_others_stay_the_same(storyteller):
    every = dict(generate_many(*storyteller, PROMPTS, **OPTIONS))
    others = dict(generate_many(*storyteller, PROMPTS, skip={0, 3}, **OPTIONS))
    assert {n: others[n][0].ids for n in others} == {n: every[n][0].ids for n in (1, 2, 4)}


def test_the_longest_come_first(storyteller):
    numbers = [number for number, _ in generate_many(*storyteller, PROMPTS, batch_size=1, **OPTIONS)]
    assert numbers[0] in (1, 3) and numbers[-1] == 0


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (["A", "king " * 600], {}, r"prompts\[1\] has 60\d tokens"),
        (["A", "B"], {"max_new_tokens": 9999}, r"prompts\[0\]: 2 prompt tokens \+ 9999 new"),
        (["A"], {"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        (["A", "B"], {"stream": [1]}, "stream must hold one number for each of 2 sequences, got 1"),
        ([], {}, "prompts must hold at least one prompt"),
    ],
)
def test_bad_input_is_refused_before_the_first_batch(storyteller, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate_many(*storyteller, prompts, **options)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 9))
def test_by_length(lengths, most):
    """Every number once; no batch too large; no batch holds a longer prompt than one before it."""
    batches = by_length(lengths, range(len(lengths)), most)
    flat = [number for batch in batches for number in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert all(len(batch) == most for batch in batches[:-1])
    assert [lengths[number] for number in flat] == sorted(lengths, reverse=True)
