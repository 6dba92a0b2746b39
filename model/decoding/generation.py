"""`generate`: the continuations of one batch of prompts of any lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from model.decoding.beam_texts import beam_texts
from model.decoding.options import GenerationOptions
from model.decoding.prompts import Prompt, encode_prompts
from model.decoding.sampling import Streamer, sample_texts
from model.decoding.writer import Generation, OnText
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers.grammar import Grammar


def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[Prompt],
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    do_sample: bool | None = None,
    num_return_sequences: int = 1,
    eos_token_id: int | Sequence[int] | None = None,
    stop_strings: str | Sequence[str] | None = None,
    seed: int | None = None,
    stream: Sequence[int] | None = None,
    streamer: Streamer | None = None,
    on_text: OnText | None = None,
    model_logprobs: bool = True,
    logprobs: int | None = None,
    grammar: Grammar | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    backend: str = "auto",
    **sampling: Any,
) -> list[list[Generation]]:
    """Continue each prompt `num_return_sequences` times; returns a list per prompt, with a Generation per continuation.

    Args:
        prompts: texts, or lists of token ids (to which no BOS is added).
        max_new_tokens: tokens to draw at most; or max_length, prompt included. Neither: as many as the window holds.
        do_sample: False takes the most probable token. Default: the model's generation_config, else whether a
            sampling parameter is given.
        eos_token_id: ids that end a text, () for none; default the model's.
        stop_strings: strings that end a text; they are cut off, even where they span tokens.
        seed: None draws one from torch's generator, so `torch.manual_seed` determines it.
        stream: one number per sequence, default 0, 1, 2 ... through the call. A sequence's draws depend only on its
            seed, stream and position: it keeps its text in any batch, where `model.why_not_exact` is "".
            With beams, one number per prompt.
        streamer: an object with put(ids) and end(), as transformers' TextStreamer; for a single sequence.
        on_text: called with (sequence number, text) as text appears, never with half a character or stop string.
        model_logprobs: False leaves them out, which saves a pass over the logits.
        logprobs: int in 0 .. vocabulary: also `completion_logprobs`, with this many alternatives per step; None: none.
        grammar: what every continuation must be, from its first token to the id that ends it; one that reaches
            max_new_tokens or a stop string is cut off there.
        num_beams: int in 1 .. 1024; above 1, this many texts per prompt grow side by side, and the
            num_return_sequences with the best scores return, the best first: beam search, or with do_sample (which
            the model's generation_config may set) and T above 0 beam sampling. Not with streamer, on_text, logprobs
            or grammar.
        length_penalty, early_stopping: of beams, as `BeamRules` has them.
        backend: of the sampler.
        sampling: any field of `samplers.SamplingParams`, default the model's generation_config (whose do_sample and
            eos_token_id are used as well, but not its beams and lengths).

    Raises: ValueError or TypeError naming the argument; InvalidGrammar, a ValueError; ValueError with the arithmetic
        where a prompt and its continuation exceed the model's window.

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> a, b = (generate(model, tokenizer, "The king", max_new_tokens=8, top_p=0.9, seed=7)[0][0] for _ in range(2))
    >>> a.ids == b.ids, len(a.ids)
    (True, 8)
    """
    prompt_ids = encode_prompts(prompts, tokenizer, model.config.vocab_size)
    options = GenerationOptions.for_model(
        model,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        do_sample=do_sample,
        num_return_sequences=num_return_sequences,
        eos_token_id=eos_token_id,
        stop_strings=stop_strings,
        seed=seed,
        model_logprobs=model_logprobs,
        logprobs=logprobs,
        grammar=grammar,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        backend=backend,
        **sampling,
    )
    return generate_batch(model, tokenizer, prompt_ids, options, stream, streamer, on_text)


@torch.inference_mode()
def generate_batch(
    model: Llama,
    tokenizer: Tokenizer,
    prompt_ids: list[list[int]],
    options: GenerationOptions,
    stream: Sequence[int] | None = None,
    streamer: Streamer | None = None,
    on_text: OnText | None = None,
) -> list[list[Generation]]:
    """`generate` with its options checked."""
    options.refuse_with_beams(streamer=streamer, on_text=on_text)
    streams = options.checked_streams(stream, len(prompt_ids))
    if streamer is not None and len(streams) != 1:
        raise ValueError(f"streamer must be None for more than one sequence, got {len(streams)} sequences")
    if options.uses_beams:
        return beam_texts(model, tokenizer, prompt_ids, options, streams)
    return sample_texts(model, tokenizer, prompt_ids, options, streams, streamer, on_text)
