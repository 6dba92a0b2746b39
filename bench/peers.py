"""The contestants: each prepares a case, and then draws one token a row at every call, as its users would."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import samplers
from bench.cases import Case
from samplers import native
from samplers.batch import Batch

SEED = 1234
GUESS = 256  # tokens that top-p most often needs; a full sort only where it needs more

Draw = Callable[[int], Any]  # step -> token ids [B], as a tensor, an array or a list
Contestant = Callable[[Case], Draw]


class Unavailable(Exception):
    """A contestant can't run here, or has no such filter."""


def kernel(case: Case) -> Draw:
    """The C++ backend alone: what the public entry checks and lays out at every call stands ready."""
    return native_call(case, threads=1)


def kernel_on_two_threads(case: Case) -> Draw:
    if case.batch == 1:
        raise Unavailable("one row is one thread's work")
    return native_call(case, threads=2)


def native_call(case: Case, threads: int) -> Draw:
    if native.state() != "ok":
        raise Unavailable(f"the C++ backend is {native.state()}")
    batch = Batch(case.logits, case.params)
    rows, parameters, call = native.array(batch.rows), native.parameters(batch.params), native._native.sample

    def draw(step: int) -> np.ndarray:
        return call(rows, parameters, None, SEED, step, None, False, threads)[0]

    return draw


def alea(case: Case) -> Draw:
    """The public entry, its checks of every argument included."""

    def draw(step: int) -> torch.Tensor:
        return samplers.sample(case.logits, case.params, seed=SEED, position=step).tokens

    return draw


def plain_torch(case: Case) -> Draw:
    """The fastest chain of torch calls known to us, sorting no more than it must; see `torch_candidates`.

    The draw inverts the cumulative sum: many times faster on a CPU than torch.multinomial, or than the arg max over
    exponential noise, both of which make a random number a token.
    """

    def draw(step: int) -> torch.Tensor:
        q, ids = torch_candidates(case)  # [B, n]
        mass = torch_filtered(q, case).cumsum(-1)
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


def torch_filtered(q: torch.Tensor, case: Case) -> torch.Tensor:
    """Masses with 0 where a filter cuts; renormalised where the next filter reads probabilities."""
    p = case.params
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


def llama_cpp(case: Case) -> Draw:
    """Its sampler chain, row by row, through llama-cpp-python; the candidates filled in as `llama_sampler_sample` does.

    Temperature stands behind top-k, which it doesn't change, and before top-p, which it does: the same distribution
    as ours at the least cost. Filling by NumPy costs 19 µs where llama.cpp's own loop takes 15 (V = 32,000).
    """
    chain, api = llama_chain(case), llama_api()
    ids = np.arange(case.vocabulary, dtype=np.int32)
    candidates = np.zeros(case.vocabulary, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    data = candidates.ctypes.data_as(ctypes.POINTER(api.llama_token_data))
    array = api.llama_token_data_array(data, case.vocabulary, -1, False)

    def draw(step: int) -> list[int]:
        return [draw_row(row) for row in case.logits.float().numpy()]

    def draw_row(row: np.ndarray) -> int:
        candidates["id"], candidates["logit"] = ids, row  # the chain writes p before it reads it
        array.size, array.selected, array.sorted = case.vocabulary, -1, False
        api.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(candidates["id"][array.selected])
        api.llama_sampler_accept(chain, token)
        return token

    weakref.finalize(draw, api.llama_sampler_free, chain)
    return draw


def llama_chain(case: Case) -> Any:
    """A chain of the case's filters, for its owner to free."""
    api, p = llama_api(), case.params
    missing = [name for name in ("epsilon_cutoff", "eta_cutoff") if getattr(p, name)]
    if missing:
        raise Unavailable(f"it has no {', no '.join(missing)}")
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for stage, on in (
        (lambda: api.llama_sampler_init_top_k(p.top_k), p.top_k > 0),
        (lambda: api.llama_sampler_init_temp(p.temperature), p.temperature != 1),
        (lambda: api.llama_sampler_init_top_p(p.top_p, 1), p.top_p < 1),
        (lambda: api.llama_sampler_init_min_p(p.min_p, 1), p.min_p > 0),
        (lambda: api.llama_sampler_init_typical(p.typical_p, 1), p.typical_p < 1),
        (lambda: api.llama_sampler_init_dist(SEED), True),
    ):
        if on:
            api.llama_sampler_chain_add(chain, stage())
    return chain


def llama_api() -> Any:
    try:
        import llama_cpp as api
    except ImportError as error:
        raise Unavailable(str(error)) from error
    return api


TWO_THREADS = "kernel, 2 threads"
OURS: dict[str, Contestant] = {"kernel": kernel, TWO_THREADS: kernel_on_two_threads, "alea": alea}
PEERS: dict[str, Contestant] = {"torch": plain_torch, "llama.cpp": llama_cpp, "transformers": transformers}
# Not a sampler: what reading the rows costs.
LIMITS: dict[str, Contestant] = {"max": lambda case: lambda step: case.logits.max()}
