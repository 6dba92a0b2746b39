"""Oracle: alea's own `generate`, for requests over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from engines import CHAIN, LENGTH, MODEL, PROMPTS, SEED, alea_ids, storyteller


def ask(server: httpx.Client, prompt: str = PROMPTS[0], **options: Any) -> httpx.Response:
    fields = dict(model=str(MODEL), prompt=prompt, max_tokens=LENGTH, ignore_eos=True, seed=SEED, top_p=1.0)
    return server.post("/v1/completions", json=fields | options)


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"]


def alea_text(prompt: str, stream: int, **options: Any) -> str:
    """As vLLM shows it: what is added to the prompt's own text."""
    _, tokenizer = storyteller()
    start = tokenizer.encode(prompt)
    return tokenizer.decode(start + alea_ids([prompt], [stream], **options)[0]).removeprefix(tokenizer.decode(start))


def test_fields_and_xargs(server: httpx.Client):
    reply = ask(server, temperature=0.9, vllm_xargs={"stream": 3, "typical_p": 0.9})
    assert text_of(reply) == alea_text(PROMPTS[0], 3, temperature=0.9, typical_p=0.9)
    for prompt in PROMPTS[:3]:
        assert text_of(ask(server, prompt, **CHAIN)) == alea_text(prompt, 0, **CHAIN)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"typical_p": 2.0}, "typical_p must be"),
        ({"stream": "x"}, "stream must be an integer"),
        ({"repetition_penalty": 1.2}, "repetition_penalty must be vLLM's own parameter"),
    ],
    ids=str,
)
def test_a_request_is_refused_by_name(server: httpx.Client, extra: dict[str, Any], message: str):
    """And the next is answered."""
    reply = ask(server, vllm_xargs=extra)
    assert reply.status_code == 400 and message in reply.json()["error"]["message"]
    assert text_of(ask(server, **CHAIN)) == alea_text(PROMPTS[0], 0, **CHAIN)
