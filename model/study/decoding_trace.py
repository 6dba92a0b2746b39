"""Decodes a text step by step and traces every draw: the data behind `alea trace`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.decoding.grammar import grammar_for
from model.decoding.logprobs import token_logprobs
from model.decoding.options import eos_ids_of
from model.decoding.prompts import Prompt, encode_prompt, prefill
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams, Trace, trace
from samplers.batch import Array
from samplers.grammar import Grammar
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
        return {
            "prompt": self.prompt,
            "text": self.text,
            "ended": self.ended,
            "prompt_tokens": prompt_dicts(self.prompt_ids, self.prompt_logprobs, self.tokenizer),
            "steps": [step_dict(step, self.tokenizer) for step in self.steps],
        }


def prompt_dicts(ids: list[int], logprobs: list[float | None], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    tokens = zip(ids, tokenizer.pieces(ids), logprobs, strict=True)
    return [{"id": token, "piece": piece, "logprob": logprob} for token, piece, logprob in tokens]


def step_dict(step: Trace, tokenizer: Tokenizer) -> dict[str, Any]:
    values = step.to_dict()
    pieces = tokenizer.pieces([step.token, *(candidate["id"] for candidate in values["candidates"])])
    for candidate, piece in zip(values["candidates"], pieces[1:], strict=True):
        candidate["piece"] = piece
    return values | {"piece": pieces[0]}


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
    grammar: Grammar | None = None,
) -> DecodingTrace:
    """Continue a prompt as `generate` does with the same seed, stream and parameters, and trace every draw.

    prompt: a text, or token ids (then no BOS is added). stream: of the sequence; `generate` numbers its sequences
    from 0. max_new_tokens: int >= 1. top: candidates that each Trace lists. eos_token_id: default the model's.
    grammar: what the continuation must be; the stage "allowed" shows its mask.
    Raises: ValueError or TypeError naming the argument; InvalidGrammar; ValueError if prompt and continuation exceed
        the window.

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
    eos_ids, matcher = eos_ids_of(model, eos_token_id), None
    if grammar is not None:
        matcher = grammar_for(grammar, tokenizer, model.config.vocab_size, eos_ids).matcher()
    logits, cache = prefill(model, [ids], len(ids) + max_new_tokens)
    steps: list[Trace] = []
    for position in range(max_new_tokens):
        drawn = [step.token for step in steps]
        allowed = None if matcher is None else matcher.allowed()[None]
        row = logits.float().cpu()
        step = trace_step(row[0], params, ids, drawn, seed=seed, stream=stream, top=top, allowed=allowed)
        steps.append(step)
        if step.token in eos_ids or position == max_new_tokens - 1:
            break
        if matcher is not None:
            matcher.put(step.token)
        logits = model.step([step.token], cache, [len(ids) + position])
    text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
    return DecodingTrace(text, ids, prompt_logprobs(model, ids), steps, steps[-1].token in eos_ids, tokenizer)


def trace_step(
    logits: Array,
    params: SamplingParams,
    prompt: list[int],
    drawn: list[int],
    *,
    seed: int,
    stream: int,
    top: int,
    allowed: Array | None = None,
) -> Trace:
    """The draw after a prompt and the tokens that followed it. logits: (V,), the model's; allowed: as in `trace`."""
    return trace(
        logits,
        params,
        history=[prompt + drawn] if params.uses_history else None,
        history_start=len(prompt),
        seed=seed,
        position=len(drawn),
        stream=stream,
        top=top,
        allowed=allowed,
    )


def prompt_logprobs(model: Llama, ids: list[int]) -> list[float | None]:
    """ln p of each token given those before it, in float64; None for the first."""
    logits = model(torch.tensor([ids], device=model.device))[0].cpu()
    following = zip(logits, ids[1:], strict=False)
    return [None, *(token_logprobs(row, token, 0)[0] for row, token in following)]
