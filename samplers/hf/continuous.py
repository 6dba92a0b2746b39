"""Continuous batching (`generate_batch`): each request with its own parameters, seed, stream and position.

transformers' manager keeps a list of processors that lays out a few int32 numbers a request before every forward
pass, in memory that a captured CUDA graph reads again at each replay. `Requests` is such a list: its numbers are the
request's row of the parameter table, its seed, position and stream. Where the runner would call multinomial, it writes
the tokens that `Requests` drew. On a GPU no invalid row is reported here: it goes on with token 0.
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
TABLE = ROW.itemsize // 8  # int64 numbers of a request's parameters; behind them seed, position, stream
NUMBERS = TABLE + 3
NUMBERED = re.compile(r"req_(\d+)(?:__child#(\d+))?")


def install(manager: Any, options: Options) -> Any:
    """Make a manager's requests draw with the fused call; returns the manager, untouched where we step aside."""
    config = manager.generation_config
    if not config.do_sample:
        return manager
    for name in (*UNKNOWN, "watermarking_config"):
        if getattr(config, name, None) is not None:
            step_aside(name)
            return manager
    requests = Requests(manager.logit_processor.logits_processor, config, options)
    create = type(manager)._create_batch_processor.__get__(manager)

    def create_batch_processor() -> Any:
        processor = create()
        processor.model_runner._sample = requests.write
        return processor

    manager.logit_processor, manager._create_batch_processor = requests, create_batch_processor
    return manager


class Requests(ContinuousBatchingLogitsProcessorList):
    """The requests' processors: those that stay, and then the fused call.

    A request draws with its own `add_request(ids, seed=, stream=, temperature=, top_k=, ...)`, else with what the
    model was attached with (one for all, or one a request in the order they came), else with the config's options.
    The default stream is the request's number, req_7's being 7, times num_return_sequences; of a name of the user's
    own, a hash.
    """

    def __init__(self, stock: list[Any], config: Any, options: Options) -> None:
        self.logits_processor = LogitsProcessorList([one for one in stock if not isinstance(one, REPLACED)])
        self.options, self.config_params = options, sampling_params(config)
        self.seed = options.seed_of_call()
        self.tensors_required, self.do_processing = 2 * NUMBERS, True
        self.requests: dict[str, Request] = {}
        self.out: Any = None

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Raises: ValueError or TypeError naming what a request may not ask for."""
        unknown = sorted(set(kwargs) - {*OPTIONS, "seed", "stream"})
        if unknown:
            raise TypeError(f"a request may set {', '.join(OPTIONS)}, seed and stream, got {', '.join(unknown)}")
        for name in {"seed", "stream"} & set(kwargs):
            integer(name, kwargs[name])
        SamplingParams(**{name: value for name, value in kwargs.items() if name in OPTIONS})

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """What padding rows draw with: [2·NUMBERS, 1]."""
        numbers = torch.from_numpy(Request(PLAIN, 0, 0).numbers(0)).view(torch.int32)
        int32_tensor.copy_(numbers[:, None])

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        """Before each forward pass: a column of int32 numbers for each request that will draw."""
        states = [one.state for one in requests_in_batch if one.has_new_token]
        known = self.requests
        self.requests = {state.request_id: known.get(state.request_id) or self.request(state) for state in states}
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
        params = on_gpu(rows) if scores.is_cuda else packed(tuple(one.params for one in self.requests.values()))
        on_invalid = "mark" if scores.is_cuda else "raise"
        keys: dict[str, Any] = {"seed": seed, "position": position, "stream": stream}
        self.out = sample(scores, params, **keys, backend=self.options.backend, on_invalid=on_invalid)
        return scores

    @torch.compiler.disable
    def write(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        """In place of the runner's `_sample`: tokens, and logprobs where they are asked for, as int32."""
        count = len(self.out.tokens)
        output_ids[0, :count].copy_(self.out.tokens.clamp(min=0))
        if len(output_ids) > 1:
            output_ids[1, :count].copy_(self.out.logprobs.view(torch.int32))

    def request(self, state: Any) -> Request:
        """What a request draws with."""
        asked = state.logit_processor_kwargs
        number = number_of(state)
        given = self.options.params
        params = self.config_params if given is None else one_of("params", given.rows, number)
        if params.uses_history or params.logit_bias:
            raise ValueError("params must have no penalties and no logit_bias in continuous batching")
        options = {name: getattr(params, name) for name in OPTIONS} | {n: v for n, v in asked.items() if n in OPTIONS}
        seed = asked.get("seed", one_of("seed", self.seed, number))
        stream = self.options.stream
        stream = number if stream is None else one_of("stream", stream, number)
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
    """How many tokens the request has generated, those in flight and those before a reset included."""
    prompt = getattr(state, "_true_initial_tokens", 0) or len(state.initial_tokens)
    return state.position_offset - prompt


def number_of(state: Any) -> int:
    """A request's place among all: that of its row, had `generate` been given them as one batch."""
    found = NUMBERED.fullmatch(state.request_id)
    if not found:
        return int.from_bytes(hashlib.blake2b(state.request_id.encode(), digest_size=8).digest(), "little", signed=True)
    sequences = state.num_children + 1
    child = sequences - 1 if found[2] is None else int(found[2])
    return int(found[1]) * sequences + child


def one_of(name: str, values: Any, number: int) -> Any:
    """The value of a request: the only one, or that in its place."""
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


def on_gpu(rows: torch.Tensor) -> PackedParams:
    """Parameters that stand in GPU memory already, to be read afresh at each replay of a captured graph."""
    return PackedParams((PLAIN,) * len(rows), device_table=rows[:, :TABLE].contiguous())
