"""Oracle: `Draw`, and alea's own `generate`."""

import pytest
from engines import CHAIN, LONG, PROMPTS, alea_ids, ids_of, new_engine, request, requests
from vllm import LLM
from vllm.exceptions import VLLMValidationError


@pytest.fixture(scope="module")
def one_hot() -> LLM:
    return new_engine(logits_processors=["samplers.vllm:OneHotDraw"])


@pytest.mark.parametrize("options", [CHAIN, dict(temperature=0.9, min_p=0.1), dict(temperature=0)], ids=str)
def test_the_same_text(llm: LLM, one_hot: LLM, options: dict[str, float]):
    prompts, asked = PROMPTS[:16], requests(16, **options)
    ids = ids_of(one_hot, prompts, asked)
    assert ids == ids_of(llm, prompts, asked) == alea_ids(prompts, **options)


def test_long_prompts(one_hot: LLM):
    assert ids_of(one_hot, LONG, requests(len(LONG), **CHAIN)) == alea_ids(LONG, **CHAIN)


def test_bias_and_allowed_tokens_come_before(llm: LLM, one_hot: LLM):
    asked = [request(0, **CHAIN, logit_bias={300: 3.0}), request(1, **CHAIN, allowed_token_ids=list(range(300, 330)))]
    assert ids_of(one_hot, PROMPTS[:2], asked) == ids_of(llm, PROMPTS[:2], asked)


@pytest.mark.parametrize("name", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_are_refused(one_hot: LLM, name: str):
    """They act after the draw."""
    with pytest.raises(VLLMValidationError, match=f"{name} must be .* with samplers.vllm:OneHotDraw, got 1.5"):
        ids_of(one_hot, PROMPTS[:1], request(0, **CHAIN, **{name: 1.5}))
    assert ids_of(one_hot, PROMPTS[:1], request(0, **CHAIN)) == alea_ids(PROMPTS[:1], **CHAIN)


@pytest.mark.parametrize("mode", ["processed_logprobs", "processed_logits"])
def test_processed_logprobs_are_refused(mode: str):
    with pytest.raises(ValueError, match=f"logprobs_mode must be raw_logprobs or raw_logits here, got {mode}"):
        new_engine(logits_processors=["samplers.vllm:OneHotDraw"], logprobs_mode=mode)
