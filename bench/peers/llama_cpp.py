"""llama.cpp, through llama-cpp-python."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from bench.cases import Case, switched_on
from bench.peers.base import SEED, DrawTokens, Unavailable, refuse_others


def llama_cpp(case: Case) -> DrawTokens:
    """Its sampler chain, row by row, through llama-cpp-python; candidates are filled in as in `llama_sampler_sample`.

    Temperature comes after top-k, which it doesn't change, and before top-p, which it does: the same distribution as
    ours at the least cost. Filling by NumPy costs 19 µs where llama.cpp's own loop takes 15 (V = 32,000).
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
    refuse_others(p, ("top_k", "top_p", "min_p", "typical_p"))
    on = switched_on(p)
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for name, stage in (
        ("top_k", lambda: api.llama_sampler_init_top_k(p.top_k)),
        ("temperature", lambda: api.llama_sampler_init_temp(p.temperature)),
        ("top_p", lambda: api.llama_sampler_init_top_p(p.top_p, 1)),
        ("min_p", lambda: api.llama_sampler_init_min_p(p.min_p, 1)),
        ("typical_p", lambda: api.llama_sampler_init_typical(p.typical_p, 1)),
    ):
        if name in on:
            api.llama_sampler_chain_add(chain, stage())
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(SEED))
    return chain


def llama_api() -> Any:
    try:
        import llama_cpp as api
    except ImportError as error:
        raise Unavailable(str(error)) from error
    return api
