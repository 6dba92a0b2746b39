"""Texts of a given form. Oracle: pydantic, json and re, and openai's client, which reads the answers."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

MESSAGES: Any = [{"role": "user", "content": "Who lived in the wood?"}]


class Child(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["Hans", "Grethel"]
    is_old: bool
    friends: Annotated[list[Literal["a fox", "a bird"]], Field(max_length=2)]


def test_a_class_of_pydantic(client: OpenAI):
    asked = dict(model="storyteller", messages=MESSAGES, max_completion_tokens=200, response_format=Child)
    replies = [client.chat.completions.parse(**asked, seed=seed) for seed in (7, 7, 8, 9)]
    children = [reply.choices[0].message.parsed for reply in replies if reply.choices[0].finish_reason == "stop"]
    assert len(children) >= 3 and all(isinstance(child, Child) for child in children)
    assert replies[0].choices[0].message.content == replies[1].choices[0].message.content


def test_a_stream(client: OpenAI):
    schema = {"name": "child", "schema": Child.model_json_schema(), "strict": True}
    asked = dict(model="storyteller", messages=MESSAGES, seed=7, max_completion_tokens=200)
    asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(pieces) == whole and Child.model_validate_json(whole)


def complete(client: OpenAI, **structured: Any) -> str:
    body = {"structured_outputs": structured}
    reply = client.completions.create(
        model="storyteller", prompt="The king", seed=3, max_tokens=80, logprobs=1, extra_body=body
    )
    return reply.choices[0].text


def test_what_vllm_has(client: OpenAI):
    assert re.fullmatch(" [a-z]{2,5}!", complete(client, regex=" [a-z]{2,5}!"))
    assert complete(client, choice=[" was old", " was young"]) in (" was old", " was young")
    assert re.fullmatch(r"\(*x\)*", complete(client, grammar='root ::= "(" root ")" | "x"'))
    assert json.loads(complete(client, json={"enum": [{"a": [1]}, None]})) in ({"a": [1]}, None)


def test_a_grammar_that_can_not_be_followed(client: OpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, regex="(")
    assert caught.value.param == "structured_outputs.regex" and caught.value.code == "invalid_grammar"
