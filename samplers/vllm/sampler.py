"""vLLM's V1 runner: a draw in place of its `Sampler.sample`, after penalties and before the temperature.

vLLM has no interface there: its processors act before the penalties or after the temperature. The method has had the
same parameters since vLLM 0.13; any others are refused.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

Drawn: TypeAlias = "tuple[torch.Tensor, torch.Tensor | None]"  # tokens int64 [B]; processed logprobs [B, V], if asked
PARAMETERS = ["self", "logits", "sampling_metadata", "logprobs_mode_override"]
PROCESSED = ("processed_logprobs", "processed_logits")


def replace_sample(sampler: type, kind: type[Any]) -> None:
    """Let a processor of this kind draw in place of `sampler.sample`; batches without one are left to vLLM.

    sampler: vLLM's Sampler. kind: a class with `draw(logits, mode)`. A second call changes nothing.
    Raises: RuntimeError if the method does not have the parameters that it is known by.
    """
    stock: Callable[..., Drawn] = sampler.sample  # type: ignore[attr-defined]
    if getattr(stock, "kind", None) is kind:
        return
    found = list(inspect.signature(stock).parameters)
    if found not in (PARAMETERS, PARAMETERS[:3]):
        raise RuntimeError(
            f"samplers.vllm:Draw needs a Sampler.sample with the parameters {', '.join(PARAMETERS)}; this vLLM has "
            f"{', '.join(found)}. samplers.vllm:OneHotDraw needs nothing but vLLM's logits processors"
        )

    @functools.wraps(stock)
    def sample(self: Any, logits: torch.Tensor, sampling_metadata: Any, *arguments: Any, **keywords: Any) -> Drawn:
        processors = sampling_metadata.logitsprocs.argmax_invariant
        processor = next((p for p in processors if isinstance(p, kind)), None)
        if processor is None:
            return stock(self, logits, sampling_metadata, *arguments, **keywords)
        refuse_skipped(processors, kind)
        # The batch's own dict. No draw needs them, and vLLM can't rewind one on a CPU after a part of a prompt.
        sampling_metadata.generators.clear()
        override = arguments[0] if arguments else keywords.get("logprobs_mode_override")
        mode = (override or self.logprobs_mode) if asks_for_logprobs(sampling_metadata) else None
        return processor.draw(logits, mode if mode in PROCESSED else None)

    sample.kind = kind  # type: ignore[attr-defined]
    sampler.sample = sample  # type: ignore[attr-defined]


def refuse_skipped(processors: list[Any], kind: type[Any]) -> None:
    """Raises: RuntimeError for a processor, not vLLM's own, that vLLM would apply after the temperature."""
    for processor in map(type, processors):
        if not issubclass(processor, kind) and not processor.__module__.startswith("vllm."):
            raise RuntimeError(
                f"{processor.__name__}.is_argmax_invariant() must be False with samplers.vllm:Draw: vLLM then applies "
                "it before the draw, and would skip it otherwise"
            )


def asks_for_logprobs(sampling_metadata: Any) -> bool:
    asked = getattr(sampling_metadata, "logprob_token_ids", None)  # since vLLM 0.17
    return sampling_metadata.max_num_logprobs is not None or bool(asked)
