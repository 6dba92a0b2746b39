"""Oracle: the messages of `samplers`; the same requests without the one that is refused."""

from __future__ import annotations

from typing import Any

import pytest
from engines import CHAIN, PROMPTS, alea_ids, ids_of, new_engine, request
from vllm import LLM
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.sampler import Sampler

WRONG = [
    ({"typical_p": 2.0}, r"typical_p must be .* got 2\.0"),
    ({"stream": "x"}, r"stream must be an integer .* got 'x'"),
    ({"stream": 2**63}, "stream must be an integer"),
    ({"seed": 1.5}, r"seed must be an integer .* got 1\.5"),
    ({"top_k": "many"}, "top_k .* 'many'"),
    ({"repetition_penalty": 1.2}, "repetition_penalty must be vLLM's own parameter, not in extra_args; got 1.2"),
]


@pytest.mark.parametrize(("extra", "message"), WRONG, ids=str)
def test_a_request_is_refused_by_name(llm: LLM, extra: dict[str, Any], message: str):
    """Alone: a request that waits with it is answered, and so is the next."""
    good = request(0, **CHAIN)
    expected = alea_ids(PROMPTS[:1], **CHAIN)
    llm.llm_engine.add_request("0", PROMPTS[0], good)
    with pytest.raises(VLLMValidationError, match=message):
        llm.llm_engine.add_request("1", PROMPTS[1], request(None, **CHAIN, extra=extra))
    replies = []
    while llm.llm_engine.has_unfinished_requests():
        replies += [reply for reply in llm.llm_engine.step() if reply.finished]
    assert [list(reply.outputs[0].token_ids) for reply in replies] == expected
    assert ids_of(llm, PROMPTS[:1], good) == expected


def test_keys_of_others_are_left_alone(llm: LLM):
    asked = request(0, **CHAIN, extra={"of_another_processor": [1, 2]})
    assert ids_of(llm, PROMPTS[:1], asked) == alea_ids(PROMPTS[:1], **CHAIN)


def test_an_unknown_sampler_is_refused(monkeypatch: pytest.MonkeyPatch):
    def sample(self, logits, rows, sampling_metadata):
        raise AssertionError

    monkeypatch.setattr(Sampler, "sample", sample)
    with pytest.raises(
        RuntimeError, match=r"needs a Sampler.sample with the parameters .*; this vLLM has self, logits, rows"
    ):
        new_engine()


def test_an_engine_without_draw_is_left_alone(llm: LLM):
    """In the process where `Sampler.sample` is replaced."""
    stock = new_engine(logits_processors=None)
    asked = [request(0, **CHAIN)] * 2
    first, second = ids_of(stock, PROMPTS[:2], asked), ids_of(stock, PROMPTS[:2], asked)
    assert first == second != alea_ids(PROMPTS[:2], [0, 0], **CHAIN)
    assert ids_of(llm, PROMPTS[:2], asked) == alea_ids(PROMPTS[:2], [0, 0], **CHAIN)
