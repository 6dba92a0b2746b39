"""transformers: its warpers, softmax and multinomial."""

from __future__ import annotations

from typing import Any

import torch

from bench.peers.base import Draw, Unavailable
from bench.rows import Case


def transformers(case: Case) -> Draw:
    """Its warpers, made once, in the order of `generate`; then what `generate` does with their scores."""
    try:
        from transformers.generation import logits_process as hf
    except ImportError as error:
        raise Unavailable(str(error)) from error
    p = case.params
    warpers = hf.LogitsProcessorList([hf.TemperatureLogitsWarper(p.temperature)])
    stages: tuple[tuple[Any, float, bool], ...] = (
        (hf.TopKLogitsWarper, p.top_k, p.top_k > 0),
        (hf.TopPLogitsWarper, p.top_p, p.top_p < 1),
        (hf.MinPLogitsWarper, p.min_p, p.min_p > 0),
        (hf.TypicalLogitsWarper, p.typical_p, p.typical_p < 1),
        (hf.EpsilonLogitsWarper, p.epsilon_cutoff, p.epsilon_cutoff > 0),
        (hf.EtaLogitsWarper, p.eta_cutoff, p.eta_cutoff > 0),
    )
    warpers.extend(warper(value) for warper, value, on in stages if on)
    no_ids: Any = None  # the warpers take the text so far, and don't read it

    def draw(step: int) -> torch.Tensor:
        scores = warpers(no_ids, case.logits.float())
        return torch.multinomial(torch.softmax(scores, -1), num_samples=1).squeeze(1)

    return draw
