"""Which implementations can run here, and why the others can't."""

from __future__ import annotations

import functools
import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

MODULES = {"reference": "samplers.reference.sampler", "native": "samplers.native", "triton": "samplers.kernels.sampler"}
BACKENDS = tuple(MODULES)
OK = ("ok", "interpreter")


def backends() -> dict[str, str]:
    """Each backend's state: "ok", "interpreter" (Triton on the CPU), or the reason why it can't run.

    >>> backends()["reference"]
    'ok'
    """
    return {"reference": "ok", "native": native_state(), "triton": triton_state()}


@functools.cache
def native_state() -> str:
    from samplers import native

    return native.state()


def triton_state() -> str:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton is not installed ({error})"
    if find_spec("samplers.kernels") is None:
        return "not in this version: the Triton kernels come with a later one"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "interpreter"
    return "ok" if torch.cuda.is_available() else "no GPU: torch.cuda.is_available() is False"


def implementation(backend: str, on_gpu: bool) -> ModuleType:
    """The module whose `sample` and `filter_logits` serve a call.

    Raises: ValueError for an unknown name, RuntimeError for a backend that can't run here.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    name = automatic(on_gpu) if backend == "auto" else backend
    if backend != "auto" and backends()[backend] not in OK:
        raise RuntimeError(f"backend {backend!r} can't run here: {backends()[backend]}")
    return import_module(MODULES[name])


def automatic(on_gpu: bool) -> str:
    best = "triton" if on_gpu else "native"
    state = triton_state() if on_gpu else native_state()
    if state in OK:
        return best
    warn_once(f"samplers: the {best} backend can't run here ({state}); the slower reference draws the same tokens")
    return "reference"


@functools.cache
def warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)
