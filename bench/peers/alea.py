"""Ours: the C++ backend alone, on one thread and on two, and the public entry."""

from __future__ import annotations

import numpy as np
import torch

import samplers
from bench.peers.base import SEED, Draw, Unavailable
from bench.rows import Case
from samplers.backends import native
from samplers.batch import Batch


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
