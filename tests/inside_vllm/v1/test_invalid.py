"""Oracle: the texts of the requests whose logits are valid, from an engine where all are."""

from __future__ import annotations

import pytest
import torch
from engines import CHAIN, LENGTH, PROMPTS, alea_ids, draw_of, ids_of, requests, watched_logits
from vllm import LLM

PROMPTS = PROMPTS[8:11]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_nothing_can_be_drawn_from(llm: LLM, value: float):
    """It gets token 0, and is counted; the others and the engine go on."""
    asked, before = requests(3, **CHAIN), draw_of(llm).invalid.count
    expected = alea_ids(PROMPTS, **CHAIN)

    def break_row(logits: torch.Tensor) -> None:
        logits[1] = value

    with watched_logits(llm, break_row):
        assert ids_of(llm, PROMPTS, asked) == [expected[0], [0] * LENGTH, expected[2]]
    assert draw_of(llm).invalid.count - before == LENGTH
    assert ids_of(llm, PROMPTS, asked) == expected
    assert draw_of(llm).invalid.count - before == LENGTH
