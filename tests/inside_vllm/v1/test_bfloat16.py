"""Oracles: `samplers.sample` of the logits that the model gave; a batch in another order.

On a CPU these logits depend on the size of the batch: a text alone may be another one. Each token is the draw of its
logits all the same.
"""

from __future__ import annotations

import pytest
import torch
from engines import CHAIN, LENGTH, PROMPTS, SEED, Ids, ids_of, new_engine, requests, watched_logits
from vllm import LLM

import samplers

SOME = PROMPTS[:16]
PARAMS = samplers.SamplingParams(**CHAIN)


@pytest.fixture(scope="module")
def bfloat16() -> LLM:
    return new_engine(dtype="bfloat16")


def ids_and_logits(llm: LLM, prompts: list[str], streams: list[int]) -> tuple[Ids, list[torch.Tensor]]:
    logits: list[torch.Tensor] = []
    asked = requests(len(SOME), **CHAIN)
    with watched_logits(llm, lambda x: logits.append(x.clone())):
        return ids_of(llm, prompts, [asked[stream] for stream in streams]), logits


@pytest.mark.parametrize("streams", [[5], [*range(16)]], ids=["alone", "batch"])
def test_the_draws(bfloat16: LLM, streams: list[int]):
    ids, logits = ids_and_logits(bfloat16, [SOME[stream] for stream in streams], streams)
    assert len(logits) == LENGTH and logits[0].dtype == torch.bfloat16
    for step in range(LENGTH):
        out = samplers.sample(logits[step].float(), PARAMS, seed=SEED, stream=torch.tensor(streams), position=step)
        assert out.tokens.tolist() == [text[step] for text in ids]


def test_the_order_of_a_batch(bfloat16: LLM):
    streams = [*range(16)]
    assert ids_and_logits(bfloat16, SOME[::-1], streams[::-1])[0] == ids_and_logits(bfloat16, SOME, streams)[0][::-1]
