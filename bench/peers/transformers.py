"""transformers: its warpers, softmax and multinomial."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.cases import Case, switched_on
from bench.peers.base import DrawTokens, Unavailable, refuse_others
from samplers import SamplingParams

WARPERS = {  # in the order of `generate`
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
    "epsilon_cutoff": "EpsilonLogitsWarper",
    "eta_cutoff": "EtaLogitsWarper",
}


def transformers(case: Case) -> DrawTokens:
    """Its warpers, made once, in the order of `generate`; then the same draw as in `generate`."""
    try:
        chain = warpers(case.params)
    except ImportError as error:
        raise Unavailable(str(error)) from error
    no_ids: Any = None  # the warpers take the text so far, and don't read it

    def draw(step: int) -> Tensor:
        scores = chain(no_ids, case.logits.float())
        return torch.multinomial(torch.softmax(scores, -1), num_samples=1).squeeze(1)

    return draw


def warpers(params: SamplingParams) -> Any:
    """The LogitsProcessorList that `generate` makes of the parameters. Raises: ImportError."""
    from transformers.generation import logits_process

    refuse_others(params, WARPERS)
    on = switched_on(params)
    chain = logits_process.LogitsProcessorList()
    if "temperature" in on:
        chain.append(logits_process.TemperatureLogitsWarper(params.temperature))
    for name, warper in WARPERS.items():
        if name in on:
            chain.append(getattr(logits_process, warper)(on[name], min_tokens_to_keep=params.min_tokens_to_keep))
    return chain
