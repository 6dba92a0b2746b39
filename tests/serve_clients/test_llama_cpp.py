"""Oracle: what the tests of llama.cpp's server ask of it (ggml-org/llama.cpp, tools/server/tests/unit).

They start llama.cpp's own binary and assert the words of its toy models, so they can't run against another server as
they are. Here are the requests that apply to any model, written anew, each under the name of theirs:

    theirs                  here
    test_basic              test_health; the model's list is in test_errors.py. Not /props, /slots, the web page
    test_completion         the tests named test_completion... below; not several prompts in one request, slots,
                            response_fields, post_sampling_probs, images
    test_tokenize           all three
    test_chat_completion    in test_chat.py and test_errors.py, through openai's client as theirs are; not their names
                            of grammars (the next issue), timings, chat templates by flag, /apply-template
    test_security           keys: test_errors.py; CORS below; not the web page, files of images
    test_ignore_eos         in test_settings.py
    none of the others      embeddings, rerank, infill, LoRA, slots, speculative decoding, vision, tools, Anthropic's
                            API, the router: /v1 has no such routes, and answers 404
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import ORIGIN
from openai import DefaultHttpxClient
from replies import events

PROMPT = "I believe the meaning of life is"


class Server:
    """A server, asked as llama.cpp's tests ask theirs."""

    def __init__(self, url: str) -> None:
        self.http = DefaultHttpxClient(base_url=url, timeout=60)

    def post(self, path: str, expected: int = 200, **fields: Any) -> Any:
        reply = self.http.post(path, json=fields)
        assert reply.status_code == expected, reply.text
        return reply.json()

    def stream(self, path: str, **fields: Any) -> list[dict[str, Any]]:
        reply = self.http.post(path, json=fields | {"stream": True})
        assert reply.status_code == 200, reply.text
        return [json.loads(event) for event in events(reply.text) if event != "[DONE]"]


@pytest.fixture(scope="module")
def server(url: str) -> Server:
    return Server(url)


def test_health(server: Server):
    assert server.http.get("/health").status_code == 200


def test_completion(server: Server):
    body = server.post("/completion", prompt=PROMPT, n_predict=8, seed=42, ignore_eos=True, return_tokens=True)
    assert body["content"] and body["stop"] is True and body["truncated"] is False
    assert (body["stop_type"], body["tokens_predicted"]) == ("limit", 8)
    assert len(body["tokens"]) == 8 and all(type(token) is int for token in body["tokens"])
    assert body["tokens_evaluated"] == len(server.post("/tokenize", content=PROMPT, add_special=True)["tokens"])
    assert server.post("/completion", prompt=PROMPT, n_predict=8, seed=42)["tokens"] == []


def test_completion_stream_vs_non_stream(server: Server):
    whole = server.post("/completion", prompt=PROMPT, n_predict=8, seed=42)
    *parts, last = server.stream("/completion", prompt=PROMPT, n_predict=8, seed=42)
    assert "".join(part["content"] for part in [*parts, last]) == whole["content"]
    assert [part["stop"] for part in parts] == [False] * len(parts) and last["stop"] is True
    assert last["stop_type"] == whole["stop_type"]


def test_completion_stops(server: Server):
    whole = server.post("/completion", prompt=PROMPT, n_predict=20, seed=42)["content"]
    word = whole.split()[3]
    body = server.post("/completion", prompt=PROMPT, n_predict=20, seed=42, stop=[word])
    assert body["content"] == whole[: whole.index(word)]
    assert (body["stop_type"], body["stopping_word"]) == ("word", word)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completion_same_seed(server: Server, temperature: float):
    fields = dict(prompt=PROMPT, n_predict=32, seed=42, temperature=temperature)
    assert len({server.post("/completion", **fields)["content"] for _ in range(4)}) == 1


def test_completion_different_seed(server: Server):
    fields = dict(prompt=PROMPT, n_predict=32, temperature=1.0)
    assert len({server.post("/completion", **fields, seed=seed)["content"] for seed in range(4)}) == 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completion_cache_vs_nocache_prompt(server: Server, temperature: float):
    """Theirs is skipped at temperature 1: there a cached prompt may change the answer. Here it can't."""
    fields = dict(prompt=PROMPT * 8, n_predict=16, seed=42, temperature=temperature)
    cached, anew = (server.post("/completion", **fields, cache_prompt=cache)["content"] for cache in (True, False))
    assert cached == anew


def test_completion_long_input_prompt(server: Server):
    body = server.post("/completion", expected=400, prompt=PROMPT * 64, seed=42)
    assert body["error"]["code"] == "context_length_exceeded"


def test_completion_with_tokens_input(server: Server):
    tokens = server.post("/tokenize", content=PROMPT, add_special=True)["tokens"]
    fields = dict(n_predict=8, temperature=0.0)
    answers = [server.post("/completion", prompt=prompt, **fields)["content"] for prompt in (tokens, PROMPT)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("n_requests", [3, 6])
def test_completion_parallel(server: Server, n_requests: int):
    prompts = ["Write a very long book.", "Write another a poem.", "What is LLM?", "The sky is blue."]
    fields = [dict(prompt=prompts[i % 4], seed=42, temperature=1.0, n_predict=24) for i in range(n_requests)]
    with ThreadPoolExecutor(n_requests) as threads:
        together = list(threads.map(lambda body: server.post("/completion", **body)["content"], fields))
    assert together == [server.post("/completion", **body)["content"] for body in fields]


def check_probabilities(tokens: list[dict[str, Any]], most: int) -> None:
    for token in tokens:
        assert len(token["top_logprobs"]) == most
        for entry in (token, *token["top_logprobs"]):
            assert entry["id"] > 0 and entry["logprob"] <= 0
            assert type(entry["token"]) is str and type(entry["bytes"]) is list


def test_completion_n_probs(server: Server):
    fields = dict(prompt=PROMPT, n_predict=5, n_probs=10, temperature=0.0)
    whole = server.post("/completion", **fields)["completion_probabilities"]
    assert len(whole) == 5
    check_probabilities(whole, 10)
    parts = server.stream("/completion", **fields)
    streamed = [token for part in parts for token in part["completion_probabilities"]]
    assert streamed == whole


def test_completion_cancelled(server: Server):
    with server.http.stream("POST", "/completion", json=dict(prompt=PROMPT, n_predict=400, stream=True)) as reply:
        next(reply.iter_bytes())
    assert server.http.get("/health").status_code == 200
    assert server.post("/completion", prompt=PROMPT, n_predict=4)["content"]


def test_tokenize_detokenize(server: Server):
    content = "What is the capital of France ?"
    tokens = server.post("/tokenize", content=content)["tokens"]
    assert len(tokens) > 5
    assert server.post("/detokenize", tokens=tokens)["content"].strip() == content


def test_tokenize_with_bos(server: Server):
    without = server.post("/tokenize", content="What is the capital of France ?")["tokens"]
    with_bos = server.post("/tokenize", content="What is the capital of France ?", add_special=True)["tokens"]
    assert with_bos == [1, *without]


def test_tokenize_with_pieces(server: Server):
    content = "This is a test string with unicode 媽 and emoji 🤗"
    plain = server.post("/tokenize", content=content)["tokens"]
    tokens = server.post("/tokenize", content=content, with_pieces=True)["tokens"]
    assert [token["id"] for token in tokens] == plain
    pieces = [token["piece"] for token in tokens]  # a list of bytes where these are no UTF-8
    written = b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces)
    assert written.decode().strip() == content


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_cors_options(locked: str, origin: str):
    """Theirs answers every origin; here only those that were allowed."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "Authorization"}
    reply = Server(locked).http.options("/v1/completions", headers={"Origin": origin, **asked})
    assert reply.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)


def test_no_cors_unless_asked(server: Server):
    reply = server.http.get("/v1/models", headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in reply.headers
