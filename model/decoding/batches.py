"""More prompts than fit a batch: those of like length go together, each keeps the draws it would have had alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from model.decoding.generation import Generation, Prompt, checked_streams, encoded, generate, random_seed, rooms
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers.params import integer

AT_ONCE = 256  # texts or beams that go through the model together: each is a row of the cache


def generate_many(
    model: Llama, tokenizer: Tokenizer, prompts: Sequence[Prompt], *, num_return_sequences: int = 1, **options: Any
) -> Iterator[tuple[int, list[Generation]]]:
    """Continue any number of prompts, batch by batch, the longest first; each as `generate` would in one call.

    Arguments as `generate_texts` takes them.

    Yields: (number of the prompt, its continuations) as they are there, not in the order of the prompts.
    Raises: ValueError or TypeError naming the argument, before the first token is drawn.

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> prompts = ["The king", "Once upon a time there was", "A wolf"]
    >>> several = dict(generate_many(model, tokenizer, prompts, batch_size=2, max_new_tokens=5, seed=7, top_p=0.9))
    >>> together = generate(model, tokenizer, prompts, max_new_tokens=5, seed=7, top_p=0.9)
    >>> [several[number][0].text == row[0].text for number, row in enumerate(together)]
    [True, True, True]
    """
    texts = generate_texts(model, tokenizer, prompts, num_return_sequences=num_return_sequences, **options)
    return by_prompt(texts, num_return_sequences)


def by_prompt(texts: Iterable[tuple[int, Generation]], count: int) -> Iterator[tuple[int, list[Generation]]]:
    """What `generate_texts` yields as (number of the prompt, its `count` continuations), as soon as all are there."""
    begun: dict[int, list[Generation]] = defaultdict(list)
    for number, text in texts:
        row = begun[number // count]
        row.append(text)
        if len(row) == count:
            yield number // count, begun.pop(number // count)


def generate_texts(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    batch_size: int = 16,
    skip: Collection[int] = (),
    num_return_sequences: int = 1,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    seed: int | None = None,
    stream: Sequence[int] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    **options: Any,
) -> Iterator[tuple[int, Generation]]:
    """The same, text by text: (number of the text, counted through all prompts; the text). A prompt's come in order.

    Args:
        prompts: texts, or token ids ready made.
        batch_size: int >= 1, prompts that are continued at a time; fewer where they would be more than 256 texts or
            beams. More than 256 texts of one prompt follow in several batches.
        skip: numbers of prompts to leave out, as they are there already; the others keep their streams.
        options: and all others as `generate` takes them.
    """
    prompt_ids = encoded(prompts, tokenizer, model.config.vocab_size)
    rooms(prompt_ids, max_new_tokens, max_length, model.config.max_position_embeddings)
    sequences = integer("num_return_sequences", num_return_sequences, 1)
    streams_each = 1 if num_beams > 1 else sequences  # the beams of a prompt are drawn together
    streams = checked_streams(stream, streams_each * len(prompt_ids))
    skipped = set(skip)
    left = [number for number in range(len(prompt_ids)) if number not in skipped]
    most = min(integer("batch_size", batch_size, 1), max(1, AT_ONCE // max(sequences, num_beams)))
    batches = by_length([len(ids) for ids in prompt_ids], left, most)
    shared = options | {
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "max_length": max_length,
        "seed": random_seed() if seed is None else seed,
    }

    def teller(batch: Sequence[int], places: range) -> Callable[[int, str], None] | None:
        """on_text for a batch, which counts its own sequences."""
        if on_text is None:
            return None
        return lambda i, text: on_text(batch[i // len(places)] * sequences + places[i % len(places)], text)

    def continued(batch: Sequence[int], places: range) -> Iterator[tuple[int, Generation]]:
        """The texts of each prompt at these places; with beams, whose stream is one, all that return."""
        rows = generate(
            model,
            tokenizer,
            [prompt_ids[i] for i in batch],
            num_return_sequences=sequences if num_beams > 1 else len(places),
            stream=[streams[i * streams_each + place] for i in batch for place in places],
            on_text=teller(batch, places),
            **shared,
        )
        numbered = zip(batch, rows, strict=True)
        return (pair for i, row in numbered for pair in enumerate(row, i * sequences + places.start))

    def batch_by_batch() -> Iterator[tuple[int, Generation]]:
        for batch in batches:
            for first in range(0, streams_each, AT_ONCE):
                yield from continued(batch, range(streams_each)[first : first + AT_ONCE])

    return batch_by_batch()


def by_length(lengths: Sequence[int], numbers: Sequence[int], most: int) -> list[list[int]]:
    """The numbers in groups of at most `most`, the longest first: what memory can't hold is known at once.

    >>> by_length([3, 9, 4, 8], [0, 1, 2, 3], 2)
    [[1, 3], [2, 0]]
    """
    ordered = sorted(numbers, key=lambda number: -lengths[number])
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]
