"""Oracles: alea's own `generate` with the same parameters; vLLM's order of filters, step by step."""

from __future__ import annotations

import re
from typing import Any

import pytest
from engines import CHAIN, LENGTH, PLAIN, PROMPTS, SEED, alea_ids, ids_of, min_p_first_ids, request, requests
from vllm import LLM
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

FEW = PROMPTS[:4]
PENALTIES = [
    dict(repetition_penalty=1.3),
    dict(presence_penalty=0.5, frequency_penalty=0.25),
    dict(repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.1),
]
FILTERS = [
    dict(typical_p=0.8),
    dict(epsilon_cutoff=0.01),
    dict(eta_cutoff=0.05),
    dict(typical_p=0.9, min_p=0.1, min_tokens_to_keep=3),
]


def texts(llm: LLM, **options: Any) -> list[list[int]]:
    return ids_of(llm, FEW, requests(len(FEW), **options))


def test_plain(llm: LLM):
    assert texts(llm, **PLAIN) == alea_ids(FEW, **PLAIN)


@pytest.mark.parametrize("penalties", PENALTIES, ids=str)
def test_penalties(llm: LLM, penalties: dict[str, float]):
    ids = texts(llm, **CHAIN, **penalties)
    assert ids == alea_ids(FEW, **CHAIN, **penalties)
    assert ids != alea_ids(FEW, **CHAIN)


@pytest.mark.parametrize("others", [dict(), dict(top_k=40)], ids=str)
def test_min_p(llm: LLM, others: dict[str, Any]):
    ids = texts(llm, **PLAIN, **others, min_p=0.1)
    assert ids == alea_ids(FEW, **PLAIN, **others, min_p=0.1)
    assert ids != alea_ids(FEW, **PLAIN, **others)


@pytest.mark.parametrize("chain", [PLAIN, CHAIN], ids=["alone", "after others"])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_filters_of_extra_args(llm: LLM, chain: dict[str, Any], filters: dict[str, Any]):
    ids = texts(llm, **chain, extra=filters)
    assert ids == alea_ids(FEW, **chain, **filters)
    assert ids != alea_ids(FEW, **chain)


def test_extra_args_come_first(llm: LLM):
    wrong = dict(temperature=1.5, top_k=3, top_p=0.1, min_p=0.5, seed=8)
    assert texts(llm, **wrong, extra=CHAIN | dict(min_p=0.0, seed=SEED)) == alea_ids(FEW, **CHAIN)


def test_each_row_has_its_own(llm: LLM):
    """Of one batch."""
    own = [dict(temperature=0.0), CHAIN, PLAIN, dict(temperature=1.2, min_p=0.05)]
    expected = [alea_ids([prompt], [i], **options)[0] for i, (prompt, options) in enumerate(zip(FEW, own, strict=True))]
    assert ids_of(llm, FEW, [request(i, **options) for i, options in enumerate(own)]) == expected


ORDER = dict(temperature=1.0, top_p=0.7, min_p=0.03)


def test_vllm_has_min_p_before_top_p(llm: LLM):
    ids = texts(llm, **ORDER)
    assert ids == min_p_first_ids(FEW, ORDER["min_p"], ORDER["top_p"])
    assert ids != alea_ids(FEW, **ORDER)


def test_min_p_of_extra_args_acts_after_top_p(llm: LLM):
    options = dict(ORDER)
    assert texts(llm, extra={"min_p": options.pop("min_p")}, **options) == alea_ids(FEW, **ORDER)


def test_greedy_rows(llm: LLM):
    greedy = ids_of(llm, FEW, [request(temperature=0)] * len(FEW))
    assert greedy == alea_ids(FEW, do_sample=False)
    mixed = ids_of(llm, FEW * 2, requests(len(FEW), **CHAIN) + [request(temperature=0)] * len(FEW))
    assert mixed == alea_ids(FEW, **CHAIN) + greedy


def test_choices_of_a_request_have_seeds_that_count_up(llm: LLM):
    choices = ids_of(llm, FEW[:1], request(3, n=3, **CHAIN))
    assert choices == [alea_ids(FEW[:1], [3], seed=SEED + i, **CHAIN)[0] for i in range(3)]


@pytest.mark.parametrize("own", [dict(seed=5), dict(stream=5)], ids=str)
def test_choices_that_would_be_one_text_are_refused(llm: LLM, own: dict[str, int]):
    with pytest.raises(VLLMValidationError, match=r"n must be 1 .* got 3"):
        ids_of(llm, FEW[:1], request(seed=None, n=3, extra=own, **CHAIN))


def test_without_a_seed(llm: LLM):
    """Each request has a stream of its own, of the engine's seed."""
    asked = [request(seed=None, **CHAIN)] * 4
    first, second = (ids_of(llm, FEW[:1] * 4, asked) for _ in range(2))
    assert len({tuple(ids) for ids in first + second}) == 8
    assert [len(ids) for ids in first] == [LENGTH] * 4
    choices = ids_of(llm, FEW[:1], request(seed=None, n=3, **CHAIN))
    assert len({tuple(ids) for ids in choices}) == 3


def test_a_stream_without_a_seed_is_one_of_the_engines_seed(llm: LLM):
    assert ids_of(llm, FEW[:1], request(5, seed=None, **CHAIN)) == alea_ids(FEW[:1], [5], seed=0, **CHAIN)


def test_logit_bias(llm: LLM):
    ids = texts(llm, **CHAIN, logit_bias={300: 3.0, 310: -5.0})
    assert ids == alea_ids(FEW, **CHAIN, logit_bias={300: 3.0, 310: -5.0})
    assert ids != alea_ids(FEW, **CHAIN)
    assert texts(llm, **CHAIN, logit_bias={300: 100.0}) == [[300] * LENGTH] * len(FEW)


def test_bad_words(llm: LLM):
    """The word is in the text without the ban, and at that place the text changes."""
    free = llm.generate(FEW[:1], request(0, **CHAIN), use_tqdm=False)[0].outputs[0].text
    word = re.findall(r" (\w+)(?= )", free)[1]
    banned = llm.generate(FEW[:1], request(0, **CHAIN, bad_words=[word]), use_tqdm=False)[0].outputs[0].text
    assert banned.startswith(free[: free.index(f" {word}")]) and f" {word} " not in banned


def test_allowed_token_ids(llm: LLM):
    allowed = list(range(300, 330))
    everything_else = {token: -100.0 for token in range(4096) if token not in allowed}
    assert texts(llm, **CHAIN, allowed_token_ids=allowed) == alea_ids(FEW, **CHAIN, logit_bias=everything_else)


def test_min_tokens(llm: LLM):
    """The end has no mass before its time, and the draws before it stay as they are."""
    plain = alea_ids(FEW, **CHAIN)
    stop = plain[0][5]
    (stopped,) = ids_of(llm, FEW[:1], request(0, **CHAIN, stop_token_ids=[stop]))
    assert stopped == plain[0][: plain[0].index(stop) + 1]
    place = plain[0].index(stop)
    (longer,) = ids_of(llm, FEW[:1], request(0, **CHAIN, stop_token_ids=[stop], min_tokens=place + 3))
    assert longer[:place] == plain[0][:place] and stop not in longer[: place + 3] and len(longer) >= place + 3


def test_stop_strings(llm: LLM):
    (free,) = llm.generate(FEW[:1], request(0, **CHAIN), use_tqdm=False)[0].outputs
    word = free.text.split()[5]
    (stopped,) = llm.generate(FEW[:1], request(0, **CHAIN, stop=[word]), use_tqdm=False)[0].outputs
    assert stopped.text == free.text[: free.text.index(word)]
    assert list(stopped.token_ids) == list(free.token_ids)[: len(stopped.token_ids)]


PATTERN = "(red|blue|green) dragons (sleep|dance), [0-9]{3} of them"


def test_text_that_follows_a_pattern(llm: LLM):
    form = StructuredOutputsParams(regex=PATTERN)
    asked = [request(i, temperature=0.9, structured_outputs=form, ignore_eos=False) for i in range(len(FEW))]
    replies = llm.generate(FEW, asked, use_tqdm=False)
    found = [reply.outputs[0].text for reply in replies]
    assert all(re.fullmatch(PATTERN, text) for text in found), found
    assert len(set(found)) > 1
