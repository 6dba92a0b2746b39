"""The page of `alea trace --html`: a walk to look at in a browser, with sliders that draw again.

One file without network. It holds the full logits of every step and the definition in JavaScript (`report/engine.js`),
so that what a slider shows is what the engine would draw, integer for integer.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from model.study.decoding_trace import Walk
from model.study.page import filled, part
from samplers import SamplingParams, Trace
from samplers.tracing import finite

SLIDERS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_tokens_to_keep")


def render(walk: Walk, settings: dict[str, str]) -> str:
    """The page as text.

    settings: for the footer, name by name: model, seed, versions, date.
    Raises: ValueError for a walk without steps.
    """
    if not walk.steps:
        raise ValueError("walk must have at least one step, got none")
    inlined = {name: part(name) for name in ("page.css", "engine.js", "page.js")}
    return filled("page.html", inlined | {"data": script_json(data(walk, settings))})


def script_json(value: Any) -> str:
    """JSON that a `<script>` can hold, whatever the texts in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def data(walk: Walk, settings: dict[str, str]) -> dict[str, Any]:
    vocabulary = max(step.vocabulary for step in walk.steps)
    prompt = [{"id": i, "logprob": p} for i, p in zip(walk.prompt_ids, walk.prompt_logprobs, strict=True)]
    values = {
        "prompt": prompt,
        "steps": [step_data(step) for step in walk.steps],
        "ended": walk.ended,
        "pieces": walk.tokenizer.pieces(range(max(vocabulary, 1 + max(walk.prompt_ids)))),
        "settings": {str(name): str(value) for name, value in settings.items()},
    }
    return finite(values)


def step_data(step: Trace) -> dict[str, Any]:
    """One draw: what the page computes it again from, and the engine's own result, which the page must reach."""
    integers = {name: str(getattr(step, name)) for name in ("seed", "position", "stream", "bits", "u", "total")}
    stages = [{"name": stage.name, "survivors": stage.survivors, "entropy": stage.entropy} for stage in step.stages]
    same = np.array_equal(step.logits, step.changed)
    return integers | {
        "token": step.token,
        "weight": step.weight,
        "model_logprob": step.model_logprob,
        "stages": stages,
        "top": step.top,
        "params": slider_params(step.params),
        "changed": base64_floats(step.changed),
        "logits": None if same else base64_floats(step.logits),
    }


def slider_params(params: SamplingParams) -> dict[str, float | int]:
    """Those of temperature and filters; integers cut to what a double holds, which keeps all the same."""
    values = {name: getattr(params, name) for name in SLIDERS}
    return {name: min(value, 2**31) if isinstance(value, int) else value for name, value in values.items()}


def base64_floats(x: np.ndarray) -> str:
    """float32 [V], little-endian."""
    return base64.b64encode(np.ascontiguousarray(x, "<f4").tobytes()).decode("ascii")
