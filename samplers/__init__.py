"""From logits to a token: exact, reproducible sampling for language models.

`sample` draws tokens, and `SamplingParams` configures the draw. `filter_logits` returns the distribution, `trace` shows
how each stage changed it, and `backends` lists the backends that can run here.

`samplers.textbook` holds the formulas and `samplers.reference` the exact definition; docs/definition.md states it in
words, in the version `samplers.DEFINITION`. `samplers.hf` makes transformers models draw with this engine.
"""

from importlib import import_module
from types import ModuleType

from samplers.backends import backends
from samplers.params import PackedParams, SamplingParams, pack
from samplers.reference import DEFINITION
from samplers.sampler import InvalidLogits, SampleOutput, filter_logits, sample
from samplers.tracing import Trace, trace

__all__ = [
    "DEFINITION",
    "InvalidLogits",
    "PackedParams",
    "SampleOutput",
    "SamplingParams",
    "Trace",
    "backends",
    "filter_logits",
    "pack",
    "sample",
    "trace",
]


def __getattr__(name: str) -> ModuleType:
    """Import `samplers.hf` at its first use: transformers takes seconds to import, and may be missing."""
    if name == "hf":
        return import_module("samplers.hf")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
