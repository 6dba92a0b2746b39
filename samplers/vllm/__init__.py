"""The engine as vLLM's sampler: a request's text depends on its logits, seed and stream, not on its batch.

    LLM(model, logits_processors=["samplers.vllm:Draw"])
    vllm serve MODEL --logits-processors samplers.vllm:Draw

`request` reads vLLM's parameters, `slots` keeps those of the requests in a batch, and `draw` connects both of vLLM's
model runners: V1 through `sampler`, which takes the place of `Sampler.sample`, V2 through its logits processors.
`logprobs` gives exact logprobs.
"""

from typing import Any

__all__ = ["Draw", "OneHotDraw"]


def __getattr__(name: str) -> Any:
    """Imports vLLM at the first use of a class: the other modules do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from samplers.vllm import draw

    return getattr(draw, name)
