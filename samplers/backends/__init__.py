"""The backends: which of them can run here, and which one serves a call."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import cast

import torch

from samplers.backends import native, reference
from samplers.backends.contract import Backend

BACKENDS = ("reference", "native", "triton")
OK = ("ok", "interpreter")
WARNED: set[str] = set()


def backends() -> dict[str, str]:
    """The state of each backend: "ok", "interpreter" (Triton on the CPU), or the reason why it can't run.

    >>> backends()["reference"]
    'ok'
    """
    return {name: state(name) for name in BACKENDS}


def state(backend: str) -> str:
    if backend == "native":
        return native.state()
    return triton_state() if backend == "triton" else "ok"


def triton_state() -> str:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton is not installed ({error})"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "interpreter"
    return "ok" if torch.cuda.is_available() else "no GPU: torch.cuda.is_available() is False"


def implementation(backend: str, on_gpu: bool) -> Backend:
    """The backend that serves a call.

    Raises: ValueError for an unknown name, RuntimeError for a backend that can't run here.
    """
    if backend == "auto":
        return module(automatic(on_gpu))
    if backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if state(backend) not in OK:
        raise RuntimeError(f"backend {backend!r} can't run here: {state(backend)}")
    return module(backend)


def module(backend: str) -> Backend:
    if backend == "triton":  # triton takes long to import, and may be missing
        return cast(Backend, import_module("samplers.backends.triton"))
    return native if backend == "native" else reference


def automatic(on_gpu: bool) -> str:
    """The fastest backend that can run here. Warns once if it is not the best one for the device."""
    if not on_gpu and native.state() == "ok":
        return "native"
    best, *others = ["triton", "native", "reference"] if on_gpu else ["native", "reference"]
    if state(best) in OK:
        return best
    name = next(other for other in others if state(other) in OK)
    warn_once(
        f"samplers: the {best} backend can't run here ({state(best)}); the slower {name} backend draws the same tokens"
    )
    return name


def warn_once(message: str) -> None:
    if message not in WARNED:
        WARNED.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=6)
