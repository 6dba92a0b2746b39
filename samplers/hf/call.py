"""One argument per call: `model.generate(..., custom_generate=samplers.hf.generate, seed=0)`."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

import torch
from transformers import GenerationMixin

from samplers.batch import Integers, Params
from samplers.hf.attach import Attached
from samplers.hf.decoding import decode, warn_if_left_alone
from samplers.hf.options import checked

LOOPS = {"greedy_search": "_sample", "sample": "_sample", "beam_search": "_beam_search", "beam_sample": "_beam_search"}


def generate(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    params: Params = None,
    seed: Integers | None = None,
    stream: Integers | None = None,
    backend: str = "auto",
    **model_kwargs: Any,
) -> Any:
    """Draw with this engine in one call of `model.generate`; pass this function as its custom_generate.

    Args:
        params, seed, stream, backend: as in `attach`, taken from the arguments of `model.generate`.
        The others come from `model.generate` itself.

    A streamer works. Greedy and beam search do not change. generate passes neither the tokenizer nor an assistant to a
    custom_generate: for stop_strings give a `StopStringCriteria` in stopping_criteria, or use `attach`.

    Raises: as in `attach`; ValueError for assisted decoding.
    """
    options = checked(params, seed, stream, backend)
    caller = arguments_of_caller()
    mode = generation_config.get_generation_mode(caller.get("assistant_model")).value
    if mode not in LOOPS:
        raise ValueError(f"custom_generate must not be samplers.hf.generate for {mode}; use samplers.hf.attach(model)")
    if caller.get("streamer") is not None:
        model_kwargs["streamer"] = caller["streamer"]
    warn_if_left_alone(mode, generation_config)
    loop = getattr(super(Attached, model) if isinstance(model, Attached) else model, LOOPS[mode])
    arguments = (input_ids, logits_processor, stopping_criteria, generation_config)
    if LOOPS[mode] != "_sample":
        return loop(*arguments, **model_kwargs)
    return decode(loop, options, *arguments, **model_kwargs)


def arguments_of_caller() -> dict[str, Any]:
    """The local variables of the `GenerationMixin.generate` that called us; {} if none did.

    A hack: generate does not pass its streamer and its assistant_model to a custom_generate. They are read from its
    stack frame, the nearest one that runs generate's code. If transformers ever passes them, this function can go.
    """
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return {} if frame is None else frame.f_locals
