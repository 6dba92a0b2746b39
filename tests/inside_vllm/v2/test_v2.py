"""Oracle: alea's own `generate`. Where a text differs, the random number must lie at the edge of an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from engines import (
    CHAIN,
    PROMPTS,
    SEED,
    Ids,
    alea_ids,
    draw_of,
    ids_of,
    min_p_first_ids,
    new_engine,
    next_logits,
    request,
    requests,
    runner_of,
    watched_logits,
)
from vllm import LLM
from vllm.exceptions import VLLMValidationError
from vllm.v1.core.sched.scheduler import Scheduler

import samplers

FEW, STEPS = PROMPTS[:4], 8
SHORT = dict(max_tokens=STEPS)
EDGE = 1e-5  # of the total
BATCHES = {
    "filters": [dict(typical_p=0.8), dict(epsilon_cutoff=0.01), dict(eta_cutoff=0.05), dict(min_p=0.1)],
    "penalties": [
        CHAIN | dict(repetition_penalty=1.3),
        CHAIN | dict(presence_penalty=0.5, frequency_penalty=0.25),
        CHAIN | dict(logit_bias={300: 3.0, 310: -5.0}),
        dict(temperature=0.0),
    ],
}


def assert_same(found: Ids, expected: Ids, prompts: Sequence[str] = FEW, **options: Any) -> None:
    """But for the rest of a text after a token at whose draw the random number was at an edge."""
    for stream, (text, other) in enumerate(zip(found, expected, strict=True)):
        assert len(text) == len(other)
        if text != other:
            position = next(i for i, (a, b) in enumerate(zip(text, other, strict=True)) if a != b)
            logits = next_logits(prompts[stream], other[:position])
            assert distance_to_edge(logits, stream, position, **options) < EDGE, (stream, position)


def distance_to_edge(logits: Any, stream: int, position: int, **options: Any) -> float:
    """From the random number to the nearer end of the drawn token's interval, as a part of the total."""
    params = samplers.SamplingParams(**options)
    draw = samplers.trace(logits, params, seed=SEED, stream=stream, position=position)
    start, end = draw.chosen.interval
    return min(draw.u - start, end - draw.u) / draw.total


def test_another_token_is_no_edge():
    expected = alea_ids(FEW, max_new_tokens=STEPS, **CHAIN)
    assert_same(expected, expected, **CHAIN)
    other = [[*text[:3], text[3] + 1, *text[4:]] for text in expected]
    with pytest.raises(AssertionError, match=r"\(0, 3\)"):
        assert_same(other, expected, **CHAIN)


def test_the_runner(llm: LLM):
    assert any(kind.__module__ == "vllm.v1.worker.gpu.model_runner" for kind in type(runner_of(llm)).__mro__)
    assert not draw_of(llm).is_v1


def test_the_same_text(llm: LLM):
    ids = ids_of(llm, FEW, requests(4, **CHAIN, **SHORT))
    assert_same(ids, alea_ids(FEW, max_new_tokens=STEPS, **CHAIN), **CHAIN)
    assert ids_of(llm, FEW[1:2], request(1, **CHAIN, **SHORT)) == ids[1:2]


def test_requests_that_come_and_go(llm: LLM):
    """Six through four slots."""
    lengths = [2, 5, 3, 6, 4, 1]
    asked = [request(stream, **CHAIN, max_tokens=length) for stream, length in enumerate(lengths)]
    expected = alea_ids(PROMPTS[:6], max_new_tokens=6, **CHAIN)
    cut = [text[:length] for text, length in zip(expected, lengths, strict=True)]
    assert ids_of(llm, PROMPTS[:6], asked) == cut


@pytest.mark.parametrize("batch", BATCHES)
def test_each_row_has_its_own_parameters(llm: LLM, batch: str):
    asked, expected = [], []
    for stream, options in enumerate(BATCHES[batch]):
        own = dict(extra=options) if batch == "filters" else options
        asked.append(request(stream, **own, **SHORT))
        expected += alea_ids(FEW[stream : stream + 1], [stream], max_new_tokens=STEPS, **options)
    assert ids_of(llm, FEW, asked) == expected


def test_min_p_comes_before_top_p(llm: LLM):
    """And after it in extra_args; a batch has both, and a row without."""
    options = dict(temperature=1.0, min_p=0.03, top_p=0.7)
    ours = request(2, top_p=0.7, extra=dict(min_p=0.03), **SHORT)
    ids = ids_of(llm, FEW, [*requests(2, **options, **SHORT), ours, request(3, **CHAIN, **SHORT)])
    assert ids[:2] == min_p_first_ids(FEW[:2], min_p=0.03, top_p=0.7, length=STEPS)
    assert ids[2:3] == alea_ids(FEW[2:3], [2], max_new_tokens=STEPS, **options)
    assert ids[3:] == alea_ids(FEW[3:], [3], max_new_tokens=STEPS, **CHAIN)


def test_without_a_seed(llm: LLM):
    ids = ids_of(llm, FEW[:1] * 4, [request(seed=None, **CHAIN, **SHORT)] * 4)
    assert len({tuple(text) for text in ids}) == 4


def test_raw_logprobs_leave_the_text(llm: LLM):
    asked = requests(2, **CHAIN, **SHORT, logprobs=2)
    texts = [reply.outputs[0] for reply in llm.generate(FEW[:2], asked, use_tqdm=False)]
    assert [list(text.token_ids) for text in texts] == alea_ids(FEW[:2], max_new_tokens=STEPS, **CHAIN)
    for stream, text in enumerate(texts):
        expected = next_logits(FEW[stream], list(text.token_ids)[:-1]).log_softmax(-1)
        for token, found in text.logprobs[-1].items():
            assert found.logprob == pytest.approx(float(expected[token]), abs=1e-4)


def test_a_row_that_nothing_can_be_drawn_from(llm: LLM):
    """It gets token 0, and is counted."""
    before = draw_of(llm).invalid.count

    def break_row(logits: Any) -> None:
        logits[1] = float("nan")

    with watched_logits(llm, break_row):
        ids = ids_of(llm, FEW[:3], requests(3, **CHAIN, max_tokens=4))
    expected = alea_ids(FEW[:3], max_new_tokens=4, **CHAIN)
    assert ids == [expected[0], [0] * 4, expected[2]]
    assert draw_of(llm).invalid.count - before == 4
    assert ids_of(llm, FEW[:3], requests(3, **CHAIN, max_tokens=4)) == expected


def test_a_request_is_refused_by_name(llm: LLM):
    with pytest.raises(VLLMValidationError, match=r"typical_p must be .* got 2\.0"):
        ids_of(llm, FEW[:1], request(0, extra=dict(typical_p=2.0)))


@pytest.mark.parametrize("mode", ["processed_logprobs", "processed_logits"])
def test_processed_logprobs_are_refused(mode: str):
    with pytest.raises(ValueError, match=f"logprobs_mode must be raw_logprobs or raw_logits here, got {mode}"):
        new_engine(logprobs_mode=mode)


def test_a_watermark_is_refused():
    with pytest.raises(ValueError, match="watermark_config must be None, got one"):
        new_engine(watermark_config={"key": 1})


def test_preemption_and_prompts_in_chunks(monkeypatch: pytest.MonkeyPatch):
    """Four requests outgrow the blocks of three, and begin again later; no step reads a whole prompt."""
    preempted = []
    real = Scheduler._preempt_request

    def counted(self, request, *arguments, **keywords):
        preempted.append(request.num_output_tokens)
        return real(self, request, *arguments, **keywords)

    monkeypatch.setattr(Scheduler, "_preempt_request", counted)
    llm = new_engine(
        max_model_len=128, max_num_seqs=4, max_num_batched_tokens=16, block_size=32, num_gpu_blocks_override=7
    )
    prompts = [prompt + " and so on" * 5 for prompt in FEW]
    ids = ids_of(llm, prompts, requests(4, **CHAIN, max_tokens=20))
    assert len(preempted) > 0 and max(preempted) > 0
    assert_same(ids, alea_ids(prompts, max_new_tokens=20, **CHAIN), prompts, **CHAIN)
