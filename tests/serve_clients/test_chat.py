"""Oracle: other requests to the same server, whose answers one request must repeat, part by part."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Tokenize
from openai import OpenAI
from openai.types.chat import ChatCompletion

QUESTION = "Tell me of the king."
MESSAGES = [{"role": "user", "content": QUESTION}]


def chat(client: OpenAI, **fields: Any) -> ChatCompletion:
    return client.chat.completions.create(
        **dict(model="storyteller", messages=MESSAGES, max_completion_tokens=12, seed=3) | fields
    )


def contents(reply: ChatCompletion) -> list[str | None]:
    return [choice.message.content for choice in reply.choices]


@pytest.mark.parametrize("fields", [{}, dict(n=2), dict(n=2, logprobs=True, top_logprobs=2)], ids=str)
def test_a_stream_holds_the_same_answer(client: OpenAI, fields: dict[str, Any]):
    whole = chat(client, **fields)
    chunks = list(chat(client, **fields, stream=True))
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert [part.delta.role for part in parts] == ["assistant"] + [None] * (len(parts) - 1)
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [choice.finish_reason]
        if choice.logprobs:
            joined = [token for part in parts if part.logprobs for token in part.logprobs.content or []]
            assert joined == choice.logprobs.content
    assert all(chunk.usage is None for chunk in chunks)


def test_the_usage_of_a_stream(client: OpenAI):
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == chat(client).usage
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_openais_own_reader_of_streams(client: OpenAI):
    with client.chat.completions.stream(model="storyteller", messages=MESSAGES, max_tokens=12, seed=3) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == contents(chat(client))[0]


def test_content_in_parts(client: OpenAI):
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "of the king."}]
    assert contents(chat(client, messages=[{"role": "user", "content": parts}])) == contents(chat(client))


def test_a_longer_conversation(client: OpenAI):
    turns = [{"role": "assistant", "content": "There was a king."}, {"role": "user", "content": "And the queen?"}]
    short, long = chat(client), chat(client, messages=[*MESSAGES, *turns])
    assert long.usage.prompt_tokens > short.usage.prompt_tokens
    assert contents(long) != contents(short)


def test_max_completion_tokens_goes_before_max_tokens(client: OpenAI):
    both = chat(client, max_completion_tokens=3, max_tokens=9)
    assert both.usage.completion_tokens <= 3
    assert contents(both) == contents(chat(client, max_completion_tokens=3))


def test_response_format_text(client: OpenAI):
    assert contents(chat(client, response_format={"type": "text"})) == contents(chat(client))


def test_logprobs(client: OpenAI):
    (choice,) = chat(client, logprobs=True, top_logprobs=4, temperature=0).choices
    for token in choice.logprobs.content:
        assert bytes(token.bytes).decode(errors="replace") == token.token
        assert len(token.top_logprobs) == 4
        assert token.logprob == token.top_logprobs[0].logprob <= 0
        logprobs = [top.logprob for top in token.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
    written = b"".join(bytes(token.bytes) for token in choice.logprobs.content).decode()
    assert written.strip().startswith(choice.message.content)


def test_no_logprobs_unless_asked(client: OpenAI):
    assert chat(client).choices[0].logprobs is None
    (choice,) = chat(client, logprobs=True).choices
    assert all(token.top_logprobs == [] for token in choice.logprobs.content)


def test_stop(client: OpenAI):
    (whole,) = contents(chat(client, max_completion_tokens=30))
    word = whole.split()[3]
    reply = chat(client, max_completion_tokens=30, stop=word)
    assert contents(reply) == [whole[: whole.index(word)].strip()]
    assert reply.choices[0].finish_reason == "stop"


def test_logit_bias(client: OpenAI, tokenize: Tokenize):
    (king,) = tokenize("king", add_special_tokens=False)
    assert contents(chat(client, logit_bias={str(king): 100}, max_completion_tokens=3)) == ["king king king"]
