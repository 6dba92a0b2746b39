"""One request: vLLM's SamplingParams as this engine's parameters, seed and stream."""

from __future__ import annotations

from typing import Any, NamedTuple

from samplers.params import SamplingParams
from samplers.reference.filters import FILTERS, stages

NAMES = ("temperature", *(f.name for f in FILTERS), "min_tokens_to_keep")  # what extra_args may set or override
KEYS = ("seed", "stream")
LEFT_TO_VLLM = (
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("bad_words", "allowed_token_ids", "min_tokens", "structured_outputs"),
)


class Request(NamedTuple):
    """What a request asks of the engine.

    params: the final distribution. min_p: a min-p that acts before the other filters, as vLLM has it; or None. seed,
    stream: int64; None: not given.
    """

    params: SamplingParams
    min_p: SamplingParams | None = None
    seed: int | None = None
    stream: int | None = None


def request_of(asked: Any) -> Request:
    """The request that vLLM's SamplingParams describe; its extra_args (`vllm_xargs` over HTTP) come first.

    asked: vLLM's n, temperature, top_k, top_p, min_p and seed count, and in extra_args any of `NAMES` and `KEYS`. Other
    keys of extra_args are not ours, and are left alone. min_p of vLLM acts before top-p, min_p of extra_args after it,
    where this engine has it.
    Raises: ValueError that names the parameter, what it accepts and the value, which vLLM turns into a refusal.

    >>> from types import SimpleNamespace
    >>> asked = SimpleNamespace(n=1, temperature=0.9, top_k=-1, top_p=0.9, min_p=0.0, seed=7, extra_args={"stream": 3})
    >>> request = request_of(asked)
    >>> request.params == SamplingParams(temperature=0.9, top_p=0.9), request.seed, request.stream
    (True, 7, 3)
    """
    own = asked.extra_args or {}
    for name in LEFT_TO_VLLM:
        if name in own:
            raise ValueError(f"{name} must be vLLM's own parameter, not in extra_args; got {own[name]!r} there")
    if asked.n > 1 and ("seed" in own or ("stream" in own and asked.seed is None)):
        raise ValueError(
            "n must be 1 with a seed in extra_args, or a stream there and no seed: vLLM tells choices apart by its own "
            f"seed alone, and they would be one text; got {asked.n}"
        )
    values = {"temperature": asked.temperature, "top_k": max(asked.top_k, 0), "top_p": asked.top_p}
    values |= {name: own[name] for name in NAMES if name in own}
    try:
        params = SamplingParams(**values)
        seed, stream = (int64(name, own.get(name, getattr(asked, name, None))) for name in KEYS)
        if "min_p" in own or not asked.min_p:
            return Request(params, None, seed, stream)
        if all(f.name == "top_k" for f, _ in stages(params)):  # the two keep the same tokens in either order
            return Request(SamplingParams(**values, min_p=asked.min_p), None, seed, stream)
        first = {name: values[name] for name in ("temperature", "min_tokens_to_keep") if name in values}
        return Request(params, SamplingParams(**first, min_p=asked.min_p), seed, stream)
    except TypeError as error:  # vLLM refuses a request only for a ValueError
        raise ValueError(str(error)) from None


def int64(name: str, value: Any) -> int | None:
    """An int64, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must be an integer in -2^63 .. 2^63 - 1, got {value!r}")
    return value
