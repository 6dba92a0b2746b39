"""Sampling: all sequences of a batch grow by one drawn token per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import samplers
from model.decoding.grammar import grammar_for
from model.decoding.logprobs import Recorder
from model.decoding.options import GenerationOptions
from model.decoding.prompts import prefill
from model.decoding.writer import Generation, OnText, Place, Writer
from model.llama import Cache, Llama
from model.tokenizer import Tokenizer
from samplers.grammar.background import look_ahead


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
    vocabulary = model.config.vocab_size
    sampler, grammar = Sampler(options, vocabulary), None
    if options.grammar is not None:
        grammar = grammar_for(options.grammar, tokenizer, vocabulary, options.eos_ids)
    writers = [
        Writer(
            prompt_ids[number // count],
            limits[number // count],
            tokenizer,
            options.stop_strings,
            number=number,
            stream=stream,
            on_text=on_text,
            matcher=None if grammar is None else grammar.matcher(),
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
    masks = look_ahead(writer.matcher for writer in writers)
    logits, cache = prefill(model, prompt_ids, length)
    masks.result()
    copies = len(writers) // len(prompt_ids)
    may_share = model.is_packed and not sampler.options.stop_strings  # which may end a text before a forced token
    if copies > 1:
        logits, cache = logits.repeat_interleave(copies, dim=0), cache.repeat(copies)
    active, rows = list(writers), [Place(writer) for writer in writers]
    while True:
        tokens = sampler.draw(logits, rows)
        for row, token in zip(rows, tokens, strict=True):
            row.writer.put(token, token in sampler.options.eos_ids)
        if streamer is not None:
            streamer.put(torch.tensor(tokens))
        for i in reversed([i for i, writer in enumerate(active) if writer.generation.finish_reason]):
            cache.drop(i)
            active[i] = active[-1]
            active.pop()
        if not active:
            return
        rows, logits = step(model, active, cache, may_share)


def step(model: Llama, active: list[Writer], cache: Cache, may_share: bool) -> tuple[list[Place], Tensor]:
    """The model reads the last token of each text -> the place that each row of logits is for, and the logits [N, V].

    may_share: whether it reads the tokens that a grammar is known to force next along with it.
    """
    runs = [[writer.generation.ids[-1], *(writer.forced if may_share else ())] for writer in active]
    masks = look_ahead(writer.matcher for writer in active)
    logits = model.steps(runs, cache, [writer.length - 1 for writer in active])
    masks.result()
    return [Place(writer, i) for writer, run in zip(active, runs, strict=True) for i in range(len(run))], logits


class Sampler:
    """The draw of each step, with the same options throughout a call."""

    def __init__(self, options: GenerationOptions, vocabulary: int) -> None:
        self.options, self.packed = options, samplers.pack(options.params)
        self.recorder = None
        if options.logprobs is not None:
            self.recorder = Recorder(options.logprobs, vocabulary, options.params, options.backend)

    def draw(self, logits: Tensor, rows: list[Place]) -> list[int]:
        """A token for each row of logits [B, V]; its logprobs go to the row's writer."""
        options, more = self.options, dict[str, Any]()
        writers = [row.writer for row in rows]
        streams = [writer.stream for writer in writers]
        if options.params.uses_history:
            more["history"] = [row.text for row in rows]
            more["history_start"] = [len(writer.prompt) for writer in writers]
        if options.grammar is not None:
            more["allowed"] = np.stack([row.mask for row in rows])
        out = samplers.sample(
            logits,
            self.packed,
            seed=options.seed,
            position=rows[0].position if options.grammar is None else [row.position for row in rows],
            stream=None if streams == list(range(len(writers))) else streams,  # the row numbers are the default
            details=options.model_logprobs,
            backend=options.backend,
            **more,
        )
        for writer, logprob in zip(writers, out.logprobs.tolist(), strict=True):
            writer.generation.logprobs.append(logprob)
        if options.model_logprobs:
            for writer, logprob in zip(writers, out.model_logprobs.tolist(), strict=True):
                writer.generation.model_logprobs.append(logprob)
        if self.recorder is not None:
            self.recorder.put([writer.number for writer in writers], logits, out.tokens, **more)
        return out.tokens.tolist()

    def finish(self, writer: Writer, tokenizer: Tokenizer) -> Generation:
        """A writer's continuation, with the logprobs recorded for it."""
        result = writer.generation
        if self.recorder is not None:
            result.completion_logprobs = self.recorder.completion(
                writer.number, result.ids, result.logprobs, result.text, tokenizer
            )
        return result
