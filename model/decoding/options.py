"""How texts are generated: the arguments of `generate`, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from model.config import token_ids
from model.decoding.beam_search import BeamRules
from model.decoding.prompts import new_token_limits
from model.llama import Llama
from samplers import SamplingParams
from samplers.grammar import Grammar
from samplers.params import PENALTIES, integer

SAMPLING = tuple(f.name for f in fields(SamplingParams))


@dataclass(frozen=True)
class GenerationOptions:
    """Everything that a text depends on, except the model, its prompt and its stream.

    params: of every draw. seed: int. eos_ids: token ids that end a text. All others as in `generate`.

    Raises: TypeError or ValueError naming the argument.

    >>> GenerationOptions(SamplingParams(), seed=7, num_beams=2, num_return_sequences=3)
    Traceback (most recent call last):
    ValueError: num_return_sequences must be at most num_beams = 2, got 3
    """

    params: SamplingParams
    seed: int
    eos_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    max_length: int | None = None
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    model_logprobs: bool = True
    logprobs: int | None = None
    grammar: Grammar | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen
        put(self, "num_return_sequences", integer("num_return_sequences", self.num_return_sequences, 1))
        put(self, "stop_strings", checked_stop_strings(self.stop_strings))
        put(self, "seed", integer("seed", self.seed))
        rules = self.beam_rules
        if self.uses_beams and self.num_return_sequences > rules.num_beams:
            count = self.num_return_sequences
            raise ValueError(f"num_return_sequences must be at most num_beams = {rules.num_beams}, got {count}")
        if not self.uses_beams and (rules.length_penalty != 1 or rules.early_stopping is not False):
            given = f"length_penalty = {rules.length_penalty!r} and early_stopping = {rules.early_stopping!r}"
            raise ValueError(f"num_beams must be above 1 for length_penalty and early_stopping, got 1 with {given}")
        self.refuse_with_beams(logprobs=self.logprobs, grammar=self.grammar)
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise TypeError(f"grammar must be a samplers.grammar.Grammar or None, got {type(self.grammar).__name__}")

    @classmethod
    def for_model(
        cls,
        model: Llama,
        *,
        do_sample: bool | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        seed: int | None = None,
        **given: Any,
    ) -> GenerationOptions:
        """The options of a call; the model's generation_config, its EOS ids and a random seed fill the gaps.

        given: other fields of this class, and fields of SamplingParams.
        """
        own = {name: given.pop(name) for name in OWN & given.keys()}
        return cls(
            params=sampling_params(model.generation_config, do_sample, given),
            seed=random_seed() if seed is None else seed,
            eos_ids=eos_ids_of(model, eos_token_id),
            **own,
        )

    @property
    def beam_rules(self) -> BeamRules:
        return BeamRules(self.num_beams, self.length_penalty, self.early_stopping, self.eos_ids)

    @property
    def uses_beams(self) -> bool:
        return self.num_beams > 1

    @property
    def streams_per_prompt(self) -> int:
        """The beams of a prompt are drawn together."""
        return 1 if self.uses_beams else self.num_return_sequences

    def refuse_with_beams(self, **arguments: Any) -> None:
        """Raises: ValueError for a given argument that only a single growing text can serve."""
        for name, value in arguments.items():
            if self.uses_beams and value is not None:
                raise ValueError(f"{name} must be None with num_beams above 1, got {value!r}")

    def new_token_limits(self, prompt_ids: list[list[int]], model: Llama) -> list[int]:
        window = model.config.max_position_embeddings
        return new_token_limits(prompt_ids, self.max_new_tokens, self.max_length, window)

    def checked_streams(self, stream: Sequence[int] | None, prompts: int) -> Sequence[int]:
        """The stream of each sequence, default 0, 1, 2 ..."""
        sequences = prompts * self.streams_per_prompt
        if stream is None:
            return range(sequences)
        if not isinstance(stream, Sequence):
            raise TypeError(f"stream must be a list of {sequences} integers, one a sequence, got {stream!r}")
        if len(stream) != sequences:
            raise ValueError(f"stream must hold one number for each of {sequences} sequences, got {len(stream)}")
        return [integer("stream: a number", number) % 2**64 for number in stream]


OWN = {f.name for f in fields(GenerationOptions)} - {"params", "seed", "eos_ids"}


def eos_ids_of(model: Llama, eos_token_id: int | Sequence[int] | None) -> tuple[int, ...]:
    """The ids given, else the model's. Raises: ValueError naming eos_token_id."""
    return model.eos_token_ids if eos_token_id is None else token_ids(eos_token_id, model.config.vocab_size)


def checked_stop_strings(stop_strings: str | Sequence[str] | None) -> tuple[str, ...]:
    stops = [stop_strings] if isinstance(stop_strings, str) else stop_strings or []
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop_strings must be non-empty strings, got {stop_strings!r}")
    return tuple(stops)


def sampling_params(defaults: dict[str, Any], do_sample: bool | None, given: dict[str, Any]) -> SamplingParams:
    """What was given, then the model's generation_config, then off; greedy keeps the penalties alone."""
    unknown = sorted(set(given) - set(SAMPLING))
    if unknown:
        raise TypeError(f"generate() got an unknown argument {unknown[0]!r}; sampling takes {', '.join(SAMPLING)}")
    given = {name: value for name, value in given.items() if value is not None}
    if do_sample is not None and not isinstance(do_sample, bool):
        raise TypeError(f"do_sample must be True, False or None, got {do_sample!r}")
    if do_sample is None:
        do_sample = bool(defaults.get("do_sample")) or any(name not in PENALTIES for name in given)
    values = {name: defaults[name] for name in SAMPLING if defaults.get(name) is not None} | given
    if not do_sample:
        values = {name: value for name, value in values.items() if name in PENALTIES} | {"temperature": 0.0}
    return SamplingParams(**values)


def random_seed() -> int:
    return int(torch.randint(0, 2**63 - 1, ()))
