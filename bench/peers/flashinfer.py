"""FlashInfer: kernels for NVIDIA GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.cases import Case
from bench.peers.base import DrawOnGpu, Unavailable, refuse_others


def flashinfer(case: Case, x: Tensor, position: Tensor) -> DrawOnGpu:
    """Its kernel for the filters, with the steps from the logits that its callers take first."""
    try:
        from flashinfer import sampling
    except ImportError as error:
        raise Unavailable(str(error)) from error
    p = case.params
    refuse_others(p, ("top_k", "top_p"))
    if p.top_k:
        draw = sampling.top_k_top_p_sampling_from_logits
        return lambda: draw(x.float() / p.temperature, p.top_k, p.top_p, filter_apply_order="top_k_first")
    if p.top_p < 1:
        return lambda: sampling.top_p_sampling_from_probs(torch.softmax(x.float() / p.temperature, -1), p.top_p)
    return lambda: sampling.sampling_from_logits(x.float() / p.temperature)
