"""The contestants on a GPU: each prepares a case, and then draws one token a row at every call, as its users would."""

from __future__ import annotations

from collections.abc import Callable

import torch

import samplers
from bench import peers
from bench.peers import SEED, Unavailable
from bench.rows import Case

Tensor = torch.Tensor
Call = Callable[[], Tensor]  # token ids [B]
Contestant = Callable[[Case, Tensor, Tensor], Call]  # a case, its rows and an int64 position, both on the GPU


def alea(case: Case, x: Tensor, position: Tensor, backend: str = "auto") -> Call:
    """The public entry, as a step of decoding calls it: parameters packed, seed and position on the GPU."""
    packed, seed = samplers.pack(case.params), torch.tensor(SEED, device=x.device)
    return lambda: samplers.sample(x, packed, seed=seed, position=position, on_invalid="mark", backend=backend).tokens


def torch_race(case: Case, x: Tensor, position: Tensor) -> Call:
    """Top-k or a sort, softmax, the filters, then the arg max over exponential noise: nothing waits for the GPU."""

    def draw() -> Tensor:
        q, ids = torch_filtered(case, x)
        return named((q / torch.empty_like(q).exponential_()).argmax(-1, keepdim=True), ids)

    return draw


def torch_multinomial(case: Case, x: Tensor, position: Tensor) -> Call:
    """The same with torch.multinomial, which checks its input and may wait for the GPU to do so."""

    def draw() -> Tensor:
        q, ids = torch_filtered(case, x)
        return named(q.multinomial(1), ids)

    return draw


def torch_filtered(case: Case, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Masses [B, n], 0 where a filter cuts, and their ids; None: in the order of ids."""
    p, scores, ids = case.params, x.float(), None
    if p.top_k:
        scores, ids = scores.topk(min(p.top_k, case.vocabulary))
    elif p.top_p < 1:
        scores, ids = scores.sort(descending=True)
    return peers.torch_filtered(torch.softmax(scores / p.temperature, -1), p), ids


def named(index: Tensor, ids: Tensor | None) -> Tensor:
    return (index if ids is None else ids.gather(-1, index))[:, 0]


def flashinfer(case: Case, x: Tensor, position: Tensor) -> Call:
    """Its kernel for the filters, on what its callers have to make of the logits first."""
    try:
        from flashinfer import sampling
    except ImportError as error:
        raise Unavailable(str(error)) from error
    p = case.params
    if p.typical_p < 1 or p.epsilon_cutoff or p.eta_cutoff:
        raise Unavailable("it has no typical, no epsilon, no eta")
    if p.top_k:
        draw = sampling.top_k_top_p_sampling_from_logits
        return lambda: draw(x.float() / p.temperature, p.top_k, p.top_p, filter_apply_order="top_k_first")
    if p.top_p < 1:
        return lambda: sampling.top_p_sampling_from_probs(torch.softmax(x.float() / p.temperature, -1), p.top_p)
    return lambda: sampling.sampling_from_logits(x.float() / p.temperature)


PEERS: dict[str, Contestant] = {"torch": torch_race, "torch.multinomial": torch_multinomial, "flashinfer": flashinfer}
