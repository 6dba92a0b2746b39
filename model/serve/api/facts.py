"""GET /v1/alea/model: what the page at / needs to know of the model, once."""

from __future__ import annotations

from typing import Any

from model.serve.api.fields import DrawingFields
from model.serve.api.service import Service
from model.serve.api.trace import most_steps
from model.study.trace_page import SLIDERS, slider
from model.versions import DISTRIBUTION, installed
from samplers import DEFINITION
from samplers.params import PENALTY_RANGES
from samplers.reference.filters import FILTERS
from samplers.tracing import finite


def facts(service: Service) -> dict[str, Any]:
    """defaults: the parameters of a request that names none. most_steps: of a trace. pieces: of every token id."""
    vocabulary = service.llama.config.vocab_size
    params = DrawingFields().settings(service, 1).params
    values = {
        "model": service.name,
        "system_fingerprint": service.fingerprint,
        "versions": {DISTRIBUTION: installed(DISTRIBUTION) or "", "definition": DEFINITION},
        "window": service.window,
        "most_steps": most_steps(vocabulary),
        "has_chat": bool(service.template),
        "defaults": {name: getattr(params, name) for name in (*SLIDERS, *PENALTY_RANGES)},
        "filters": [slider(f) for f in FILTERS],
        "pieces": service.tokenizer.pieces(range(vocabulary)),
    }
    return finite(values)
