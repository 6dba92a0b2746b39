"""torch: the fastest chains of its calls known to us, plain, compiled, and on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bench.cases import Case
from bench.peers.base import DrawOnGpu, DrawTokens, Unavailable, refuse_others
from samplers import SamplingParams

FILTERS = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
GUESS = 256  # tokens that top-p most often needs; a full sort only where it needs more
SHAPES = 256  # more than the cases of a run; beyond its limit torch.compile stops compiling in silence


def plain(case: Case) -> DrawTokens:
    """The fastest chain of torch calls known to us, sorting no more than it must.

    The draw inverts the cumulative sum. On a CPU that is many times faster than torch.multinomial, or than the arg max
    over exponential noise: both make a random number for each token.
    """
    refuse_others(case.params, FILTERS)
    return lambda step: inverted(*candidates(case.logits, case.params, GUESS), torch.rand(case.batch, 1), case.params)


def compiled(case: Case) -> DrawTokens:
    """The same chain, compiled to one function; its top-p without a top-k sorts, as code without branches must."""
    refuse_others(case.params, FILTERS)
    torch._dynamo.config.cache_size_limit = SHAPES  # the name of recompile_limit that every torch knows
    step_of = torch.compile(functools.partial(sorted_and_inverted, params=case.params), dynamic=False)

    def draw(step: int) -> Tensor:
        return step_of(case.logits, torch.rand(case.batch, 1))

    try:
        draw(0)
    except Exception as error:  # of any kind, also of the compiler that it calls
        raise Unavailable(f"torch.compile fails here: {str(error).strip().splitlines()[0]}") from error
    return draw


def sorted_and_inverted(x: Tensor, u: Tensor, params: SamplingParams) -> Tensor:
    return inverted(*candidates(x, params), u, params)


def race(case: Case, x: Tensor, position: Tensor) -> DrawOnGpu:
    """The arg max over exponential noise: nothing waits for the GPU."""
    return on_gpu(case, x, lambda q: (q / torch.empty_like(q).exponential_()).argmax(-1, keepdim=True))


def multinomial(case: Case, x: Tensor, position: Tensor) -> DrawOnGpu:
    """torch.multinomial, which checks its input and may wait for the GPU to do so."""
    return on_gpu(case, x, lambda q: q.multinomial(1))


def on_gpu(case: Case, x: Tensor, choose: Callable[[Tensor], Tensor]) -> DrawOnGpu:
    refuse_others(case.params, FILTERS)

    def draw() -> Tensor:
        q, ids = candidates(x, case.params)
        return at(choose(filtered(q, case.params)), ids)

    return draw


def candidates(x: Tensor, p: SamplingParams, guess: int = 0) -> tuple[Tensor, Tensor | None]:
    """Probabilities [B, n], descending where a filter wants an order, and their ids; None: in the order of ids.

    guess: tokens that top-p tries before it sorts them all; 0 where the code may not branch on values.
    """
    x = x.float()
    if p.top_k:
        x, ids = x.topk(min(p.top_k, x.shape[-1]))
        return torch.softmax(x / p.temperature, -1), ids
    if p.top_p == 1:
        return torch.softmax(x / p.temperature, -1), None
    if not guess:
        x, ids = x.sort(descending=True)
        return torch.softmax(x / p.temperature, -1), ids
    q = torch.softmax(x / p.temperature, -1)
    top, ids = q.topk(min(guess, q.shape[-1]))
    return (top, ids) if top.sum(-1).min() >= p.top_p else q.sort(descending=True)


def inverted(q: Tensor, ids: Tensor | None, u: Tensor, p: SamplingParams) -> Tensor:
    """Inverts the cumulative sum: probabilities [B, n], u in [0, 1) [B, 1] -> tokens [B]."""
    mass = filtered(q, p).cumsum(-1)
    return at(torch.searchsorted(mass, (1 - u) * mass[:, -1:]), ids)  # in (0, 1]: never a token without mass


def at(index: Tensor, ids: Tensor | None) -> Tensor:
    return (index if ids is None else ids.gather(-1, index))[:, 0]


def filtered(q: Tensor, p: SamplingParams) -> Tensor:
    """Masses with 0 where a filter cuts; renormalised where the next filter reads probabilities."""
    if p.top_p < 1:
        q = q.where(q.cumsum(-1) - q < p.top_p, 0)
    if p.min_p:
        q = q.where(q >= p.min_p * q.amax(-1, keepdim=True), 0)
    if p.typical_p < 1:
        q = typical(q / q.sum(-1, keepdim=True), p.typical_p)
    if p.epsilon_cutoff:
        q = at_least(q / q.sum(-1, keepdim=True), torch.tensor(p.epsilon_cutoff))
    if p.eta_cutoff:
        q = q / q.sum(-1, keepdim=True)
        by_entropy = p.eta_cutoff**0.5 * q.xlogy(q).sum(-1, keepdim=True).exp()
        q = at_least(q, by_entropy.clamp(max=p.eta_cutoff))
    return q


def typical(q: Tensor, mass: float) -> Tensor:
    distance = (q.log() - q.xlogy(q).sum(-1, keepdim=True)).abs()
    distance, order = distance.sort(-1)
    mass_before = q.gather(-1, order).cumsum(-1) - q.gather(-1, order)
    kept = torch.zeros_like(q, dtype=torch.bool).scatter(-1, order, mass_before < mass)
    return q.where(kept, 0)


def at_least(q: Tensor, least: Tensor) -> Tensor:
    return q.where((q >= least) | (q == q.amax(-1, keepdim=True)), 0)
