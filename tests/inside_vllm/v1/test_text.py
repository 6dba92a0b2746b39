"""Oracles: alea's own `generate`, and transformers with `samplers.hf.attach`; of a batch, each request alone."""

from __future__ import annotations

import torch
from engines import CHAIN, LENGTH, MODEL, PROMPTS, Ids, alea_ids, ids_of, request
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM

from samplers import hf

SEEDS = [place % 3 for place in range(len(PROMPTS))]
REQUESTS = [request(stream, seed=seed, **CHAIN) for stream, seed in enumerate(SEEDS)]


def transformers_ids() -> Ids:
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    hf.attach(model, seed=SEEDS, stream=list(range(len(PROMPTS))))
    model.generation_config.eos_token_id = None
    ids = model.generate(**inputs, do_sample=True, max_new_tokens=LENGTH, **CHAIN)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


def test_64_prompts(llm: LLM):
    assert len(set(PROMPTS)) == 64
    ids = ids_of(llm, PROMPTS, REQUESTS)
    assert ids == transformers_ids()
    for seed in set(SEEDS):
        streams = [stream for stream, other in enumerate(SEEDS) if other == seed]
        expected = alea_ids([PROMPTS[stream] for stream in streams], streams, seed=seed, **CHAIN)
        assert [ids[stream] for stream in streams] == expected


def test_a_batch_of_any_order(llm: LLM):
    ids = ids_of(llm, PROMPTS, REQUESTS)
    assert ids_of(llm, PROMPTS[::-1], REQUESTS[::-1]) == ids[::-1]
    for place in range(0, len(PROMPTS), 8):
        assert ids_of(llm, [PROMPTS[place]], REQUESTS[place]) == [ids[place]]
