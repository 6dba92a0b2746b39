"""Sampling: all sequences of a batch grow by one drawn token per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

import samplers
from model.decoding.logprobs import Recorder
from model.decoding.options import GenerationOptions
from model.decoding.prompts import prefill
from model.decoding.writer import Generation, OnText, Writer
from model.llama import Llama
from model.tokenizer import Tokenizer


class Streamer(Protocol):
    """As transformers' TextStreamer: gets the prompt, then each token as it is drawn."""

    def put(self, ids: Tensor) -> None: ...

    def end(self) -> None: ...


def sample_texts(
    model: Llama,
    tokenizer: Tokenizer,
    prompt_ids: list[list[int]],
    options: GenerationOptions,
    streams: Sequence[int],
    streamer: Streamer | None = None,
    on_text: OnText | None = None,
) -> list[list[Generation]]:
    """The continuations of each prompt; streams: one number per continuation."""
    count = options.num_return_sequences
    limits = options.new_token_limits(prompt_ids, model)
    sampler = Sampler(options, model.config.vocab_size)
    writers = [
        Writer(
            prompt_ids[number // count],
            limits[number // count],
            tokenizer,
            options.stop_strings,
            number=number,
            stream=stream,
            on_text=on_text,
        )
        for number, stream in enumerate(streams)
    ]
    if streamer is not None:
        streamer.put(torch.tensor(prompt_ids))
    decode(model, prompt_ids, writers, sampler, streamer)
    if streamer is not None:
        streamer.end()
    results = [sampler.finish(writer, tokenizer) for writer in writers]
    return [results[i : i + count] for i in range(0, len(results), count)]


def decode(
    model: Llama, prompt_ids: list[list[int]], writers: list[Writer], sampler: Sampler, streamer: Streamer | None
) -> None:
    """Prefill every prompt once, then draw and append until every writer is done."""
    length = max(len(writer.prompt) + writer.max_new_tokens for writer in writers)
    logits, cache = prefill(model, prompt_ids, length)
    copies = len(writers) // len(prompt_ids)
    if copies > 1:
        logits, cache = logits.repeat_interleave(copies, dim=0), cache.repeat(copies)
    active, position = list(writers), 0
    while True:
        tokens = sampler.draw(logits, active, position)
        for writer, token in zip(active, tokens, strict=True):
            writer.put(token, token in sampler.options.eos_ids)
        if streamer is not None:
            streamer.put(torch.tensor(tokens))
        for row in reversed([i for i, writer in enumerate(active) if writer.generation.finish_reason]):
            cache.drop(row)
            active[row] = active[-1]
            active.pop()
        if not active:
            return
        last, lengths = [writer.generation.ids[-1] for writer in active], [writer.length - 1 for writer in active]
        logits = model.step(last, cache, lengths)  # [B, V]
        position += 1


class Sampler:
    """The draw of each step, with the same options throughout a call."""

    def __init__(self, options: GenerationOptions, vocabulary: int) -> None:
        self.options, self.packed = options, samplers.pack(options.params)
        self.recorder = None
        if options.logprobs is not None:
            self.recorder = Recorder(options.logprobs, vocabulary, options.params, options.backend)

    def draw(self, logits: Tensor, writers: list[Writer], position: int) -> list[int]:
        """One token per writer; its logprobs go to the writer."""
        options, history = self.options, dict[str, Any]()
        streams = [writer.stream for writer in writers]
        if options.params.uses_history:
            history["history"] = [writer.prompt + writer.generation.ids for writer in writers]
            history["history_start"] = [len(writer.prompt) for writer in writers]
        out = samplers.sample(
            logits,
            self.packed,
            seed=options.seed,
            position=position,
            stream=None if streams == list(range(len(writers))) else streams,  # the row numbers are the default
            details=options.model_logprobs,
            backend=options.backend,
            **history,
        )
        for writer, logprob in zip(writers, out.logprobs.tolist(), strict=True):
            writer.generation.logprobs.append(logprob)
        if options.model_logprobs:
            for writer, logprob in zip(writers, out.model_logprobs.tolist(), strict=True):
                writer.generation.model_logprobs.append(logprob)
        if self.recorder is not None:
            self.recorder.put([writer.number for writer in writers], logits, out.tokens, **history)
        return out.tokens.tolist()

    def finish(self, writer: Writer, tokenizer: Tokenizer) -> Generation:
        """A writer's continuation, with the logprobs recorded for it."""
        result = writer.generation
        if self.recorder is not None:
            result.completion_logprobs = self.recorder.completion(
                writer.number, result.ids, result.logprobs, result.text, tokenizer
            )
        return result
