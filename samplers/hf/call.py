"""One argument for a call: `model.generate(..., custom_generate=samplers.hf.generate, seed=0)`."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

import torch
from transformers import GenerationMixin

from samplers.batch import Integers, Params
from samplers.hf.attach import Attached
from samplers.hf.decoding import decode, leave_alone
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
    """Draw with this engine in one call of `model.generate`, to be given as its custom_generate.

    Args:
        params, seed, stream, backend: as in `attach`, taken from the arguments of `model.generate`.
        The others come from `model.generate` itself.

    A streamer works. Greedy and beam search are left as they are. What generate hands no custom_generate: the
    tokenizer (so stop_strings; give a `StopStringCriteria` in stopping_criteria) and an assistant; attach for these.

    Raises: as in `attach`; ValueError for assisted decoding.
    """
    options = checked(params, seed, stream, backend)
    caller = arguments_of_caller()
    mode = generation_config.get_generation_mode(caller.get("assistant_model")).value
    if mode not in LOOPS:
        raise ValueError(f"custom_generate must not be samplers.hf.generate for {mode}; use samplers.hf.attach(model)")
    if caller.get("streamer") is not None:
        model_kwargs["streamer"] = caller["streamer"]
    leave_alone(mode, generation_config)
    loop = getattr(super(Attached, model) if isinstance(model, Attached) else model, LOOPS[mode])
    given = (input_ids, logits_processor, stopping_criteria, generation_config)
    return decode(loop, options, *given, **model_kwargs) if LOOPS[mode] == "_sample" else loop(*given, **model_kwargs)


def arguments_of_caller() -> dict[str, Any]:
    """What `GenerationMixin.generate` was called with, of which it hands a custom_generate only a part."""
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return {} if frame is None else frame.f_locals
