"""Oracle: the keys of openai's own request types. Each is served, accepted without effect, or refused by name.

A key that a new version of openai adds is in none of the tables, and fails the test until somebody decides.
"""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
MESSAGES = [{"role": "user", "content": "Tell me of the king."}]

SERVED: dict[str, Any] = {
    "model": "storyteller",
    "temperature": 0.5,
    "top_p": 0.5,
    "n": 2,
    "max_tokens": 3,
    "stop": ["x"],
    "seed": 5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"310": 1},
    "stream": False,
}
COMPLETION_SERVED = SERVED | {"prompt": "The king", "best_of": 1, "echo": True, "logprobs": 1}
CHAT_SERVED = SERVED | {
    "messages": MESSAGES,
    "max_completion_tokens": 3,
    "logprobs": True,
    "top_logprobs": 1,
    "response_format": {"type": "text"},
}
WITHOUT_EFFECT: dict[str, Any] = {
    "user": "u",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "parallel_tool_calls": True,  # where there are no tools
    "prediction": {"type": "content", "content": "a"},  # of the answer, which it only speeds up
}
REFUSED: dict[str, Any] = {
    "suffix": "The end.",
    "tools": [TOOL],
    "tool_choice": "required",
    "functions": [TOOL["function"]],
    "function_call": {"name": "f"},
    "audio": {"format": "wav", "voice": "alloy"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "web_search_options": {},
}
ONLY_WITH_A_STREAM = {"stream_options": {"include_usage": True}}
NULLABLE = ["suffix", "audio", "modalities", "moderation", "prediction", "reasoning_effort", "verbosity"]


def keys(*types: Any) -> list[str]:
    return sorted(set().union(*(kind.__required_keys__ | kind.__optional_keys__ for kind in types)))


COMPLETION_KEYS = keys(
    completion_create_params.CompletionCreateParamsNonStreaming,
    completion_create_params.CompletionCreateParamsStreaming,
)
CHAT_KEYS = keys(
    chat_create_params.CompletionCreateParamsNonStreaming, chat_create_params.CompletionCreateParamsStreaming
)


def send(client: OpenAI, chat: bool, **fields: Any) -> Any:
    """The choices. A key may be one that the client's own method doesn't take at this endpoint."""
    common = dict(model="storyteller", seed=1, max_tokens=4)
    body = common | (dict(messages=MESSAGES) if chat else dict(prompt="The king")) | fields
    return client.post("/chat/completions" if chat else "/completions", body=body, cast_to=dict)["choices"]


@pytest.mark.parametrize(
    "chat, key", [(False, key) for key in COMPLETION_KEYS] + [(True, key) for key in CHAT_KEYS], ids=str
)
def test_every_key_of_openais_types(chat: bool, key: str, client: OpenAI):
    served = CHAT_SERVED if chat else COMPLETION_SERVED
    if key in served:
        extra = {"logprobs": True} if key == "top_logprobs" else {}
        assert send(client, chat, **extra, **{key: served[key]})
    elif key in WITHOUT_EFFECT:
        assert send(client, chat, **{key: WITHOUT_EFFECT[key]}) == send(client, chat)
    elif key in ONLY_WITH_A_STREAM:  # served by streams: test_completions.py and test_chat.py
        with pytest.raises(BadRequestError) as caught:
            send(client, chat, **{key: ONLY_WITH_A_STREAM[key]})
        assert caught.value.param == key
    else:
        with pytest.raises(BadRequestError) as caught:
            send(client, chat, **{key: REFUSED[key]})
        assert caught.value.param == key
        assert key in caught.value.message


@pytest.mark.parametrize("key", NULLABLE)
def test_null_means_not_given(key: str, client: OpenAI):
    chat = key in CHAT_KEYS
    assert send(client, chat, **{key: None}) == send(client, chat)


@pytest.mark.parametrize("chat", [False, True])
def test_an_unknown_key(chat: bool, client: OpenAI):
    with pytest.raises(BadRequestError) as caught:
        send(client, chat, tempreature=1)
    assert caught.value.param == "tempreature"


@pytest.mark.parametrize("key", ["suffix", "best_of", "echo", "prompt"])
def test_a_key_of_completions_in_a_chat(key: str, client: OpenAI):
    with pytest.raises(BadRequestError) as caught:
        send(client, True, **{key: (REFUSED | COMPLETION_SERVED)[key]})
    assert caught.value.param == key
