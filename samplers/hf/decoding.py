"""Runs generate's own decoding loop with the fused call."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationMixin

from samplers.hf.chain import Unsupported, overruled, split
from samplers.hf.fused import FusedList, FusedSampler, plain
from samplers.hf.options import Options

LEFT_ALONE = {"beam_sample": "num_beams > 1", "assisted_generation": "an assistant"}  # modes of generate


def decode(
    loop: Callable[..., Any],
    options: Options,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> Any:
    """Run a model's `_sample` with the fused call after the processors that stay, or unchanged if we step aside.

    Greedy decoding does not change, nor do an assistant's drafts: speculative decoding has its own random numbers.
    """
    sampler, processors, config = None, logits_processor, generation_config
    if config.do_sample and not getattr(config, "is_assistant", False):
        try:
            sampler = fused_sampler(loop, options, input_ids, logits_processor, config, model_kwargs)
        except Unsupported as reason:
            step_aside(str(reason))
    if sampler is not None:
        processors = FusedList(sampler)
        config = copy.copy(generation_config)
        config.do_sample = False  # the loop then takes the arg max, which is the token drawn
    output = loop(
        input_ids,
        logits_processor=processors,
        stopping_criteria=stopping_criteria,
        generation_config=config,
        **model_kwargs,
    )
    if sampler is not None:
        sampler.finish()
        if getattr(output, "scores", None) is not None:
            output.scores = plain(output.scores)
    return output


def fused_sampler(
    loop: Any, options: Options, input_ids: torch.Tensor, processors: Any, config: Any, model_kwargs: dict[str, Any]
) -> FusedSampler:
    """Raises: Unsupported if the engine must step aside, ValueError for a sampling option out of range."""
    model = loop.__self__
    if loop.__func__ is not GenerationMixin._sample:
        raise Unsupported(f"{type(model).__name__} has a decoding loop of its own")
    chain = split(processors, config, options.params)
    names = overruled(config, model.generation_config) if options.params is not None else []
    if names:
        warn(f"params stand in for generate's {', '.join(names)}")
    mask = model_kwargs.get("decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask")
    scores = bool(config.return_dict_in_generate and config.output_scores)
    return FusedSampler(chain, options, input_ids, mask, scores)


def warn_if_left_alone(mode: str, config: Any) -> None:
    """Warn if a mode of generate samples without the engine."""
    if config.do_sample and mode in LEFT_ALONE:
        step_aside(LEFT_ALONE[mode])


def step_aside(reason: str) -> None:
    """Warn that transformers draws instead of the engine."""
    warn(
        f"stepping aside for this call ({reason}): transformers draws, from torch's generator, which a seed given to "
        "samplers.hf does not rule"
    )


def warn(message: str) -> None:
    """A UserWarning at the caller's line, not within this package, transformers or torch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("samplers", "transformers", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"samplers.hf: {message}", UserWarning, stacklevel=level)
