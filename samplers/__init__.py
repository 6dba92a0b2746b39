"""From logits to a token: exact, reproducible sampling for language models.

`sample` draws tokens, and `SamplingParams` configures the draw. `filter_logits` returns the distribution, `trace` shows
how each stage changed it, and `backends` lists the backends that can run here.

`samplers.textbook` holds the formulas and `samplers.reference` the exact definition; docs/definition.md states it in
words, in the version `samplers.DEFINITION`. `samplers.hf` makes transformers models draw with this engine,
`samplers.vllm` and `samplers.sglang` servers, and `samplers.sharded` draws over a vocabulary divided over processes.
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
    """Import `samplers.hf` and `samplers.sharded` at their first use: what they need takes seconds to import."""
    if name in ("hf", "sharded"):
        return import_module(f"samplers.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
