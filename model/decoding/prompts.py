"""Prompts as token ids: checked, padded, and passed through the model once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.kv_cache import Slots
from model.llama import Cache, Llama
from model.tokenizer import Tokenizer
from samplers.params import integer

Prompt = str | Sequence[int]


def encode_prompts(prompts: str | Sequence[Prompt], tokenizer: Tokenizer, vocabulary: int) -> list[list[int]]:
    """Token ids of each prompt, each at least one token within the model's vocabulary."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(texts, Sequence):
        raise TypeError(f"prompts must be a text or a list of texts or lists of ids, got {type(prompts).__name__}")
    if not texts:
        raise ValueError("prompts must hold at least one prompt, got none")
    return [encode_prompt(f"prompts[{i}]", prompt, tokenizer, vocabulary) for i, prompt in enumerate(texts)]


def encode_prompt(name: str, prompt: Prompt, tokenizer: Tokenizer, vocabulary: int) -> list[int]:
    if isinstance(prompt, str):
        prompt = tokenizer.encode(prompt)
    if not isinstance(prompt, Sequence):
        raise TypeError(f"{name} must be a text or a list of token ids, got {prompt!r}")
    ids = [integer(f"{name}: a token id", token) for token in prompt]
    if not ids:
        raise ValueError(f"{name} must hold at least one token, got none")
    for token in ids:
        if not 0 <= token < vocabulary:
            pieces = f"(the tokenizer has {tokenizer.vocab_size} pieces)"
            raise ValueError(f"{name} must hold token ids in 0 .. {vocabulary - 1}, got {token} {pieces}")
    return ids


def new_token_limits(
    prompt_ids: list[list[int]], max_new_tokens: int | None, max_length: int | None, window: int
) -> list[int]:
    """How many tokens may follow each prompt. As in transformers, max_new_tokens overrides max_length.

    Raises: ValueError with the arithmetic where a prompt and its continuation exceed the window.
    """
    if max_new_tokens is not None:
        limits = [integer("max_new_tokens", max_new_tokens, 1)] * len(prompt_ids)
    else:
        total = window if max_length is None else integer("max_length", max_length, 1)
        limits = [total - len(ids) for ids in prompt_ids]
    for number, (ids, new) in enumerate(zip(prompt_ids, limits, strict=True)):
        if new < 1:
            limit = f"max_length = {max_length}" if max_length is not None else f"the model's window of {window}"
            raise ValueError(
                f"prompts[{number}] has {len(ids)} tokens, which leaves {new} of {limit}: shorten the prompt"
            )
        if len(ids) + new > window:
            raise ValueError(
                f"prompts[{number}]: {len(ids)} prompt tokens + {new} new = {len(ids) + new} > {window}, the model's "
                f"window (max_position_embeddings): shorten one of them by {len(ids) + new - window}"
            )
    return limits


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids as one tensor, int64 [B, L]. Padding comes last, where causal attention hides it.

    >>> padded([[5, 6, 7], [8]])
    tensor([[5, 6, 7],
            [8, 0, 0]])
    """
    return pad_sequence([torch.tensor(ids) for ids in rows], batch_first=True)


def read(model: Llama, rows: Sequence[Sequence[int]], cache: Cache | None = None) -> Tensor:
    """Rows of ids at once, each from its position 0 -> the stream after the last norm [B, L, E], padded."""
    slots = Slots.prompts([len(ids) for ids in rows], model.device)
    return model.hidden(padded(rows).to(model.device), cache, slots)


def prefill(model: Llama, prompt_ids: list[list[int]], length: int) -> tuple[Tensor, Cache]:
    """Logits [B, V] after each prompt, and a cache of `length` slots that holds the prompts.

    Raises: ValueError naming the model where its logits are NaN or +inf.
    """
    cache = model.new_cache(len(prompt_ids), length)
    hidden = read(model, prompt_ids, cache)  # [B, L, E]
    last = torch.tensor([len(ids) - 1 for ids in prompt_ids], device=model.device)
    logits = model.logits(hidden[torch.arange(len(hidden), device=model.device), last])
    if not (logits < torch.inf).all():
        raise ValueError(
            f"{model.source}: gives NaN or +inf after the prompt: its weights hold some, or {model.dtype} is too narrow"
        )
    return logits, cache
