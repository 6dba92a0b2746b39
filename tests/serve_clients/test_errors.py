"""Oracle: the exceptions of openai's client, which it raises by status, with the field that it reads from the body."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from conftest import KEY, openai_client
from openai import OpenAI
from replies import check_error

MESSAGES = [{"role": "user", "content": "Tell me of the king."}]
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("temperature", dict(temperature=-1)),
    ("temperature", dict(temperature="hot")),
    ("top_p", dict(top_p=-0.1)),
    ("top_p", dict(top_p=1.5)),
    ("n", dict(n=0)),
    ("n", dict(n=1.5)),
    ("max_tokens", dict(max_tokens=-1)),
    ("max_tokens", dict(max_tokens=True)),
    ("seed", dict(seed="seven")),
    ("stop", dict(stop=7)),
    ("stop", dict(stop=[""])),
    ("presence_penalty", dict(presence_penalty="x")),
    ("logit_bias", dict(logit_bias={"99999": 1})),
    ("logit_bias", dict(logit_bias={"310": 101})),
    ("logit_bias", dict(logit_bias=[310])),
    ("stream", dict(stream="yes")),
    ("stream_options", dict(stream=True, stream_options={"include_everything": True})),
    ("top_k", dict(extra_body=dict(top_k=-2))),
    ("min_p", dict(extra_body=dict(min_p=2))),
    ("repetition_penalty", dict(extra_body=dict(repetition_penalty=0))),
    ("allowed_token_ids", dict(extra_body=dict(allowed_token_ids=[]))),
    ("allowed_token_ids", dict(extra_body=dict(allowed_token_ids=[4096]))),
    ("stop_token_ids", dict(extra_body=dict(stop_token_ids="2"))),
    ("min_tokens", dict(extra_body=dict(min_tokens=-1))),
]
WRONG_IN_COMPLETIONS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", dict(prompt=None)),
    ("prompt", dict(prompt=[])),
    ("prompt", dict(prompt=[4096])),
    ("prompt", dict(prompt=[-1])),
    ("prompt", dict(prompt=["a", 1])),
    ("logprobs", dict(logprobs=-1)),
    ("logprobs", dict(logprobs=True)),
    ("best_of", dict(best_of=1, n=2)),
    ("best_of", dict(best_of=2, stream=True)),
    ("echo", dict(echo="yes")),
]
WRONG_IN_CHATS: list[tuple[str, dict[str, Any]]] = [
    ("messages", dict(messages=[])),
    ("messages", dict(messages="hello")),
    ("messages", dict(messages=[{"role": "user"}])),
    ("messages", dict(messages=[{"role": "wizard", "content": "a"}])),
    ("messages", dict(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])),
    ("top_logprobs", dict(top_logprobs=2)),
    ("top_logprobs", dict(logprobs=True, top_logprobs=-1)),
    ("logprobs", dict(logprobs=3)),
    ("response_format", dict(response_format={"type": "sound"})),
]


def refused(client: OpenAI, chat: bool, fields: dict[str, Any]) -> openai.BadRequestError:
    create = client.chat.completions.create if chat else client.completions.create
    prompt = dict(messages=MESSAGES) if chat else dict(prompt="The king")
    with pytest.raises(openai.BadRequestError) as caught:
        create(**dict(model="storyteller") | prompt | fields)
    return caught.value


@pytest.mark.parametrize("param, fields", WRONG + WRONG_IN_COMPLETIONS, ids=str)
def test_wrong_completions(param: str, fields: dict[str, Any], client: OpenAI):
    error = refused(client, False, fields)
    assert error.param.split("[")[0].split(".")[0] == param
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize("param, fields", WRONG + WRONG_IN_CHATS, ids=str)
def test_wrong_chats(param: str, fields: dict[str, Any], client: OpenAI):
    error = refused(client, True, fields)
    assert error.param.split("[")[0].split(".")[0] == param
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(
    "chat, fields",
    [
        (False, dict(prompt="king " * 600)),
        (False, dict(prompt=[[1], [1] * 512])),
        (False, dict(max_tokens=512)),
        (True, dict(messages=[{"role": "user", "content": "king " * 600}])),
        (True, dict(max_completion_tokens=512)),
    ],
    ids=["text", "ids", "max_tokens", "messages", "max_completion_tokens"],
)
def test_more_than_the_window(chat: bool, fields: dict[str, Any], client: OpenAI):
    assert refused(client, chat, fields).code == "context_length_exceeded"


def test_models(client: OpenAI):
    (model,) = client.models.list().data
    assert model.id == "storyteller"
    assert client.models.retrieve("storyteller") == model


def test_what_is_not_there(client: OpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-5", prompt="The king")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="storyteller", input="The king")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="storyteller", input="The king")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b'{"prompt": NaN}', b"\xff", b'{"a":' * 2000])
def test_bodies_that_are_no_object(body: bytes, url: str):
    with openai.DefaultHttpxClient() as http:
        reply = http.post(f"{url}/v1/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    check_error(reply.json())


def test_a_method_that_is_not_there(url: str):
    with openai.DefaultHttpxClient() as http:
        reply = http.get(f"{url}/v1/completions")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    check_error(reply.json())


def test_a_body_that_is_too_large(narrow: str):
    with openai.DefaultHttpxClient() as http:
        reply = http.post(f"{narrow}/v1/completions", json={"model": "storyteller", "prompt": "a" * 3000})
    assert reply.status_code == 413
    check_error(reply.json())


def test_a_wrong_key(locked: str):
    for key in ("open", KEY[:-1], KEY + "2"):
        with pytest.raises(openai.AuthenticationError):
            openai_client(locked, key, check=True).models.list()


def test_the_right_key(locked: str):
    assert openai_client(locked, KEY, check=True).models.list().data
    with openai.DefaultHttpxClient() as http:
        assert http.get(f"{locked}/health").status_code == 200
        assert http.get(f"{locked}/v1/models").status_code == 401


def at_once(client: OpenAI, **fields: Any) -> list[Any]:
    """Eight requests at the same time: their texts, or the errors."""

    def answer(_: int) -> Any:
        try:
            fixed = dict(model="storyteller", prompt="The king", seed=1, extra_body={"ignore_eos": True})
            return client.completions.create(**fixed, **fields).choices[0].text
        except openai.RateLimitError as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(answer, range(8)))


def test_a_full_queue(narrow: str):
    answers = at_once(openai_client(narrow, check=True), max_tokens=400)
    errors = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    assert errors and texts and len(set(texts)) == 1
    for error in errors:
        assert int(error.response.headers["retry-after"]) >= 1


def test_clients_that_try_again_are_served(narrow: str):
    answers = at_once(openai_client(narrow).with_options(max_retries=20), max_tokens=40)
    assert len(set(answers)) == 1 and isinstance(answers[0], str)
