"""Splits generate's list: processors that stay, warpers that one fused call replaces, processors after them.

bias, penalties, bad words, the user's ...  | Temperature, TopK, TopP, ... Eta | Watermark, LogitNormalization
before                                       | params                           | after
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.generation import logits_process

from samplers.params import PackedParams, SamplingParams
from samplers.reference.filters import FILTERS

# In the order of `GenerationMixin._get_logits_processor`: option, its warper, and the condition for building it.
WARPERS: tuple[tuple[str, str, Any], ...] = (
    ("temperature", "TemperatureLogitsWarper", lambda temperature: temperature != 1),
    ("top_k", "TopKLogitsWarper", lambda k: k != 0),
    ("top_p", "TopPLogitsWarper", lambda p: p < 1),
    ("min_p", "MinPLogitsWarper", lambda p: True),
    ("typical_p", "TypicalLogitsWarper", lambda p: p < 1),
    ("epsilon_cutoff", "EpsilonLogitsWarper", lambda epsilon: 0 < epsilon < 1),
    ("eta_cutoff", "EtaLogitsWarper", lambda epsilon: 0 < epsilon < 1),
)
OPTIONS = ("temperature", *(f.name for f in FILTERS))
UNKNOWN = ("top_h",)  # sampling options of transformers that the engine does not have
WATERMARKS = (logits_process.WatermarkLogitsProcessor, logits_process.SynthIDTextWatermarkLogitsProcessor)


class Unsupported(Exception):
    """The engine leaves the call to transformers; the message names the reason."""


@dataclass(frozen=True)
class Chain:
    """A split list of processors; the fused call is between before and after."""

    before: list[Any]
    params: PackedParams
    after: list[Any]

    @property
    def reshaped(self) -> bool:
        """Whether the processors after the draw change the distribution; LogitNormalization does not."""
        return any(type(processor) is not logits_process.LogitNormalization for processor in self.after)


def sampling_params(config: Any) -> SamplingParams:
    """The sampling options of a GenerationConfig that `generate` has prepared (None: off).

    Raises: ValueError or TypeError naming the option, also for values that transformers accepts silently.
    """
    values = {name: getattr(config, name, None) for name in OPTIONS}
    params = SamplingParams(**{name: value for name, value in values.items() if value is not None})
    if params.temperature == 0:
        raise ValueError(
            f"temperature must be in [1e-6, 1e6], got {config.temperature!r}; for the most probable token, "
            "do_sample=False"
        )
    return params


def split(processors: list[Any], config: Any, params: PackedParams | None) -> Chain:
    """Split the list that generate built from its config; params replace the warpers.

    Raises: Unsupported if the end of the list is not as the config suggests.
    """
    for name in UNKNOWN:
        if getattr(config, name, None) is not None:
            raise Unsupported(name)
    warpers, after = expected_warpers(config), expected_after(config)
    begin = len(processors) - len(warpers) - len(after)
    tail = processors[max(0, begin) :]
    if begin < 0 or not all(isinstance(found, kind) for found, kind in zip(tail, warpers + after, strict=True)):
        raise Unsupported("logits processors " + ", ".join(type(processor).__name__ for processor in tail))
    return Chain(processors[:begin], params or sampling_params(config).packed, tail[len(warpers) :])


def expected_warpers(config: Any) -> list[Any]:
    """The classes of the warpers that generate builds for a config."""
    values = [(getattr(config, name, None), getattr(logits_process, kind), built) for name, kind, built in WARPERS]
    return [kind for value, kind, built in values if value is not None and built(value)]


def expected_after(config: Any) -> list[Any]:
    watermark = [WATERMARKS] if getattr(config, "watermarking_config", None) is not None else []
    return watermark + [logits_process.LogitNormalization] * (getattr(config, "renormalize_logits", None) is True)


def overruled(config: Any, own: Any) -> list[str]:
    """The sampling options of a call that attached parameters overrule, without those of the model's own config.

    >>> from transformers import GenerationConfig
    >>> overruled(GenerationConfig(temperature=0.7, top_p=0.9, top_k=50), GenerationConfig(top_p=0.9))
    ['temperature=0.7']
    """
    defaults = {"temperature": 1.0} | {f.name: f.off for f in FILTERS} | {"top_k": 50}  # transformers' own
    values = [(name, getattr(config, name, None)) for name in OPTIONS]
    return [f"{name}={v!r}" for name, v in values if v not in (None, defaults[name], getattr(own, name, None))]
