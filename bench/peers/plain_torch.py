"""Plain torch: the fastest chain of its calls known to us."""

from __future__ import annotations

import torch

from bench.peers.base import Draw
from bench.rows import Case
from samplers import SamplingParams

GUESS = 256  # tokens that top-p most often needs; a full sort only where it needs more


def plain_torch(case: Case) -> Draw:
    """The fastest chain of torch calls known to us, sorting no more than it must; see `torch_candidates`.

    The draw inverts the cumulative sum: many times faster on a CPU than torch.multinomial, or than the arg max over
    exponential noise, both of which make a random number a token.
    """

    def draw(step: int) -> torch.Tensor:
        q, ids = torch_candidates(case)  # [B, n]
        mass = torch_filtered(q, case.params).cumsum(-1)
        u = 1 - torch.rand(len(mass), 1)  # in (0, 1]: never a token without mass, never beyond the last
        index = torch.searchsorted(mass, u * mass[:, -1:])
        return (index if ids is None else ids.gather(-1, index))[:, 0]

    return draw


def torch_candidates(case: Case) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Probabilities [B, n], descending where a filter wants an order, and their ids (None: in the order of ids)."""
    x, p = case.logits.float(), case.params
    if p.top_k:
        x, ids = x.topk(min(p.top_k, case.vocabulary))
        return torch.softmax(x / p.temperature, -1), ids
    q = torch.softmax(x / p.temperature, -1)
    if p.top_p == 1:
        return q, None
    top, ids = q.topk(min(GUESS, case.vocabulary))
    return (top, ids) if top.sum(-1).min() >= p.top_p else q.sort(descending=True)


def torch_filtered(q: torch.Tensor, p: SamplingParams) -> torch.Tensor:
    """Masses with 0 where a filter cuts; renormalised where the next filter reads probabilities."""
    if p.top_p < 1:
        q = q.where(q.cumsum(-1) - q < p.top_p, 0)
    if p.min_p:
        q = q.where(q >= p.min_p * q.amax(-1, keepdim=True), 0)
    if p.typical_p < 1:
        q = torch_typical(q / q.sum(-1, keepdim=True), p.typical_p)
    if p.epsilon_cutoff:
        q = torch_at_least(q / q.sum(-1, keepdim=True), torch.tensor(p.epsilon_cutoff))
    if p.eta_cutoff:
        q = q / q.sum(-1, keepdim=True)
        by_entropy = p.eta_cutoff**0.5 * q.xlogy(q).sum(-1, keepdim=True).exp()
        q = torch_at_least(q, by_entropy.clamp(max=p.eta_cutoff))
    return q


def torch_typical(q: torch.Tensor, mass: float) -> torch.Tensor:
    distance = (q.log() - q.xlogy(q).sum(-1, keepdim=True)).abs()
    distance, order = distance.sort(-1)
    mass_before = q.gather(-1, order).cumsum(-1) - q.gather(-1, order)
    kept = torch.zeros_like(q, dtype=torch.bool).scatter(-1, order, mass_before < mass)
    return q.where(kept, 0)


def torch_at_least(q: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    return q.where((q >= least) | (q == q.amax(-1, keepdim=True)), 0)
