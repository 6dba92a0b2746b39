"""Every float32 distance through every way of computing its weight, `make identity`.

The definition fuses: multiply, add, round once. A machine without that instruction rounds twice, through float64. That
the weights come out the same is no theorem, so all distances are tried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from samplers.reference import fixed_point

Weigh = Callable[[np.ndarray], np.ndarray]
FIRST, LAST = (int(np.float32(d).view(np.uint32)) for d in (-0.0, -60.0))  # as bits, which grow as d falls
CHUNK = 1 << 20  # neighbouring distances
REFERENCE_EVERY = 16  # chunks: NumPy does what the passes without fma do, and takes ten times as long


def chunks(every: int = 1, size: int = CHUNK) -> range:
    """Where each chunk of d from -0 to -60 begins, or one in `every`."""
    return range(FIRST, LAST + 1, size * every)


def check(backend: str, start: int, size: int = CHUNK) -> int:
    """Compares the weights of a chunk with those of the fused operations, std::fma; returns of how many d.

    backend: "native", with each instruction set that this processor has, or "triton"; and the reference, in one chunk
        of REFERENCE_EVERY.

    Raises: AssertionError at the first that differs.
    """
    from samplers import _native

    d = distances(start, size)
    expected = _native.fused_weights(d)
    for name, weigh in ways(backend).items():
        if name == "reference" and (start - FIRST) // size % REFERENCE_EVERY:
            continue
        w = weigh(d)
        if not np.array_equal(w, expected):
            i = int(np.flatnonzero(w != expected)[0])
            raise AssertionError(f"W({float(d[i]).hex()}) is {w[i]} by {name}, not {expected[i]}")
    return len(d)


def distances(start: int, size: int) -> np.ndarray:
    """Neighbouring float32, downwards, none below -60."""
    return np.arange(start, min(start + size, LAST + 1), dtype=np.uint32).view(np.float32)


def ways(backend: str) -> dict[str, Weigh]:
    """How the backend may compute weights, by name, and the reference."""
    from samplers import _native

    if backend == "triton":
        return {"triton": by_triton, "reference": fixed_point.weights}
    by_isa = {isa: lambda d, isa=isa: by_native(d, isa) for isa in _native.available_isas()}
    return {**by_isa, "reference": fixed_point.weights}


def by_native(d: np.ndarray, isa: str) -> np.ndarray:
    from samplers import _native

    _native.use_isa(isa)
    try:
        return np.asarray(_native.weights(d))
    finally:
        _native.use_isa("auto")


def by_triton(d: np.ndarray) -> np.ndarray:
    from samplers.kernels import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return launch.weights(torch.from_numpy(d).to(device)).cpu().numpy()
