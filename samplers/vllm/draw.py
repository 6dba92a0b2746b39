"""The class that vLLM is given: `LLM(model, logits_processors=["samplers.vllm:Draw"])`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from samplers.batch import on_device
from samplers.extras import how_to_install
from samplers.invalid import InvalidRows
from samplers.sampler import SampleOutput, filter_logits, sample
from samplers.vllm.logprobs import logprobs
from samplers.vllm.request import request_of
from samplers.vllm.sampler import PROCESSED, replace_sample
from samplers.vllm.slots import Columns, Slots

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
    from vllm.v1.sample.sampler import Sampler
except ImportError as error:
    raise ImportError(f"samplers.vllm needs vLLM 0.13 or newer: {how_to_install('vllm')}") from error

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor
except ImportError:  # before vLLM 0.31, which then runs its V1 runner by itself

    class V2LogitsProcessor:  # type: ignore[no-redef]
        """Of no use before vLLM 0.31."""


class Draw(V1LogitsProcessor, V2LogitsProcessor):
    """Draws the tokens of vLLM with this engine.

    A request's token is that of `samplers.sample(logits, params, seed=seed, stream=stream, position=position)`, on its
    logits after vLLM's own masks, biases and penalties; position is the number of tokens that it has. Parameters, seed
    and stream: see `samplers.vllm.request`. A request without a seed takes the engine's, and a stream of its own.

    In the V1 runner the draw takes the place of vLLM's `Sampler.sample`. In V2, vLLM draws from a row that holds the
    token alone.

    Raises: ValueError for a logprobs_mode that would show such a row, and for a watermark, which this draw would
        remove; RuntimeError for an unknown `Sampler.sample`.
    """

    replaces_sampler = True

    def __init__(self, vllm_config: Any, state: Any, is_pin_memory: bool = False) -> None:
        """state: the device in V1; in V2 the runner's buffers, by slot."""
        self.is_v1 = isinstance(state, torch.device)
        self.draws_in_apply = not (self.is_v1 and self.replaces_sampler)
        check_config(vllm_config, self.draws_in_apply)
        self.state = state
        device = state if self.is_v1 else state.device
        parallel = vllm_config.parallel_config
        replica = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)  # the rank is 0 in dense models
        self.slots = Slots(device, vllm_config.model_config.seed or 0, replica)
        self.invalid = InvalidRows()
        if not self.draws_in_apply:
            replace_sample(Sampler, Draw)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses a request when it arrives. Raises: ValueError that names the parameter."""
        request_of(sampling_params)

    # The V1 runner

    def is_argmax_invariant(self) -> bool:
        """Where `draw` takes the place of the sampler, vLLM passes this processor to it in that list."""
        return not self.draws_in_apply

    def update_state(self, batch_update: Any) -> None:
        if batch_update:
            self.slots.update(batch_update)

    def draw(self, logits: torch.Tensor, mode: str | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens int64 [B] for float32 logits [B, V], row by row; and what vLLM shows as logprobs in this mode."""
        size = len(logits)
        if size != len(self.slots):
            raise RuntimeError(f"vLLM gave logits of {size} rows for {len(self.slots)} requests")
        columns = self.slots.columns(size)
        allowed = kept_by_min_p(logits, columns)
        out = drawn(logits, columns, self.slots.lengths(size), allowed)
        processed = None if mode is None else processed_scores(logits, columns, allowed, out, mode)
        return self.invalid.replaced(out.tokens), processed

    # The V2 runner

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        self.slots.put(req_idx, sampling_params)
        return True

    def draw_by_slot(self, logits: torch.Tensor, context: Any) -> torch.Tensor:
        """As `draw`; context: vLLM's LogitsContext, which names the slot and the place of each row."""
        slots = context.expanded_idx_mapping.clamp(min=0)  # padding
        columns = self.slots.columns(self.state.max_num_reqs).of_rows(slots, context.idx_mapping_np)
        position = context.pos + 1 - self.state.prompt_len.gpu[slots]
        out = drawn(logits, columns, position, kept_by_min_p(logits, columns))
        return self.invalid.replaced(out.tokens)

    # Both

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """The logits [B, V], of which -inf is all but the token drawn."""
        if not self.draws_in_apply:
            raise RuntimeError("vLLM samples without Sampler.sample, in whose place samplers.vllm:Draw draws")
        tokens = self.draw(logits, None)[0] if ctx is None else self.draw_by_slot(logits, ctx)
        return logits.fill_(-torch.inf).scatter_(1, tokens[:, None], 0.0)


class OneHotDraw(Draw):
    """`Draw` through vLLM's logits processors alone, for a vLLM whose sampler `Draw` does not know.

    In V1, processors act before the penalties: a request with one is refused. vLLM still runs its own filters.
    """

    replaces_sampler = False

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        super().validate_params(sampling_params)
        for name, off in (("repetition_penalty", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)):
            value = getattr(sampling_params, name)
            if value != off:
                raise ValueError(f"{name} must be {off} with samplers.vllm:OneHotDraw, got {value!r}")


def check_config(vllm_config: Any, draws_in_apply: bool) -> None:
    """Refuses what would show the row of one token instead of a distribution, and watermarks."""
    mode = vllm_config.model_config.logprobs_mode
    if draws_in_apply and mode in PROCESSED:
        raise ValueError(
            f"logprobs_mode must be raw_logprobs or raw_logits here, got {mode}: only samplers.vllm:Draw in the V1 "
            "runner (VLLM_USE_V2_MODEL_RUNNER=0) has processed ones"
        )
    if getattr(vllm_config, "watermark_config", None) is not None:
        raise ValueError("watermark_config must be None, got one: samplers.vllm draws the tokens, without a watermark")


def kept_by_min_p(logits: torch.Tensor, columns: Columns) -> torch.Tensor | None:
    """What vLLM's min-p keeps before the other filters: bool [B, V]; None where no row has one."""
    if columns.min_p is None:
        return None
    return filter_logits(logits, columns.min_p, on_invalid="mark") > -torch.inf


def drawn(logits: torch.Tensor, columns: Columns, position: Any, allowed: torch.Tensor | None) -> SampleOutput:
    keys: dict[str, Any] = dict(seed=columns.seed, stream=columns.stream, position=position)
    return sample(logits, columns.params, **keys, allowed=allowed, on_invalid="mark")


def processed_scores(
    logits: torch.Tensor, columns: Columns, allowed: torch.Tensor | None, out: SampleOutput, mode: str
) -> torch.Tensor:
    """The final distribution: x / T where kept, or the exact logprobs; -inf elsewhere."""
    filtered: torch.Tensor = filter_logits(logits, columns.params, allowed=allowed, on_invalid="mark")
    if mode == "processed_logits":
        return filtered
    inverse_temperature = on_device(np.copy(columns.params.table["inverse_temperature"]), logits.device)
    scores = logprobs(logits, filtered, inverse_temperature)
    return scores.scatter_(1, out.tokens.clamp(min=0)[:, None], out.logprobs[:, None])
