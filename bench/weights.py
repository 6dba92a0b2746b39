"""Every float32 distance through every way of computing its weight, `make identity`.

The definition fuses: multiply, add, round once. A machine without that instruction rounds twice, through float64. That
the weights come out the same is no theorem, so all distances are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from samplers.reference import fixed_point

Weigh = Callable[[np.ndarray], np.ndarray]
CHUNK = 1 << 20
FIRST, LAST = (int(np.float32(d).view(np.uint32)) for d in (-0.0, -60.0))  # as bits, which grow as d falls
REFERENCE_EVERY = 16  # chunks: NumPy does what the passes without fma do, and takes ten times as long


def check(backend: str, every: int = 1, chunk: int = CHUNK) -> int:
    """Compares the weights of all d from -0 to -60, or of one chunk in `every`, with the fused operations, std::fma.

    backend: "native", with each instruction set that this processor has, or "triton". The reference is compared in
        one chunk of REFERENCE_EVERY.

    Returns how many d were compared. Raises: AssertionError at the first that differs.
    """
    from samplers import _native

    compared = 0
    for number, d in enumerate(distances(every, chunk)):
        expected = _native.fused_weights(d)
        for name, weigh in ways(backend).items():
            if name == "reference" and number % REFERENCE_EVERY:
                continue
            w = weigh(d)
            if not np.array_equal(w, expected):
                i = int(np.flatnonzero(w != expected)[0])
                raise AssertionError(f"W({float(d[i]).hex()}) is {w[i]} by {name}, not {expected[i]}")
        compared += len(d)
    return compared


def distances(every: int, chunk: int) -> Iterator[np.ndarray]:
    """Neighbouring float32 from -0 down to -60, chunk by chunk."""
    for start in range(FIRST, LAST + 1, chunk * every):
        yield np.arange(start, min(start + chunk, LAST + 1), dtype=np.uint32).view(np.float32)


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
