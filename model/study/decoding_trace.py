"""A text decoded step by step, every draw followed: what `alea trace` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.decoding.options import eos_ids_of
from model.decoding.prompts import Prompt, encode_prompt, prefill
from model.kv_cache import Slots
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams, Trace, trace
from samplers.params import integer


@dataclass(frozen=True)
class Walk:
    """A prompt and the draws that follow it.

    prompt_logprobs: nats, under the model, of each prompt token given those before it; None for the first. steps: a
    Trace for each token drawn. ended: whether the last one ends the text.
    """

    prompt: str
    prompt_ids: list[int]
    prompt_logprobs: list[float | None]
    steps: list[Trace]
    ended: bool
    tokenizer: Tokenizer

    @property
    def ids(self) -> list[int]:
        """Of the tokens drawn."""
        return [step.token for step in self.steps]

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.prompt_ids + self.ids)

    def piece(self, token: int) -> str:
        """How the vocabulary writes a token: `▁time`, `<0x0A>`, `</s>`."""
        return self.tokenizer.pieces([token])[0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; a piece beside every id, as two ids may have the same text."""
        pairs = zip(self.prompt_ids, self.prompt_logprobs, strict=True)
        prompt = [{"id": i, "piece": self.piece(i), "logprob": logprob} for i, logprob in pairs]
        steps = []
        for step in self.steps:
            one = step.to_dict()
            for candidate in one["candidates"]:
                candidate["piece"] = self.piece(candidate["id"])
            steps.append(one | {"piece": self.piece(step.token)})
        return {"prompt": self.prompt, "text": self.text, "ended": self.ended, "prompt_tokens": prompt, "steps": steps}


@torch.inference_mode()
def walk(
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
) -> Walk:
    """Continue a prompt as `generate` does with the same seed, stream and parameters, and follow every draw.

    prompt: a text, or token ids ready made (then no BOS is added). stream: of the sequence, which `generate` numbers
    from 0. max_new_tokens: int >= 1. top: candidates that each Trace lists. eos_token_id: default the model's.
    Raises: ValueError or TypeError naming the argument, and where prompt and continuation exceed the window.

    >>> told = walk(Llama.from_pretrained(), Tokenizer.from_pretrained(), "The king", SamplingParams(), seed=7)
    >>> len(told.steps), [stage.name for stage in told.steps[0].stages]
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
        drawn = [step.token for step in steps]
        history = [ids + drawn] if params.uses_history else None
        keys: dict[str, Any] = {"seed": seed, "position": position, "stream": stream, "history_start": len(ids)}
        steps.append(trace(logits[0].float().cpu(), params, history=history, top=top, **keys))
        if steps[-1].token in eos_ids or position == max_new_tokens - 1:
            break
        last = torch.tensor([[steps[-1].token]], device=model.device)
        logits = model(last, cache, Slots.ragged([len(ids) + position], model.device))[:, -1]
    text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
    return Walk(text, ids, prompt_logprobs(model, ids), steps, steps[-1].token in eos_ids, tokenizer)


def prompt_logprobs(model: Llama, ids: list[int]) -> list[float | None]:
    """ln p of each token after the first, in float64."""
    logits = model(torch.tensor([ids], device=model.device))[0, :-1].double().cpu()
    logprobs = torch.log_softmax(logits, -1).numpy()
    return [None, *(float(logprobs[i, token]) for i, token in enumerate(ids[1:]))] if len(ids) > 1 else [None]
