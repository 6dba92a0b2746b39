"""A sampler of the user, by name: `--peer mymodule:sampler`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.peers.base import DrawTokens, Peer


def imported(spec: str) -> Peer:
    """The callable MODULE:NAME, found as Python finds modules, the current folder first.

    It is called as `sampler(logits, params, seed) -> tokens`: logits [B, V] of the case's type, to be read and never
    written; a samplers.SamplingParams; an int that is fresh at each call. B ids come back, as a tensor, an array or a
    list: the interface of `samplers.conformance`.

    Raises: ValueError for a missing one.
    """
    module, separator, name = spec.partition(":")
    if not (module and separator and name):
        raise ValueError(f"--peer must be MODULE:NAME, got {spec!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        sampler: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--peer must name a callable that can be imported, got {spec!r}: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(sampler):
        raise ValueError(f"--peer must name a callable, got {spec!r}: {sampler!r}")

    def peer(case: Case) -> DrawTokens:
        return lambda step: sampler(case.logits, case.params, step)

    return peer
