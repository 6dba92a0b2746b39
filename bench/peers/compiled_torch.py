"""torch.compile: what its compiler makes of the chain of plain torch."""

from __future__ import annotations

import functools

import torch

from bench.peers.base import Draw, Unavailable
from bench.peers.plain_torch import torch_filtered
from bench.rows import Case
from samplers import SamplingParams

LIMITS = ("recompile_limit", "cache_size_limit")  # as torch calls it now, and as it did before
SHAPES = 256  # more than the cases of a run; beyond its limit torch.compile stops compiling in silence


def compiled_torch(case: Case) -> Draw:
    """One compiled function from logits to tokens; a top-p without a top-k sorts, as code without branches must."""
    for limit in LIMITS:
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, SHAPES)
    step_of = torch.compile(functools.partial(drawn, params=case.params), dynamic=False)

    def draw(step: int) -> torch.Tensor:
        return step_of(case.logits, torch.rand(case.batch, 1))

    try:
        draw(0)
    except Exception as error:  # of any kind: of the compiler that it calls, or of its own
        raise Unavailable(f"torch.compile fails here: {str(error).strip().splitlines()[0]}") from error
    return draw


def drawn(x: torch.Tensor, u: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Inverts the cumulative sum: logits [B, V], u in [0, 1) [B, 1] -> tokens [B]."""
    x, ids = x.float() / params.temperature, None
    if params.top_k:
        x, ids = x.topk(min(params.top_k, x.shape[-1]))
    elif params.top_p < 1:
        x, ids = x.sort(descending=True)
    mass = torch_filtered(torch.softmax(x, -1), params).cumsum(-1)
    index = torch.searchsorted(mass, (1 - u) * mass[:, -1:])
    return (index if ids is None else ids.gather(-1, index))[:, 0]
