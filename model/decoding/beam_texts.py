"""From beam search to texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.decoding.beam_search import Beam, CandidateSelector, Search, beam_search
from model.decoding.options import GenerationOptions
from model.decoding.prompts import prefill
from model.decoding.writer import Generation, Writer
from model.llama import Llama
from model.tokenizer import Tokenizer


def beam_texts(
    model: Llama,
    tokenizer: Tokenizer,
    prompt_ids: list[list[int]],
    options: GenerationOptions,
    streams: Sequence[int],
) -> list[list[Generation]]:
    """The best continuations of each prompt; streams: one number per prompt.

    Raises: ValueError where a search finds fewer than num_return_sequences.
    """
    count, rules, is_stopped = options.num_return_sequences, options.beam_rules, stop_check(tokenizer, options)
    limits = options.new_token_limits(prompt_ids, model)
    searches = [
        Search(ids, limit, rules, stream, is_stopped)
        for ids, limit, stream in zip(prompt_ids, limits, streams, strict=True)
    ]
    selector = CandidateSelector(options.params, rules, model.config.vocab_size, options.seed, options.backend)
    length = max(len(search.prompt) + search.max_new_tokens for search in searches)
    logits, cache = prefill(model, prompt_ids, length)
    beam_search(model, logits, cache, searches, selector)
    for search in searches:
        if len(search.finished) < count:
            prompt = tokenizer.decode(search.prompt)[:40]
            raise ValueError(
                f"num_return_sequences must be at most {len(search.finished)}, the texts there are after {prompt!r} "
                f"under these filters, this vocabulary and length; got {count}"
            )
    return [
        [
            to_generation(search, beam, tokenizer, options.stop_strings, options.model_logprobs)
            for beam in search.finished[:count]
        ]
        for search in searches
    ]


def to_generation(
    search: Search, beam: Beam, tokenizer: Tokenizer, stop_strings: Sequence[str] = (), model_logprobs: bool = True
) -> Generation:
    """A finished beam as a Generation."""
    writer = Writer(search.prompt, search.max_new_tokens, tokenizer, stop_strings)
    for step in beam.path():
        writer.put(step.token, step.token in search.rules.eos_ids)
        writer.generation.logprobs.append(step.logprob)
        if model_logprobs:
            writer.generation.model_logprobs.append(step.model_logprob)
    writer.generation.score = search.score(beam)
    return writer.generation


def stop_check(tokenizer: Tokenizer, options: GenerationOptions) -> Callable[[list[int]], bool] | None:
    """A function: do these ids hold a stop string? None if there are no stop strings."""
    if not options.stop_strings:
        return None

    def is_stopped(ids: list[int]) -> bool:
        decoder = tokenizer.stream()
        text = "".join(decoder.put(i) for i in ids)
        return any(stop in text for stop in options.stop_strings)

    return is_stopped
