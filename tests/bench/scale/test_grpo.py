"""What `bench.scale.grpo` keeps of a rollout, without trl: the tokens of generate, and logprobs by float64 softmax."""

import pytest
import torch

from bench.scale.grpo import CHAINS, recorded
from samplers import SamplingParams, filter_logits, hf

transformers = pytest.importorskip("transformers")


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=300)
    config = transformers.LlamaConfig(**sizes, initializer_range=1.0, eos_token_id=None)
    return hf.attach(transformers.LlamaForCausalLM(config), seed=7)


@pytest.mark.parametrize("chain", CHAINS)
def test_logprobs_are_those_of_the_kept_set(chain, model):
    prompt, options = torch.tensor([[1, 2], [3, 4]]), CHAINS[chain]
    with recorded() as draws:
        ids = model.generate(prompt, do_sample=True, max_new_tokens=20, pad_token_id=0, **{"top_k": 0} | options)
    logits, tokens, logprobs = draws.columns()
    assert torch.equal(tokens, ids[:, 2:])
    kept = filter_logits(logits.flatten(0, 1), SamplingParams(**options)).view(logits.shape)
    expected = kept.double().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    assert (logprobs - expected).abs().max() < 1e-5
    over_all = (logits.double() / options.get("temperature", 1.0)).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    cuts = bool(set(options) - {"temperature"})
    assert ((over_all - expected).abs().max() > 1e-3) == cuts


def test_nothing_is_kept_afterwards(model):
    with recorded() as draws:
        pass
    model.generate(torch.tensor([[1]]), do_sample=True, max_new_tokens=2, pad_token_id=0)
    assert not draws.steps
