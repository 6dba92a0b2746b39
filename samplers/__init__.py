"""From logits to a token: exact, reproducible sampling for language models.

`sample` draws, `SamplingParams` says how, `filter_logits` shows the distribution, `backends` what can run here.
`samplers.textbook` holds the formulas, `samplers.reference` the exact definition.
"""

from samplers.backends import backends
from samplers.params import PackedParams, SamplingParams, pack
from samplers.sampler import InvalidLogits, SampleOutput, filter_logits, sample

__all__ = [
    "InvalidLogits",
    "PackedParams",
    "SampleOutput",
    "SamplingParams",
    "backends",
    "filter_logits",
    "pack",
    "sample",
]
