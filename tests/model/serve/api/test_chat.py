"""Oracles: `ChatSession`, which answers the same messages; the stream is the whole in pieces."""

import pytest

from model.chat import Conversation
from model.chat.session import ChatSession
from model.serve.api.chat import ChatBody
from model.serve.api.errors import Refusal

QUESTION = [{"role": "user", "content": "Who are you?"}]


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_that_of_a_chat(asking, seed):
    service = asking.service
    conversation = Conversation(service.tokenizer, window=512, reserved=20, template="plain", system="A fox came.")
    answer = ChatSession(service.llama, service.tokenizer, conversation, seed=seed).say("Who are you?")
    messages = [{"role": "developer", "content": [{"type": "text", "text": "A fox came."}]}, *QUESTION]
    body = dict(messages=messages, seed=seed, max_completion_tokens=20)
    (choice,) = asking.whole(ChatBody, **body)["choices"]
    assert choice["message"] == {"role": "assistant", "content": answer.text, "refusal": None}
    first, *events = asking.streamed(ChatBody, **body, stream=True, stream_options={"include_usage": True})
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    *parts, usage, done = events
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == answer.text
    assert parts[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == len(answer.ids) and done == "[DONE]"


def test_logprobs_name_every_token_and_its_bytes(asking):
    body = dict(messages=QUESTION, seed=1, max_tokens=8, logprobs=True, top_logprobs=2)
    (choice,) = asking.whole(ChatBody, **body)["choices"]
    content = choice["logprobs"]["content"]
    assert bytes(byte for token in content for byte in token["bytes"]).decode().strip() == choice["message"]["content"]
    for token in content:
        first, second = token["top_logprobs"]
        assert first["logprob"] >= second["logprob"] and first["logprob"] >= token["logprob"]
    events = asking.streamed(ChatBody, **body, stream=True)[1:-1]
    assert [one for event in events for one in event["choices"][0]["logprobs"]["content"]] == content


REFUSED = [
    (dict(messages=[]), "messages"),
    (dict(messages=[{"role": "tool", "content": "A"}]), "messages[0].role"),
    (dict(messages=[{"role": "assistant", "content": "A"}]), "messages[0]"),
    (dict(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "A"}]}]), "messages[0].content"),
    (dict(messages=QUESTION, tools=[{}]), "tools"),
    (dict(messages=QUESTION, modalities=["audio"]), "modalities"),
    (dict(messages=QUESTION, top_logprobs=2), "top_logprobs"),
    (dict(messages=QUESTION, stream=True, prompt_logprobs=1), "prompt_logprobs"),
    (dict(messages=[{"role": "user", "content": "king " * 600}]), "messages"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_wrong_is_named(asking, fields, param):
    with pytest.raises(Refusal) as refusal:
        asking.prepared(ChatBody, **fields)
    assert (refusal.value.status, refusal.value.param) == (400, param)


def test_without_a_template_chats_are_refused(asking, monkeypatch):
    monkeypatch.setattr(asking.service, "template", "")
    with pytest.raises(Refusal, match="--template"):
        asking.prepared(ChatBody, messages=QUESTION)
