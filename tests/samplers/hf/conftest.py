"""A small model of transformers' own, with logits spread enough for every filter to have something to do."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

VOCABULARY = 300
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY)


@pytest.fixture
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, max_position_embeddings=128, pad_token_id=0, eos_token_id=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    """Three prompts of five tokens."""
    return torch.randint(3, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(1))
