"""Continuous batching (`generate_batch`): each request has its own parameters, seed, stream and position.

transformers' manager keeps a list of processors. Before every forward pass the list writes a few int32 numbers per
request to memory that a captured CUDA graph reads at each replay. `AleaLogitsProcessors` is such a list: its numbers
are the request's row of the parameter table, its seed, position and stream. The runner then writes the tokens that
`AleaLogitsProcessors` drew instead of calling multinomial. On a GPU an invalid row is not reported here: it continues
with token 0.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList
from transformers.generation import logits_process
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from samplers.batch import signed
from samplers.hf.chain import OPTIONS, UNKNOWN, WARPERS, sampling_params
from samplers.hf.decoding import step_aside
from samplers.hf.options import Options
from samplers.params import PLAIN, ROW, PackedParams, SamplingParams, integer, pack
from samplers.sampler import sample

REPLACED = (
    *(getattr(logits_process, kind) for _, kind, _ in WARPERS),
    logits_process.LogitNormalization,
    ContinuousBatchingLogitsProcessor,
)
TABLE = ROW.itemsize // 8  # int64 numbers of a request's parameters; seed, position and stream follow
NUMBERS = TABLE + 3
NUMBERED = re.compile(r"req_(\d+)(?:__child#(\d+))?")


def install(manager: Any, options: Options) -> Any:
    """Make a manager's requests draw with the fused call and return it, unchanged if the engine steps aside."""
    config = manager.generation_config
    if not config.do_sample:
        return manager
    for name in (*UNKNOWN, "watermarking_config"):
        if getattr(config, name, None) is not None:
            step_aside(name)
            return manager
    processors = AleaLogitsProcessors(manager.logit_processor.logits_processor, config, options)
    create = type(manager)._create_batch_processor.__get__(manager)

    def create_batch_processor() -> Any:
        batch_processor = create()
        batch_processor.model_runner._sample = processors.write
        return batch_processor

    manager.logit_processor, manager._create_batch_processor = processors, create_batch_processor
    return manager


class AleaLogitsProcessors(ContinuousBatchingLogitsProcessorList):
    """The processors that stay, and then the fused call.

    A request draws with the options of its `add_request(ids, seed=, stream=, temperature=, top_k=, ...)`, else with
    those of `attach` (one for all, or one per request in the order of arrival), else with the config's. The default
    stream is the request's number (7 for req_7) times num_return_sequences; for a name chosen by the user, a hash.
    """

    def __init__(self, stock: list[Any], config: Any, options: Options) -> None:
        self.logits_processor = LogitsProcessorList([p for p in stock if not isinstance(p, REPLACED)])
        self.options, self.config_params = options, sampling_params(config)
        self.seed = options.seed_of_call()
        self.tensors_required, self.do_processing = 2 * NUMBERS, True
        self.requests: dict[str, Request] = {}
        self.out: Any = None

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Raises: ValueError or TypeError naming an argument that a request may not have."""
        unknown = sorted(set(kwargs) - {*OPTIONS, "seed", "stream"})
        if unknown:
            raise TypeError(f"a request may set {', '.join(OPTIONS)}, seed and stream, got {', '.join(unknown)}")
        for name in {"seed", "stream"} & set(kwargs):
            integer(name, kwargs[name])
        SamplingParams(**{name: value for name, value in kwargs.items() if name in OPTIONS})

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """The numbers of padding rows: [2·NUMBERS, 1]."""
        numbers = torch.from_numpy(Request(PLAIN, 0, 0).numbers(0)).view(torch.int32)
        int32_tensor.copy_(numbers[:, None])

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        """Before each forward pass: write a column of int32 numbers for each request that will draw."""
        states = [request.state for request in requests_in_batch if request.has_new_token]
        known = self.requests
        self.requests = {state.request_id: known.get(state.request_id) or self.new_request(state) for state in states}
        if states:
            columns = [self.requests[state.request_id].numbers(position_of(state)) for state in states]
            numbers = torch.from_numpy(np.stack(columns)).view(torch.int32).T  # [2·NUMBERS, requests]
            arg_storage[:, : len(states)] = numbers.to(arg_storage.device)
        return arg_storage

    @torch.compiler.disable
    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, logits_processor_args: torch.Tensor
    ) -> torch.Tensor:
        for processor in self.logits_processor:
            scores = processor(input_ids, scores)
        rows = logits_processor_args[:, : len(scores)].T.contiguous().view(torch.int64)  # [requests, NUMBERS]
        seed, position, stream = rows[:, TABLE:].T.contiguous()
        params = table_on_gpu(rows) if scores.is_cuda else packed(tuple(r.params for r in self.requests.values()))
        on_invalid = "mark" if scores.is_cuda else "raise"
        keys: dict[str, Any] = {"seed": seed, "position": position, "stream": stream}
        self.out = sample(scores, params, **keys, backend=self.options.backend, on_invalid=on_invalid)
        return scores

    @torch.compiler.disable
    def write(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        """Replaces the runner's `_sample`: writes the tokens and, if asked for, the logprobs as int32."""
        count = len(self.out.tokens)
        output_ids[0, :count].copy_(self.out.tokens.clamp(min=0))
        if len(output_ids) > 1:
            output_ids[1, :count].copy_(self.out.logprobs.view(torch.int32))

    def new_request(self, state: Any) -> Request:
        asked = state.logit_processor_kwargs
        number = number_of(state)
        attached = self.options.params
        params = self.config_params if attached is None else value_for("params", attached.params, number)
        if params.uses_history or params.logit_bias:
            raise ValueError("params must have no penalties and no logit_bias in continuous batching")
        options = {name: getattr(params, name) for name in OPTIONS} | {n: v for n, v in asked.items() if n in OPTIONS}
        seed = asked.get("seed", value_for("seed", self.seed, number))
        stream = self.options.stream
        stream = number if stream is None else value_for("stream", stream, number)
        return Request(SamplingParams(**options), seed, asked.get("stream", stream))


class Request:
    """A request's parameters, seed and stream."""

    def __init__(self, params: SamplingParams, seed: int, stream: int) -> None:
        self.params, self.seed, self.stream = params, seed, stream

    def numbers(self, position: int) -> np.ndarray:
        """int64 [NUMBERS]: its row of the parameter table, seed, position, stream."""
        keys = [signed(int(key)) for key in (self.seed, position, self.stream)]
        return np.concatenate([self.params.packed.table.view(np.int64), np.array(keys, np.int64)])


def position_of(state: Any) -> int:
    """Tokens generated so far, including those in flight and those from before a reset."""
    prompt = getattr(state, "_true_initial_tokens", 0) or len(state.initial_tokens)
    return state.position_offset - prompt


def number_of(state: Any) -> int:
    """A request's number: its row if all requests were one batch of `generate`."""
    match = NUMBERED.fullmatch(state.request_id)
    if not match:
        return int.from_bytes(hashlib.blake2b(state.request_id.encode(), digest_size=8).digest(), "little", signed=True)
    sequences = state.num_children + 1
    child = sequences - 1 if match[2] is None else int(match[2])
    return int(match[1]) * sequences + child


def value_for(name: str, values: Any, number: int) -> Any:
    """The value of a request: the only value, or the one at its number."""
    if isinstance(values, int) or not np.ndim(values):
        return values
    if len(values) == 1:
        return values[0]
    if not 0 <= number < len(values):
        raise ValueError(f"{name} must be one or one a request, got {len(values)} for request {number}")
    return values[number]


@functools.lru_cache(maxsize=64)
def packed(params: tuple[SamplingParams, ...]) -> PackedParams:
    return pack(params)


def table_on_gpu(rows: torch.Tensor) -> PackedParams:
    """Parameters that are already in GPU memory, where each replay of a captured graph reads them."""
    return PackedParams((PLAIN,) * len(rows), device_table=rows[:, :TABLE].contiguous())
