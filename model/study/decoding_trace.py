"""Decodes a text step by step and traces every draw: the data behind `alea trace`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.decoding.options import eos_ids_of
from model.decoding.prompts import Prompt, encode_prompt, prefill
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams, Trace, trace
from samplers.params import integer


@dataclass(frozen=True)
class DecodingTrace:
    """A prompt and the draws that follow it.

    prompt_logprobs: nats, under the model, of each prompt token given those before it; None for the first. steps: a
    Trace for each token drawn. ended: whether the last token ends the text.
    """

    prompt: str
    prompt_ids: list[int]
    prompt_logprobs: list[float | None]
    steps: list[Trace]
    ended: bool
    tokenizer: Tokenizer

    @property
    def ids(self) -> list[int]:
        """The tokens drawn."""
        return [step.token for step in self.steps]

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.prompt_ids + self.ids)

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it: `▁time`, `<0x0A>`, `</s>`."""
        return self.tokenizer.pieces([token])[0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Every id comes with its piece, since two ids can have the same text."""
        pairs = zip(self.prompt_ids, self.prompt_logprobs, strict=True)
        return {
            "prompt": self.prompt,
            "text": self.text,
            "ended": self.ended,
            "prompt_tokens": [{"id": i, "piece": self.piece(i), "logprob": logprob} for i, logprob in pairs],
            "steps": [self.step_dict(step) for step in self.steps],
        }

    def step_dict(self, step: Trace) -> dict[str, Any]:
        values = step.to_dict()
        for candidate in values["candidates"]:
            candidate["piece"] = self.piece(candidate["id"])
        return values | {"piece": self.piece(step.token)}


@torch.inference_mode()
def trace_decoding(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: Prompt,
    params: SamplingParams,
    *,
    seed: int,
    stream: int = 0,
    max_new_tokens: int = 10,
    top: int = 20,
    eos_token_id: Sequence[int] | None = None,
) -> DecodingTrace:
    """Continue a prompt as `generate` does with the same seed, stream and parameters, and trace every draw.

    prompt: a text, or token ids (then no BOS is added). stream: of the sequence; `generate` numbers its sequences
    from 0. max_new_tokens: int >= 1. top: candidates that each Trace lists. eos_token_id: default the model's.
    Raises: ValueError or TypeError naming the argument; ValueError if prompt and continuation exceed the window.

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> decoding = trace_decoding(model, tokenizer, "The king", SamplingParams(), seed=7)
    >>> len(decoding.steps), [stage.name for stage in decoding.steps[0].stages]
    (10, ['logits', 'temperature'])
    """
    ids = encode_prompt("prompt", prompt, tokenizer, model.config.vocab_size)
    window = model.config.max_position_embeddings
    integer("max_new_tokens", max_new_tokens, least=1)
    if len(ids) + max_new_tokens > window:
        raise ValueError(
            f"prompt and max_new_tokens must fit the window of {window}, got {len(ids)} + {max_new_tokens}"
        )
    eos_ids = eos_ids_of(model, eos_token_id)
    logits, cache = prefill(model, [ids], len(ids) + max_new_tokens)
    steps: list[Trace] = []
    for position in range(max_new_tokens):
        step = trace(
            logits[0].float().cpu(),
            params,
            history=[ids + [step.token for step in steps]] if params.uses_history else None,
            history_start=len(ids),
            seed=seed,
            position=position,
            stream=stream,
            top=top,
        )
        steps.append(step)
        if step.token in eos_ids or position == max_new_tokens - 1:
            break
        logits = model.step([step.token], cache, [len(ids) + position])
    text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
    return DecodingTrace(text, ids, prompt_logprobs(model, ids), steps, steps[-1].token in eos_ids, tokenizer)


def prompt_logprobs(model: Llama, ids: list[int]) -> list[float | None]:
    """ln p of each token given those before it, in float64; None for the first."""
    tokens = torch.tensor(ids)
    logits = model(tokens[None].to(model.device))[0, :-1].double().cpu()
    return [None, *logits.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0].tolist()]
