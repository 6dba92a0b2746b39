"""Fields that several kinds of request have, by the names of OpenAI and vLLM.

Every field of a request is served, has no effect on the answer, or is refused by name; none is ignored in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from model.decoding.options import SAMPLING, random_seed, sampling_params
from model.serve.api.body import Body, StopString, WithoutEffect, only
from model.serve.api.errors import Refusal
from model.serve.api.grammars import Asked, ResponseFormat, StructuredOutputs
from model.serve.engine.request import Settings
from samplers.grammar import CompiledGrammar
from samplers.params import PENALTY_RANGES, TEMPERATURE
from samplers.reference.filters import FILTERS, Filter, Range

if TYPE_CHECKING:
    from model.serve.api.service import Service

MOST_LOGPROBS = 100
MOST_PENALTY = 1e6
INT64 = 1 << 63

Count = Annotated[int, Field(ge=1, le=256)]
Alternatives = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]
TokenId = Annotated[int, Field(ge=0)]
Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]  # a million errors would take seconds
Seed = Annotated[int, Field(ge=-INT64, lt=2 * INT64)]
Bias = Annotated[float, Field(ge=-100, le=100)]


def filter_field(f: Filter) -> tuple[Any, Any]:
    """The parameter of a filter: its type and its range. An integer may also be -1, vLLM's way to switch top_k off."""
    low, high = -1 if f.is_integer else f.accepts.low, min(f.accepts.high, INT64 - 1)
    bounds: dict[str, Any] = {"gt" if f.accepts.open_low else "ge": low, "lt" if f.accepts.open_high else "le": high}
    kind = int | None if f.is_integer else float | None
    return kind, Field(default=None, description=f"{f.summary}; {f.off:g}: off", **bounds)


def penalty_field(accepts: Range) -> tuple[Any, Any]:
    """Within what leaves the logits in float32, whatever they are."""
    low = 1 / MOST_PENALTY if accepts.low > 0 else -MOST_PENALTY
    return float | None, Field(default=None, ge=low, le=MOST_PENALTY)


TABLED: dict[str, Any] = {
    **{f.name: filter_field(f) for f in FILTERS},
    **{name: penalty_field(accepts) for name, accepts in PENALTY_RANGES.items()},
}
TabledFields: Any = create_model("TabledFields", __base__=Body, **TABLED)


class SamplingFields(TabledFields):
    """Those of `samplers.SamplingParams`; null and absent mean the model's generation_config.json, else off."""

    temperature: Annotated[float, Field(ge=0, le=TEMPERATURE.high)] | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,7}$")], Bias] | None = None
    min_tokens_to_keep: Annotated[int, Field(ge=1, lt=INT64)] | None = None

    def given(self) -> dict[str, Any]:
        """The fields that are set, for `SamplingParams`."""
        values = {name: getattr(self, name) for name in SAMPLING if getattr(self, name) is not None}
        if values.get("top_k") == -1:
            values["top_k"] = 0
        if "logit_bias" in values:
            values["logit_bias"] = {int(token): bias for token, bias in values["logit_bias"].items()}
        return values


class DrawingFields(SamplingFields):
    """All that decides how a choice is drawn and where it ends."""

    seed: Seed | None = Field(
        default=None, description="drawn, and returned in the header x-alea-seed, where there is none"
    )
    draw_stream: Seed | None = Field(default=None, description="choice i draws with stream draw_stream + i; default 0")
    stop: StopString | Annotated[list[StopString], Field(max_length=64, fail_fast=True)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024, fail_fast=True)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    allowed_token_ids: Ids | None = None

    def settings(self, service: Service, max_new_tokens: int, do_sample: bool | None = None, **more: Any) -> Settings:
        """For the engine. do_sample: None for as the model's generation_config says; more: fields of `Settings`, and
        template_stop: strings that end an answer of a chat, unless a grammar says where it ends."""
        vocabulary, defaults = service.llama.config.vocab_size, service.llama.generation_config
        for name in ("stop_token_ids", "allowed_token_ids"):
            check_ids(name, getattr(self, name) or (), vocabulary)
        for name in ("logprobs", "prompt_logprobs"):
            if (more.get(name) or 0) > vocabulary:
                raise Refusal(400, f"{name} must be at most {vocabulary}, the vocabulary, got {more[name]}", name)
        check_ids("logit_bias", [int(token) for token in self.logit_bias or ()], vocabulary)
        if do_sample is None and defaults.get("do_sample") is not False:
            do_sample = True
        end_ids = () if self.ignore_eos else service.llama.eos_token_ids
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        grammar, template_stop = self.compiled_grammar(service), more.pop("template_stop", ())
        settings = Settings(
            params=sampling_params(defaults, do_sample, self.given()),
            seed=random_seed() if self.seed in self.no_seed else int(self.seed or 0),
            max_new_tokens=max_new_tokens,
            vocabulary=vocabulary,
            end_ids=frozenset([*end_ids, *(self.stop_token_ids or ())]),
            stop_strings=(*stop, *(template_stop if grammar is None else ())),
            min_new_tokens=self.min_tokens or 0,
            allowed=self.allowed_token_ids,
            grammar=grammar,
            includes_stop=bool(self.include_stop_str_in_output),
            shows_special=self.skip_special_tokens is False,
            **more,
        )
        if settings.min_new_tokens and settings.mask_without_end is not None and not settings.mask_without_end.any():
            raise Refusal(400, "min_tokens must be 0 where every token that may be drawn ends the text", "min_tokens")
        return settings

    def grammar_asked(self) -> Asked | None:
        """What the text must be. Raises: Refusal."""
        return None

    def compiled_grammar(self, service: Service) -> CompiledGrammar | None:
        """The same, ready to be followed. Raises: Refusal, also for fields that contradict it."""
        asked = self.grammar_asked()
        if asked is None:
            return None
        for name in ("ignore_eos", "allowed_token_ids"):
            if getattr(self, name):
                raise Refusal(400, f"{name} must be null where {asked.field} says which tokens may come", name)
        return service.grammars.compiled(asked, service.llama.eos_token_ids)

    @property
    def no_seed(self) -> tuple[int | None, ...]:
        """What asks the server to draw one."""
        return (None,)

    def stream_of(self, index: int) -> int:
        return (self.draw_stream or 0) + index


def check_ids(name: str, ids: Any, vocabulary: int) -> None:
    for token in ids:
        if token >= vocabulary:
            raise Refusal(400, f"{name} must hold token ids in 0 .. {vocabulary - 1}, got {token}", name)


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: WithoutEffect = None
    continuous_usage_stats: only(False, why="usage is sent once, at the end: include_usage") = None  # type: ignore[valid-type]


class OpenAIFields(DrawingFields):
    """What completions and chat completions share."""

    model: str | None = Field(default=None, description="must be the name that /v1/models gives, if it is given")
    n: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    add_special_tokens: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    prompt_logprobs: Alternatives | None = None
    user: WithoutEffect = None
    metadata: WithoutEffect = None
    store: WithoutEffect = None
    service_tier: WithoutEffect = None
    safety_identifier: WithoutEffect = None
    prompt_cache_key: WithoutEffect = None
    prompt_cache_options: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None

    def grammar_asked(self) -> Asked | None:
        by_format = None if self.response_format is None else self.response_format.asked()
        if self.structured_outputs is None:
            return by_format
        if by_format is not None:
            name = "structured_outputs"
            raise Refusal(400, f"{name} must be null where response_format asks for JSON", name)
        return self.structured_outputs.asked()

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self, service: Service) -> None:
        """Raises: Refusal for another model, and for stream_options without stream."""
        service.check_model(self.model)
        if self.stream_options is not None and not self.stream:
            raise Refusal(400, "stream_options must be null unless stream is true", "stream_options")
