"""The engine as a sampling backend of SGLang: `python -m sglang.launch_server --sampling-backend alea ...`.

SGLang finds `register` through the entry point `sglang.srt.plugins`, in each of its processes. A token is that of
`samplers.sample(logits, params, seed=seed, stream=0, position=position)`, on the logits after SGLang's own penalties,
biases and grammars. SGLang keeps seeds only with --enable-deterministic-inference, and its position is the place in the
whole text, prompt included. Without seeds, each draw takes one from torch's generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from samplers.invalid import InvalidRows
from samplers.params import TEMPERATURE, PackedParams, SamplingParams, pack
from samplers.sampler import sample

NAME = "alea"
COLUMNS = ("temperatures", "top_ks", "top_ps", "min_ps")  # of a SamplingBatchInfo, float32 or int32 [B] or [B, 1]
ALL = 1 << 30  # SGLang's top-k where all tokens count


def register() -> None:
    """Make the backend known to SGLang. It draws only where it is chosen."""
    from sglang.srt.layers.sampler import register_sampler_backend

    register_sampler_backend(NAME, new_sampler)


def new_sampler() -> Any:
    """An instance of SGLang's Sampler that draws with this engine."""
    from sglang.srt.layers.sampler import Sampler

    return type("AleaSampler", (Drawing, Sampler), {})()


class Drawing:
    """What it adds to SGLang's Sampler."""

    def __init__(self) -> None:
        super().__init__()
        self.invalid = InvalidRows()
        self.columns: list[torch.Tensor] = []
        self.params: PackedParams | None = None

    def forward(
        self,
        logits_output: Any,
        sampling_info: Any,
        return_logprob: bool,
        top_logprobs_nums: list[int],
        token_ids_logprobs: list[Any],
        positions: torch.Tensor,
        *,
        logprob_logits: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The tokens int64 [B]; logprobs go to logits_output, under softmax at the request's temperature, as SGLang has
        them.

        Raises: ValueError for sampling masks and watermarks, which need SGLang's own draw.
        """
        if logprob_logits is not None or getattr(sampling_info, "sampling_mask_batch_indices", None) is not None:
            raise ValueError(f"sampling_backend must not be {NAME!r} with watermarks or return_sampling_mask")
        this: Any = self
        logits = this._preprocess_logits(logits_output.next_token_logits, sampling_info)
        keys: dict[str, Any] = dict(seed=seeds_of(sampling_info, logits), stream=0, position=positions)
        tokens = self.invalid.replaced(sample(logits, self.params_of(sampling_info), **keys, on_invalid="mark").tokens)
        if return_logprob:
            logprobs = torch.log_softmax(logits.float() / sampling_info.temperatures, dim=-1)
            found = this.output_logprob_processor.compute_logprobs(
                logprobs, top_logprobs_nums, token_ids_logprobs, tokens
            )
            found.write_output_to(logits_output)
        this._sync_token_ids_across_tp(tokens, sampling_info)
        return tokens

    def params_of(self, sampling_info: Any) -> PackedParams:
        """Read from the GPU when the batch changes, and kept until then: SGLang then makes other tensors."""
        columns = [getattr(sampling_info, name) for name in COLUMNS]
        if self.params is None or any(a is not b for a, b in zip(columns, self.columns, strict=True)):
            rows = zip(*(column.flatten().tolist() for column in columns), strict=True)
            self.columns, self.params = columns, pack([params(*row) for row in rows])
        return self.params


def params(temperature: float, k: int, p: float, min_p: float) -> SamplingParams:
    """One request; SGLang's float32 numbers become those that the user wrote.

    >>> params(float(np.float32(0.7)), ALL, float(np.float32(0.9)), 0.0)  # doctest: +ELLIPSIS
    SamplingParams(temperature=0.7, top_k=0, top_p=0.9, min_p=0.0, ...
    >>> params(1.0, 1, 1.0, 0.0).temperature  # as SGLang writes a temperature of 0
    0.0
    """
    if k == 1:
        return SamplingParams(temperature=0.0)
    within = min(max(shortest(temperature), TEMPERATURE.low), TEMPERATURE.high)  # SGLang takes any
    return SamplingParams(within, 0 if k >= ALL else k, shortest(p), shortest(min_p))


def shortest(value: float) -> float:
    """The shortest decimal number that is this float32."""
    return float(np.format_float_positional(np.float32(value), unique=True))


def seeds_of(sampling_info: Any, logits: torch.Tensor) -> torch.Tensor:
    seeds: torch.Tensor | None = sampling_info.sampling_seed
    if seeds is not None:
        return seeds
    return torch.randint(-(2**63), 2**63 - 1, (len(logits),), device=logits.device)
