"""Ours: the C++ backend alone, on one thread and on two; the public entry, with the reference, and on a GPU."""

from __future__ import annotations

import numpy as np
from torch import Tensor, tensor

import samplers
from bench.cases import Case
from bench.peers.base import SEED, DrawOnGpu, DrawTokens, Unavailable
from samplers.backends import native
from samplers.batch import Batch


def kernel(case: Case) -> DrawTokens:
    """The C++ backend alone; the checks and the layout of the public entry are done before."""
    return native_call(case, threads=1)


def kernel_on_two_threads(case: Case) -> DrawTokens:
    if case.batch == 1:
        raise Unavailable("one row is one thread's work")
    return native_call(case, threads=2)


def native_call(case: Case, threads: int) -> DrawTokens:
    if native.state() != "ok":
        raise Unavailable(f"the C++ backend is {native.state()}")
    from samplers import _native

    batch = Batch(case.logits, case.params)
    rows, parameters = native.logits_of(batch.rows), native.parameters(batch.params)

    def draw(step: int) -> np.ndarray:
        return _native.sample(rows, parameters, None, SEED, step, None, False, threads)[0]

    return draw


def alea(case: Case) -> DrawTokens:
    """The public entry, its checks of every argument included."""

    def draw(step: int) -> Tensor:
        return samplers.sample(case.logits, case.params, seed=SEED, position=step).tokens

    return draw


def reference(case: Case) -> DrawTokens:
    """The definition in NumPy, as a backend of the public entry."""
    rows = case.logits.numpy()
    return lambda step: samplers.sample(rows, case.params, seed=SEED, position=step, backend="reference").tokens


def on_gpu(case: Case, x: Tensor, position: Tensor, backend: str = "auto") -> DrawOnGpu:
    """The public entry in a step of decoding: parameters packed, seed and position on the GPU."""
    packed, seed = samplers.pack(case.params), tensor(SEED, device=x.device)
    return lambda: samplers.sample(x, packed, seed=seed, position=position, on_invalid="mark", backend=backend).tokens
