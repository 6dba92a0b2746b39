"""Grammars in transformers' generate. Oracle: re and json on what it returns; the engine's own masks."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from model.config import BUILT_IN
from samplers import SamplingParams, hf, sample
from samplers.grammar import Grammar

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 999}, "b": {"enum": ["red", "green"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BUILT_IN)


@pytest.fixture(scope="module")
def llama(tokenizer):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer) + 5))


def generated(llama, tokenizer, grammar, prompts=("The king", "A"), **options):
    processor = hf.GrammarLogitsProcessor(grammar, tokenizer, vocab_size=len(tokenizer) + 5)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    out = llama.generate(
        **batch, logits_processor=LogitsProcessorList([processor]), max_new_tokens=40, pad_token_id=0, **options
    )
    return [tokenizer.decode(row[batch.input_ids.shape[1] :], skip_special_tokens=True) for row in out]


@pytest.mark.parametrize(
    "options",
    [dict(do_sample=True, num_return_sequences=3), dict(num_beams=4, num_return_sequences=2), dict(do_sample=False)],
)
@pytest.mark.parametrize("is_attached", [True, False])
def test_every_text_follows_it(llama, tokenizer, options, is_attached):
    if is_attached:
        hf.attach(llama, seed=3)
    try:
        texts = generated(llama, tokenizer, Grammar.json_schema(SCHEMA, compact=True), **options)
    finally:
        hf.detach(llama)
    for text in texts:
        value = json.loads(text)
        assert list(value) == ["a", "b"] and 0 <= value["a"] <= 999 and value["b"] in ("red", "green")


def test_rows_that_end_at_different_steps(llama, tokenizer):
    hf.attach(llama, seed=1)
    try:
        texts = generated(llama, tokenizer, Grammar.regex("(ab ?)+"), do_sample=True, num_return_sequences=4)
    finally:
        hf.detach(llama)
    assert (
        all(re.fullmatch("(ab ?)+", text + "ab" * (len(text) > 60)) for text in texts) and len(set(map(len, texts))) > 1
    )


def test_the_mask_is_that_of_the_engine(tokenizer):
    """Scores that are masked draw what `allowed` draws."""
    processor = hf.GrammarLogitsProcessor(Grammar.choice(["yes", "no"]), tokenizer)
    scores, prompt = (
        torch.randn(2, len(tokenizer), generator=torch.Generator().manual_seed(1)),
        torch.tensor([[1], [1]]),
    )
    masked = processor(prompt, scores)
    mask = np.stack([processor.grammar.matcher().allowed()] * 2)
    drawn = sample(masked, SamplingParams(), seed=3), sample(scores, SamplingParams(), seed=3, allowed=mask)
    assert drawn[0].tokens.tolist() == drawn[1].tokens.tolist()
    assert drawn[0].total.tolist() == drawn[1].total.tolist()


def test_wrong_arguments(tokenizer):
    with pytest.raises(TypeError, match="tokenizer must be a fast tokenizer of transformers, got int"):
        hf.GrammarLogitsProcessor(Grammar.regex("a"), 7, eos_token_id=2)
    with pytest.raises(ValueError, match="vocab_size must be an integer >= 4096, got 7"):
        hf.GrammarLogitsProcessor(Grammar.regex("a"), tokenizer, vocab_size=7)
    with pytest.raises(ValueError, match="regex can't be followed"):
        hf.GrammarLogitsProcessor(Grammar.regex("("), tokenizer)
