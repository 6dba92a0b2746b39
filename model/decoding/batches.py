"""Generates for any number of prompts, in batches of similar length. Batching does not change any text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from model.decoding.generation import generate_batch
from model.decoding.options import GenerationOptions
from model.decoding.prompts import Prompt, encode_prompts
from model.decoding.sampling import Streamer
from model.decoding.writer import Generation, OnText
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers.params import integer

AT_ONCE = 256  # texts or beams in one batch: each is a row of the cache


def generate_many(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    batch_size: int = 16,
    skip: Collection[int] = (),
    stream: Sequence[int] | None = None,
    streamer: Streamer | None = None,
    on_text: OnText | None = None,
    **options: Any,
) -> Iterator[tuple[int, list[Generation]]]:
    """Continue any number of prompts, batch by batch, the longest first; each as `generate` would in one call.

    Args:
        prompts: texts, or lists of token ids.
        batch_size, skip: as in `generate_texts`.
        stream, streamer, on_text, options: as in `generate`.

    Yields: (number of the prompt, its continuations) as they are finished, not in the order of the prompts.
    Raises: ValueError or TypeError naming the argument, before the first token is drawn.

    >>> from model import generate
    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> prompts = ["The king", "Once upon a time there was", "A wolf"]
    >>> several = dict(generate_many(model, tokenizer, prompts, batch_size=2, max_new_tokens=5, seed=7, top_p=0.9))
    >>> together = generate(model, tokenizer, prompts, max_new_tokens=5, seed=7, top_p=0.9)
    >>> [several[number][0].text == row[0].text for number, row in enumerate(together)]
    [True, True, True]
    """
    prompt_ids = encode_prompts(prompts, tokenizer, model.config.vocab_size)
    checked = GenerationOptions.for_model(model, **options)
    texts = generate_texts(
        model,
        tokenizer,
        prompt_ids,
        checked,
        batch_size=batch_size,
        skip=skip,
        stream=stream,
        streamer=streamer,
        on_text=on_text,
    )
    return by_prompt(texts, checked.num_return_sequences)


def by_prompt(texts: Iterable[tuple[int, Generation]], count: int) -> Iterator[tuple[int, list[Generation]]]:
    """(number of the prompt, its `count` continuations), each once `generate_texts` has yielded all of them."""
    begun: dict[int, list[Generation]] = defaultdict(list)
    for number, text in texts:
        row = begun[number // count]
        row.append(text)
        if len(row) == count:
            yield number // count, begun.pop(number // count)


def generate_texts(
    model: Llama,
    tokenizer: Tokenizer,
    prompt_ids: list[list[int]],
    options: GenerationOptions,
    *,
    batch_size: int = 16,
    skip: Collection[int] = (),
    stream: Sequence[int] | None = None,
    streamer: Streamer | None = None,
    on_text: OnText | None = None,
) -> Iterator[tuple[int, Generation]]:
    """`generate_many` text by text: (number of the text, counted through all prompts; the text).

    The texts of one prompt come in order.

    Args:
        batch_size: int >= 1, prompts per batch; fewer where they would be more than 256 texts or beams. More than 256
            texts of one prompt are split into several batches.
        skip: numbers of prompts to leave out; the others keep their streams.
    """
    options.new_token_limits(prompt_ids, model)
    streams = options.checked_streams(stream, len(prompt_ids))
    count, per_prompt = options.num_return_sequences, options.streams_per_prompt
    skipped = set(skip)
    numbers = [number for number in range(len(prompt_ids)) if number not in skipped]
    most = min(integer("batch_size", batch_size, 1), max(1, AT_ONCE // max(count, options.num_beams)))
    batches = by_length([len(ids) for ids in prompt_ids], numbers, most)

    def on_batch_text(batch: Sequence[int], places: range) -> OnText | None:
        """on_text for a batch, which counts its own sequences."""
        if on_text is None:
            return None
        return lambda i, text: on_text(batch[i // len(places)] * count + places[i % len(places)], text)

    def generated(batch: Sequence[int], places: range) -> Iterator[tuple[int, Generation]]:
        """The texts of each prompt at these places; with beams, which share a stream, all that return."""
        rows = generate_batch(
            model,
            tokenizer,
            [prompt_ids[i] for i in batch],
            options if options.uses_beams else replace(options, num_return_sequences=len(places)),
            [streams[i * per_prompt + place] for i in batch for place in places],
            streamer,
            on_batch_text(batch, places),
        )
        numbered = zip(batch, rows, strict=True)
        return (pair for i, row in numbered for pair in enumerate(row, i * count + places.start))

    def batch_by_batch() -> Iterator[tuple[int, Generation]]:
        for batch in batches:
            for first in range(0, per_prompt, AT_ONCE):
                yield from generated(batch, range(per_prompt)[first : first + AT_ONCE])

    return batch_by_batch()


def by_length(lengths: Sequence[int], numbers: Sequence[int], most: int) -> list[list[int]]:
    """The numbers in groups of at most `most`, the longest first, so memory runs out at the start or not at all.

    >>> by_length([3, 9, 4, 8], [0, 1, 2, 3], 2)
    [[1, 3], [2, 0]]
    """
    ordered = sorted(numbers, key=lambda number: -lengths[number])
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]
