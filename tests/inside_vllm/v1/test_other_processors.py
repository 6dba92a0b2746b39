"""Oracle: the same restriction as vLLM's own `allowed_token_ids`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engines import CHAIN, PROMPTS, ids_of, new_engine, requests
from vllm import LLM
from vllm.v1.sample.logits_processor import LogitsProcessor

ALLOWED = list(range(300, 330))


class Only(LogitsProcessor):
    """Leaves a few tokens, before the draw."""

    after_temperature = False

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        return self.after_temperature

    def update_state(self, batch_update: Any) -> None:
        pass

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        others = torch.ones_like(logits, dtype=torch.bool)
        others[:, ALLOWED] = False
        return logits.masked_fill_(others, -torch.inf)


class OnlyAfterwards(Only):
    after_temperature = True


def test_another_processor_acts_before_the_draw(llm: LLM):
    """Wherever it stands in the list; and `Draw` may stand there twice."""
    expected = ids_of(llm, PROMPTS[:4], requests(4, **CHAIN, allowed_token_ids=ALLOWED))
    both = new_engine(logits_processors=["samplers.vllm:Draw", Only, "samplers.vllm:Draw"])
    assert ids_of(both, PROMPTS[:4], requests(4, **CHAIN)) == expected


def test_one_that_vllm_would_skip_is_refused():
    both = new_engine(logits_processors=["samplers.vllm:Draw", OnlyAfterwards])
    with pytest.raises(RuntimeError, match=r"OnlyAfterwards.is_argmax_invariant\(\) must be False"):
        ids_of(both, PROMPTS[:1], requests(1, **CHAIN))
