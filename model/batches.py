"""More prompts than fit a batch: those of like length go together, each keeps the draws it would have had alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from model.generation import Generation, Prompt, checked_streams, encoded, generate, random_seed, rooms
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers.params import integer


def generate_many(
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
) -> Iterator[tuple[int, list[Generation]]]:
    """Continue any number of prompts, batch by batch, the longest first; each as `generate` would in one call.

    Args:
        prompts: texts, or token ids ready made.
        batch_size: int >= 1, prompts that are continued at a time.
        skip: numbers of prompts to leave out, as they are there already; the others keep their streams.
        options: and all others as `generate` takes them.

    Yields: (number of the prompt, its continuations) as they are there, not in the order of the prompts.
    Raises: ValueError or TypeError naming the argument, before the first token is drawn.

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> prompts = ["The king", "Once upon a time there was", "A wolf"]
    >>> several = dict(generate_many(model, tokenizer, prompts, batch_size=2, max_new_tokens=5, seed=7, top_p=0.9))
    >>> together = generate(model, tokenizer, prompts, max_new_tokens=5, seed=7, top_p=0.9)
    >>> [several[number][0].text == row[0].text for number, row in enumerate(together)]
    [True, True, True]
    """
    prompt_ids = encoded(prompts, tokenizer, model.config.vocab_size)
    rooms(prompt_ids, max_new_tokens, max_length, model.config.max_position_embeddings)
    sequences = integer("num_return_sequences", num_return_sequences, 1)
    streams_each = 1 if num_beams > 1 else sequences  # the beams of a prompt are drawn together
    streams = checked_streams(stream, streams_each * len(prompt_ids))
    skipped = set(skip)
    left = [number for number in range(len(prompt_ids)) if number not in skipped]
    batches = by_length([len(ids) for ids in prompt_ids], left, integer("batch_size", batch_size, 1))
    shared = options | {
        "num_return_sequences": sequences,
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "max_length": max_length,
        "seed": random_seed() if seed is None else seed,
    }

    def teller(batch: Sequence[int]) -> Callable[[int, str], None] | None:
        """on_text for a batch, which counts its own sequences."""
        if on_text is None:
            return None
        return lambda i, text: on_text(batch[i // sequences] * sequences + i % sequences, text)

    def continued() -> Iterator[tuple[int, list[Generation]]]:
        for batch in batches:
            own = [s for i in batch for s in streams[i * streams_each : (i + 1) * streams_each]]
            some = [prompt_ids[i] for i in batch]
            results = generate(model, tokenizer, some, stream=own, on_text=teller(batch), **shared)
            yield from zip(batch, results, strict=True)

    return continued()


def by_length(lengths: Sequence[int], numbers: Sequence[int], most: int) -> list[list[int]]:
    """The numbers in groups of at most `most`, the longest first: what memory can't hold is known at once.

    >>> by_length([3, 9, 4, 8], [0, 1, 2, 3], 2)
    [[1, 3], [2, 0]]
    """
    ordered = sorted(numbers, key=lambda number: -lengths[number])
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]
