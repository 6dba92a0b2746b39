"""Oracle: other requests to the same server, whose answers one request must repeat, part by part."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from conftest import Tokenize
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion

PROMPT = "Once upon a time"


def complete(client: OpenAI, **fields: Any) -> Completion:
    return client.completions.create(**dict(model="storyteller", prompt=PROMPT, max_tokens=12, seed=3) | fields)


def texts(reply: Completion) -> list[str]:
    return [choice.text for choice in reply.choices]


@pytest.mark.parametrize(
    "fields", [{}, dict(n=2, logprobs=3), dict(prompt=["The king", "The queen"], echo=True)], ids=str
)
def test_a_stream_holds_the_same_answer(client: OpenAI, fields: dict[str, Any]):
    whole = complete(client, **fields)
    chunks = list(complete(client, **fields, stream=True))
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [choice.finish_reason]
        if choice.logprobs:
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                joined = [value for part in parts if part.logprobs for value in getattr(part.logprobs, name)]
                assert joined == getattr(choice.logprobs, name), name
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}


def test_the_usage_of_a_stream(client: OpenAI):
    *chunks, last = complete(client, n=2, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == complete(client, n=2).usage
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_text_comes_in_parts(client: OpenAI):
    assert len([chunk for chunk in complete(client, stream=True) if chunk.choices[0].text]) > 6


def test_the_prompt_as_token_ids(client: OpenAI, tokenize: Tokenize):
    ids = tokenize(PROMPT)
    assert texts(complete(client, prompt=ids)) == texts(complete(client))
    both = complete(client, prompt=[ids, ids])
    assert texts(both) == texts(complete(client, prompt=[PROMPT, PROMPT])) and len(both.choices) == 2
    assert both.usage.prompt_tokens == 2 * len(ids)


def test_usage(client: OpenAI, tokenize: Tokenize):
    usage = complete(client, n=3, extra_body={"ignore_eos": True}).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(tokenize(PROMPT)), 36)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_without_a_limit_there_are_16_tokens(client: OpenAI):
    reply = client.completions.create(model="storyteller", prompt=PROMPT, seed=3)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (16, "length")


def test_best_of(client: OpenAI):
    four = complete(client, n=4, logprobs=0)
    means = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in four.choices]
    ranked = [choice.text for _, choice in sorted(zip(means, four.choices, strict=True), key=lambda pair: -pair[0])]
    best = complete(client, n=2, best_of=4)
    assert texts(best) == ranked[:2]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == four.usage.completion_tokens


def test_echo(client: OpenAI):
    plain = complete(client, logprobs=2).choices[0]
    echoed = complete(client, logprobs=2, echo=True).choices[0]
    assert echoed.text == PROMPT + plain.text
    added = len(echoed.logprobs.tokens) - len(plain.logprobs.tokens)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert getattr(echoed.logprobs, name)[added:] == getattr(plain.logprobs, name), name
    assert echoed.logprobs.token_logprobs[0] is None and echoed.logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in echoed.logprobs.token_logprobs[1:])


def test_echo_without_a_continuation(client: OpenAI, tokenize: Tokenize):
    longer = complete(client, logprobs=1, echo=True).choices[0].logprobs
    reply = complete(client, logprobs=1, echo=True, max_tokens=0)
    (choice,) = reply.choices
    length = len(tokenize(PROMPT))
    assert (choice.text, choice.finish_reason, reply.usage.completion_tokens) == (PROMPT, "length", 0)
    assert choice.logprobs.token_logprobs == longer.token_logprobs[:length]


def test_the_offsets_of_tokens(client: OpenAI):
    (choice,) = complete(client, logprobs=0, echo=True).choices
    places = [*choice.logprobs.text_offset, len(choice.text)]
    drawn = [choice.text[start:end] for start, end in pairwise(places)]
    assert drawn[-12:] == choice.logprobs.tokens[-12:]
    assert places == sorted(places)


def test_logprobs_of_the_most_probable(client: OpenAI):
    (choice,) = complete(client, logprobs=5, temperature=0).choices
    for logprob, top in zip(choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True):
        assert len(top) == 5 and max(top.values()) == logprob
    (choice,) = complete(client, logprobs=5).choices
    for token, logprob, top in zip(
        choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert len(top) in (5, 6) and top[token] == logprob


def test_no_logprobs_unless_asked(client: OpenAI):
    assert complete(client).choices[0].logprobs is None


def test_logit_bias(client: OpenAI, tokenize: Tokenize):
    was, king = tokenize("was king", add_special_tokens=False)
    assert texts(complete(client, logit_bias={str(king): 100}, max_tokens=3)) == [" king king king"]
    (either,) = texts(complete(client, logit_bias={str(king): 100, str(was): 100}, max_tokens=40, temperature=1))
    assert set(either.split()) == {"king", "was"}
    (greedy,) = complete(client, temperature=0, logprobs=1).choices
    (first,) = tokenize(greedy.logprobs.tokens[0].strip(), add_special_tokens=False)
    (other,) = complete(client, temperature=0, logprobs=1, logit_bias={str(first): -100}).choices
    assert other.logprobs.tokens[0] != greedy.logprobs.tokens[0]


def test_the_seed_that_was_drawn(client: OpenAI):
    fields = dict(model="storyteller", prompt=PROMPT, max_tokens=20)
    first, second = (client.completions.with_raw_response.create(**fields) for _ in range(2))
    seeds = [int(raw.headers["x-alea-seed"]) for raw in (first, second)]
    assert seeds[0] != seeds[1]
    for raw, seed in zip((first, second), seeds, strict=True):
        assert texts(client.completions.create(**fields, seed=seed)) == texts(raw.parse())
    for stream in (False, True):
        given = client.completions.with_raw_response.create(**fields, seed=12, stream=stream)
        assert given.headers["x-alea-seed"] == "12"


def test_the_same_alone_and_together(url: str, client: OpenAI):
    alone = [complete(client, seed=seed, max_tokens=5 + seed, logprobs=1).choices for seed in range(12)]

    async def together() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            fields = dict(model="storyteller", prompt=PROMPT, logprobs=1)
            calls = (client.completions.create(**fields, seed=seed, max_tokens=5 + seed) for seed in range(12))
            return [reply.choices for reply in await asyncio.gather(*calls)]

    assert asyncio.run(together()) == alone


def test_a_reader_who_leaves_early(client: OpenAI):
    expected = texts(complete(client))
    with complete(client, stream=True, max_tokens=400) as stream:
        next(iter(stream))
    assert texts(complete(client)) == expected
