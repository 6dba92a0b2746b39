"""One request with a seed, one answer. Oracles: its answer when it is the only one; `generate`."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from bench.exactness import promise
from bench.speed.requests import SAMPLING, timed, varied
from bench.speed.servers import Server
from model import Llama, Tokenizer, generate
from tests.model.serve.running import eventually, is_at_rest, posted, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.mark.parametrize(("count", "clients"), [(16, 16), pytest.param(500, 64, marks=pytest.mark.exhaustive)])
def test_one_answer_alone_and_under_load_before_and_after_a_restart(server, tmp_path, count, clients):
    """Then with two threads and a smaller batch."""
    requests = list(map(varied, range(count)))
    alone = asyncio.run(promise.alone(server.url, requests))
    loaded = asyncio.run(promise.under_load(server.url, requests, clients, Random(1)))
    assert promise.differences(requests, alone, loaded) == []
    assert eventually(lambda: is_at_rest(server))
    with serving(tmp_path, "--max-batch", 7, threads=2) as restarted:
        again = asyncio.run(promise.under_load(restarted.url, requests, clients, Random(2)))
        assert promise.differences(requests, alone, again) == []
        assert eventually(lambda: is_at_rest(restarted))


def test_answers_are_those_of_generate(server):
    model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    requests = [timed(number).streamed(False) for number in range(6)]
    answers = posted(server.url, *((request.path, request.body) for request in requests))
    for request, answer in zip(requests, answers, strict=True):
        limits = dict(max_new_tokens=request.body["max_tokens"], seed=request.body["seed"], stream=[0])
        ((expected,),) = generate(model, tokenizer, request.body["prompt"], **limits, **SAMPLING)
        assert answer.json()["choices"][0]["text"] == expected.text
