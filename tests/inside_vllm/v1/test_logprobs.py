"""Oracles: log-softmax and `samplers.sample` of the logits that the model gave; the textbook's softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engines import CHAIN, PROMPTS, SEED, Ids, alea_ids, new_engine, requests, watched_logits
from vllm import LLM

import samplers
from samplers.textbook import softmax

FEW, STEPS, V = PROMPTS[:3], 8, 4096
LEAST = 2.0**-40  # of the greatest probability: a token below it has weight 0
ASKED = dict(logprobs=V, max_tokens=STEPS)
FILTERS = [
    CHAIN,
    dict(temperature=0.7),
    dict(temperature=1.0, top_p=0.8, extra=dict(typical_p=0.9)),
    dict(temperature=0.9, min_p=0.05, extra=dict(epsilon_cutoff=0.01)),
]


def replies(llm: LLM, **options: Any) -> tuple[torch.Tensor, Ids, torch.Tensor]:
    """The logits [step, prompt, V] of the model, the ids [prompt, step], and the logprobs of all tokens."""
    logits: list[torch.Tensor] = []
    with watched_logits(llm, lambda x: logits.append(x.clone())):
        texts = [
            reply.outputs[0] for reply in llm.generate(FEW, requests(len(FEW), **options, **ASKED), use_tqdm=False)
        ]
    logprobs = torch.full((STEPS, len(FEW), V), -torch.inf)
    for row, text in enumerate(texts):
        for step, found in enumerate(text.logprobs):
            logprobs[step, row, list(found)] = torch.tensor([entry.logprob for entry in found.values()])
    return torch.stack(logits), [list(text.token_ids) for text in texts], logprobs


def drawn(logits: torch.Tensor, step: int, **options: Any) -> tuple[samplers.SampleOutput, torch.Tensor]:
    """The draw of all prompts at a step; and the final distribution's logits."""
    params = samplers.SamplingParams(**{**options, **options.pop("extra", {})})
    rows = torch.arange(len(FEW))
    return samplers.sample(logits, params, seed=SEED, stream=rows, position=step), samplers.filter_logits(
        logits, params
    )


def options_of(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if name != "extra"} | filters.get("extra", {})


def test_raw_logprobs():
    """They show the model's distribution, and leave the text as it is."""
    logits, ids, logprobs = replies(new_engine(max_logprobs=V), **CHAIN)
    assert ids == alea_ids(FEW, max_new_tokens=STEPS, **CHAIN)
    assert torch.equal(logprobs, logits.log_softmax(-1))


def test_two_logprobs(llm: LLM):
    texts = [reply.outputs[0] for reply in llm.generate(FEW, requests(len(FEW), logprobs=2, **CHAIN), use_tqdm=False)]
    assert [list(text.token_ids) for text in texts] == alea_ids(FEW, **CHAIN)
    assert all(
        token in found and len(found) in (2, 3)
        for text in texts
        for token, found in zip(text.token_ids, text.logprobs, strict=True)
    )


@pytest.fixture(scope="module")
def processed() -> LLM:
    return new_engine(logprobs_mode="processed_logprobs", max_logprobs=V)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_processed_logprobs(processed: LLM, filters: dict[str, Any]):
    """Of the token drawn ln(weight / total), to the bit; of the others within a unit of float32."""
    logits, ids, logprobs = replies(processed, **filters)
    assert ids == alea_ids(FEW, max_new_tokens=STEPS, **options_of(filters))
    for step in range(STEPS):
        out, final = drawn(logits[step], step, **options_of(filters))
        assert out.tokens.tolist() == [text[step] for text in ids]
        assert torch.equal(logprobs[step].gather(1, out.tokens[:, None])[:, 0], out.logprobs)
        for row in range(len(FEW)):
            p = softmax(final[row].double().numpy())
            np.testing.assert_array_equal(logprobs[step, row] > -torch.inf, p >= LEAST * p.max())
            np.testing.assert_allclose(logprobs[step, row].double().exp(), p, atol=1e-6)


def test_processed_logits():
    logits, ids, found = replies(new_engine(logprobs_mode="processed_logits", max_logprobs=V), **CHAIN)
    assert ids == alea_ids(FEW, max_new_tokens=STEPS, **CHAIN)
    for step in range(STEPS):
        assert torch.equal(found[step], drawn(logits[step], step, **CHAIN)[1])


def test_greedy_rows_have_processed_logprobs(processed: LLM):
    """All of the mass is at one token."""
    _, ids, logprobs = replies(processed, temperature=0)
    assert ids == alea_ids(FEW, do_sample=False, max_new_tokens=STEPS)
    assert (logprobs == 0).sum(-1).eq(1).all() and logprobs.argmax(-1).T.tolist() == ids


def test_penalties_come_before_processed_logprobs(processed: LLM):
    _, ids, logprobs = replies(processed, **CHAIN, repetition_penalty=1.3)
    assert ids == alea_ids(FEW, max_new_tokens=STEPS, **CHAIN, repetition_penalty=1.3)
    assert logprobs.double().exp().sum(-1).sub(1).abs().max() < 1e-5
