"""Oracle: alea's own `generate`, whatever vLLM does with the requests on the way."""

from __future__ import annotations

import pytest
from engines import CHAIN, LONG, PROMPTS, alea_ids, ids_of, new_engine, request, requests
from vllm import LLM
from vllm.v1.core.sched.scheduler import Scheduler

SHORT = PROMPTS[:16]
ASKED = requests(len(SHORT), **CHAIN)


@pytest.fixture(scope="module")
def short() -> list[list[int]]:
    return alea_ids(SHORT, **CHAIN)


@pytest.fixture(scope="module")
def long() -> list[list[int]]:
    return alea_ids(LONG, **CHAIN)


def test_four_requests_at_a_time(short: list, long: list):
    llm = new_engine(max_num_seqs=4)
    assert ids_of(llm, SHORT, ASKED) == short
    assert ids_of(llm, LONG, ASKED[:4]) == long


@pytest.mark.parametrize("size", [3, 16])
def test_requests_that_come_and_go(size: int):
    """Each leaves at a step of its own, and others take or change their rows."""
    lengths = [1 + 11 * place % 37 for place in range(48)]
    asked = [request(stream, **CHAIN, max_tokens=length) for stream, length in enumerate(lengths)]
    expected = alea_ids(PROMPTS[:48], **CHAIN, max_new_tokens=max(lengths))
    ids = ids_of(new_engine(max_num_seqs=size), PROMPTS[:48], asked)
    assert ids == [text[:length] for text, length in zip(expected, lengths, strict=True)]


def test_sixteen_requests_at_a_time(llm: LLM, short: list, long: list):
    assert ids_of(llm, SHORT, ASKED) == short
    assert ids_of(llm, LONG, ASKED[:4]) == long


def test_prompts_in_chunks(short: list, long: list):
    """Of 64 tokens a step: a prompt that is not read to its end gets a row, whose token is thrown away."""
    llm = new_engine(max_num_batched_tokens=64)
    assert min(len(reply.prompt_token_ids) for reply in llm.generate(LONG, ASKED[:4], use_tqdm=False)) > 200
    assert ids_of(llm, SHORT, ASKED) == short
    assert ids_of(llm, LONG, ASKED[:4]) == long


def test_preemption(monkeypatch: pytest.MonkeyPatch):
    """Eight requests outgrow the blocks of six: some are thrown out, and begin again later at their last token."""
    preempted = []
    real = Scheduler._preempt_request

    def counted(self, request, *arguments, **keywords):
        preempted.append(request.num_output_tokens)
        return real(self, request, *arguments, **keywords)

    monkeypatch.setattr(Scheduler, "_preempt_request", counted)
    llm = new_engine(num_gpu_blocks_override=14, block_size=128)
    ids = ids_of(llm, PROMPTS[:8], requests(8, **CHAIN, max_tokens=200))
    assert len(preempted) > 0 and max(preempted) > 0
    assert ids == alea_ids(PROMPTS[:8], **CHAIN, max_new_tokens=200)
