"""Bodies of requests that are wrong somewhere, each a function of its number."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

VALID = {  # by path; every answer is short
    "/v1/completions": {"prompt": "The king", "max_tokens": 2, "seed": 7, "n": 2, "logprobs": 1, "stop": ["x"]},
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        **{"max_completion_tokens": 2, "logprobs": True, "top_logprobs": 2, "logit_bias": {"300": 5}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
    },
    "/tokenize": {"prompt": "The king"},
    "/detokenize": {"tokens": [300, 301]},
    "/inference": {"prompt": "The king", "max_tokens": 2, "temperature": 0.7, "stop": ["x"]},
    "/invocations": {"inputs": "The king", "parameters": {"max_new_tokens": 2, "temperature": 0.5}},
    "/generate": {"inputs": "The king", "parameters": {"max_new_tokens": 2, "top_p": 0.5, "details": True}},
    "/completion": {"prompt": "The king", "n_predict": 2, "top_k": 5, "grammar": 'root ::= "ab" [a-z]*'},
    "/v1/alea/trace": {
        "prompt": "The king",
        "max_tokens": 2,
        "seed": 7,
        "logits": True,
        "structured_outputs": {"regex": "[ab]+c"},
    },
}
ODD = (  # no value asks for a long answer
    *(None, True, False, 0, -1, 0.5, -0.0, 1e308, 1e-308, 2**31, 2**63, 2**64, 10**40, float("nan"), float("inf")),
    *("", "\0", "\ud800", "a\udc00b", "é" * 300, "NaN", "-1", [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}),
    *([-1], [2**40], ["a", 1], [1.5], {"300": "x"}, {"-1": 1}, {"99999999": 1}, [True]),
)
DEEP = (b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}")


def malformed(number: int) -> tuple[str, bytes]:
    """A path, and a body with one or two faults; a few of them happen to be valid."""
    random = Random(number)
    path = random.choice(list(VALID))
    body = json.loads(json.dumps(VALID[path]))
    if random.random() < 0.7:
        for _ in range(random.choice((1, 1, 2))):
            random.choice(FAULTS_OF_VALUES)(random, body)
        return path, json.dumps(body).encode()
    return path, random.choice(FAULTS_OF_BYTES)(random, json.dumps(body).encode())


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a body with each of its keys."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def replace(random: Random, body: dict[str, Any]) -> None:
    container, key = random.choice(places(body) or [(body, "prompt")])
    container[key] = random.choice(ODD)


def remove(random: Random, body: dict[str, Any]) -> None:
    container, key = random.choice(places(body) or [(body, "prompt")])
    if isinstance(container, dict):
        container.pop(key, None)
    else:
        container.clear()


def invent(random: Random, body: dict[str, Any]) -> None:
    names = ("tools", "suffix", "audio", "best_of", "echo", "stream", "seed", "top_k", "temperature", "nonsense", "")
    body[random.choice(names)] = random.choice(ODD)


def cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def flip(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def insert(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data))
    return data[:place] + random.randbytes(random.choice((1, 2, 30))) + data[place:]


FAULTS_OF_VALUES: tuple[Callable[[Random, dict[str, Any]], None], ...] = (replace, remove, invent)
FAULTS_OF_BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(cut, flip, insert),
    lambda random, data: random.choice(
        (b"", b"null", b"[]", b'"a"', b"\xff\xfe{", data + data, b"\xef\xbb\xbf" + data)
    ),
    lambda random, data: random.choice(DEEP),
)
