"""Replies held against openai's own types: the right types without coercion, and not a field that they lack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel

KINDS: dict[str, type[BaseModel]] = {
    "text_completion": Completion,  # a chunk of a stream as well
    "chat.completion": ChatCompletion,
    "chat.completion.chunk": ChatCompletionChunk,
    "model": Model,
}


def check_reply(response: Any) -> None:
    """A hook for httpx: an assertion fails unless the reply is one that openai's types describe."""
    text = response.read().decode()
    if response.is_error:
        check_error(json.loads(text))
    elif response.headers["content-type"].startswith("text/event-stream"):
        check_events(text)
    else:
        check_object(json.loads(text))


def check_object(reply: dict[str, Any]) -> None:
    if reply["object"] == "list":
        assert reply.keys() == {"object", "data"}, reply.keys()
        for item in reply["data"]:
            check_object(item)
    else:
        validate(KINDS[reply["object"]], reply)


def check_error(reply: dict[str, Any]) -> None:
    assert reply.keys() == {"error"}, reply
    assert reply["error"].keys() == {"message", "type", "param", "code"}, reply
    validate(ErrorObject, reply["error"])


def check_events(text: str) -> None:
    """The events of a stream: data lines with JSON, one [DONE], the last. All have the same id."""
    *chunks, done = events(text)
    assert done == "[DONE]", text
    ids = set()
    for chunk in map(json.loads, chunks):
        check_object(chunk)
        ids.add(chunk["id"])
    assert len(ids) == 1, ids


def events(text: str) -> list[str]:
    """The data of server-sent events, each of which is one line here.

    >>> events("data: {}\\n\\ndata: [DONE]\\n\\n")
    ['{}', '[DONE]']
    """
    assert text.endswith("\n\n"), text[-40:]
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines), text
    return [line.removeprefix("data: ") for line in lines]


def validate(kind: type[BaseModel], reply: dict[str, Any]) -> None:
    given = without_known_nulls(reply) if kind is Completion else reply
    parsed = kind.model_validate_json(json.dumps(given), strict=True)
    assert not (unknown := list(unknown_fields(parsed))), f"{kind.__name__} lacks {unknown}"


def without_known_nulls(completion: dict[str, Any]) -> dict[str, Any]:
    """A completion without the two nulls that OpenAI's API sends and its types lack.

    A chunk has no finish_reason before the last. With `echo`, the first token has no logprob, since nothing is
    before it.
    """

    def choice_without(choice: dict[str, Any]) -> dict[str, Any]:
        logprobs = choice.get("logprobs")
        if logprobs:
            lists = {name: logprobs.get(name) for name in ("token_logprobs", "top_logprobs")}
            filled = {name: list_[1:] if list_ and list_[0] is None else list_ for name, list_ in lists.items()}
            logprobs = {**logprobs, **filled}
        return {**choice, "finish_reason": choice["finish_reason"] or "stop", "logprobs": logprobs}

    return {**completion, "choices": list(map(choice_without, completion["choices"]))}


def unknown_fields(value: Any, path: str = "") -> Iterator[str]:
    """Where a parsed reply has fields that its type doesn't declare; openai's types keep them as extras."""
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}".lstrip(".") for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from unknown_fields(item, f"{path}[{i}]")
