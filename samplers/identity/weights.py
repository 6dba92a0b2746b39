"""Every float32 distance through every way of computing its weight: `make identity`.

The definition fuses: multiply, add, round once. A machine without that instruction rounds twice, through float64. No
theorem says that the weights are the same, so all distances are tried.
"""

from __future__ import annotations

import numpy as np
import torch

from samplers.identity.draws import ways
from samplers.reference import fixed_point

FIRST, LAST = (int(np.float32(d).view(np.uint32)) for d in (-0.0, -60.0))  # as bits, which grow as d falls
CHUNK = 1 << 20  # neighbouring distances
REFERENCE_EVERY = 16  # chunks: NumPy computes as the passes without fma, and takes ten times as long


def chunks(every: int = 1, size: int = CHUNK) -> range:
    """The first of each chunk of d from -0 to -60, or of one chunk in `every`."""
    return range(FIRST, LAST + 1, size * every)


def check(backend: str, start: int, size: int = CHUNK) -> int:
    """Compares the weights of a chunk with those of the fused operations, std::fma; returns their number.

    backend: "native", with each instruction set that this processor has, or "triton"; and the reference, in one chunk
        of REFERENCE_EVERY.

    Raises: AssertionError at the first difference.
    """
    from samplers import _native

    d = distances(start, size)
    expected = _native.fused_weights(d)
    for way in ways(backend):
        assert_equal(way, d, weigh(backend, d), expected)
    if (start - FIRST) // size % REFERENCE_EVERY == 0:
        assert_equal("reference", d, fixed_point.weights(d), expected)
    return len(d)


def distances(start: int, size: int) -> np.ndarray:
    """Neighbouring float32, downwards, none below -60."""
    return np.arange(start, min(start + size, LAST + 1), dtype=np.uint32).view(np.float32)


def weigh(backend: str, d: np.ndarray) -> np.ndarray:
    """W of float32 d: int64."""
    if backend == "native":
        from samplers import _native

        return np.asarray(_native.weights(d))
    from samplers.kernels import launch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return launch.weights(torch.from_numpy(d).to(device)).cpu().numpy()


def assert_equal(way: str, d: np.ndarray, w: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(w, expected):
        i = int(np.flatnonzero(w != expected)[0])
        raise AssertionError(f"W({float(d[i]).hex()}) is {w[i]} by {way}, not {expected[i]}")
