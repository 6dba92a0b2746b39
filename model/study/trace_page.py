"""The page of `alea trace --html`: a decoding trace in a browser, with sliders that repeat each draw.

The page is one file that needs no network. It holds the full logits of every step and the definition in JavaScript
(`assets/engine.js`). The sliders therefore show what the engine would draw, integer for integer.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from model.study.decoding_trace import DecodingTrace
from model.study.page import filled, step_parts
from samplers import SamplingParams, Trace
from samplers.reference.filters import FILTERS, Filter
from samplers.tracing import finite

SLIDERS = ("temperature", *(f.name for f in FILTERS), "min_tokens_to_keep")


def render(trace: DecodingTrace, settings: dict[str, str]) -> str:
    """The page as text.

    settings: for the footer: model, seed, versions, date.
    Raises: ValueError for a trace without steps.
    """
    if not trace.steps:
        raise ValueError("trace must have at least one step, got none")
    return filled("trace.html", {**step_parts("trace"), "data": script_json(page_data(trace, settings))})


def script_json(value: Any) -> str:
    """JSON that is safe inside a `<script>`, whatever texts it holds."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def page_data(trace: DecodingTrace, settings: dict[str, str]) -> dict[str, Any]:
    vocabulary = max(step.vocabulary for step in trace.steps)
    prompt = [{"id": i, "logprob": p} for i, p in zip(trace.prompt_ids, trace.prompt_logprobs, strict=True)]
    values = {
        "filters": [slider(f) for f in FILTERS],
        "prompt": prompt,
        "steps": [step_data(step) for step in trace.steps],
        "ended": trace.ended,
        "pieces": trace.tokenizer.pieces(range(max(vocabulary, 1 + max(trace.prompt_ids)))),
        "settings": {str(name): str(value) for name, value in settings.items()},
    }
    return finite(values)


def slider(f: Filter) -> dict[str, Any]:
    """The values that the slider of a filter accepts."""
    accepted = {name: getattr(f.accepts, name) for name in ("text", "low", "high", "open_low", "open_high")}
    return {"name": f.name, "off": f.off, "is_whole": f.is_integer} | accepted


def step_data(step: Trace) -> dict[str, Any]:
    """One draw: the input from which the page computes it, and the engine's result, which the page must reproduce."""
    integers = {name: str(getattr(step, name)) for name in ("seed", "position", "stream", "bits", "u", "total")}
    stages = [{"name": stage.name, "survivors": stage.survivors, "entropy": stage.entropy} for stage in step.stages]
    masked = step.logits if step.allowed is None else np.where(step.allowed, step.logits, np.float32(-np.inf))
    return integers | {
        "token": step.token,
        "weight": step.weight,
        "model_logprob": step.model_logprob,
        "stages": stages,
        "top": step.top,
        "params": slider_params(step.params),
        "logits": base64_floats(step.logits),
        "allowed": None if step.allowed is None else base64_bits(step.allowed),
        "changed": None if np.array_equal(masked, step.changed) else base64_floats(step.changed),
    }


def slider_params(params: SamplingParams) -> dict[str, float | int]:
    """The sliders' values. Integers are capped at 2^31, which keeps every token all the same."""
    values = {name: getattr(params, name) for name in SLIDERS}
    return {name: min(value, 2**31) if isinstance(value, int) else value for name, value in values.items()}


def base64_floats(x: np.ndarray) -> str:
    """float32 [V], little-endian."""
    return base64.b64encode(np.ascontiguousarray(x, "<f4").tobytes()).decode("ascii")


def base64_bits(mask: np.ndarray) -> str:
    """bool [V]: token v is bit v mod 8 of byte v div 8."""
    return base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode("ascii")
