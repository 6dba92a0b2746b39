"""`alea bench serve --grammar`: what a grammar adds to a step of the engine.

Random weights and a vocabulary made here, so that the figure is of the masks and of nothing that a model has learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

import torch

from bench import runner
from bench.loading.checkpoints import SHAPES
from bench.records import Record, quantiles, three_digits
from bench.speed import goals
from bench.speed.requests import SAMPLING
from bench.speed.timing import in_turn
from model import Llama
from model.decoding.grammar import grammar_for
from model.serve.engine.engine import Engine
from model.serve.engine.request import Choice, Request, Settings
from model.tokenizer import SPACE, Tokenizer
from samplers import SamplingParams
from samplers.grammar import CompiledGrammar, Grammar, background

VOCABULARY, END = 32_000, 2
BATCH, STEPS = 8, 200
SHAPE_NAMES = ("storyteller", "110M")
SCHEMA = {  # of a text that does not end within a measurement
    "type": "array",
    "minItems": 100_000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    },
}
CAPTION = (
    "Milliseconds to give each of 8 texts a token, without and with a grammar, in turn: an array of objects with a "
    "string, an integer and a list; V = 32,000, random weights, one thread for the model and one for the masks. Masks: "
    "those of all 8 texts, found in the thread of the model instead"
)


class MadeTokenizer(Tokenizer):
    """Bytes, and words of random syllables with a space before most."""

    def __init__(self, size: int) -> None:
        random, words = Random(0), dict[str, None]()
        syllables = ["".join(random.choices("bcdfghklmnprstvw", k=1) + random.choices("aeiou", k=1)) for _ in range(80)]
        while len(words) < size - 259:
            space = SPACE if random.random() < 0.6 else ""
            words[space + "".join(random.choices(syllables, k=random.randint(1, 4)))] = None
        self.names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
        self.vocab_size, self.bos_id, self.eos_id = size, 1, END
        texts = [word.replace(SPACE, " ").encode() for word in words]
        self._bytes = [b"", b"", b"", *(bytes([i]) for i in range(256)), *texts]

    def has_text(self, token: int) -> bool:
        return bool(self._bytes[token])

    def pieces(self, ids: Any) -> list[str]:
        return [self.names[i] for i in ids]


def measured(arguments: argparse.Namespace, shape: str) -> Record:
    """Steps of two engines on one model, in turn, after a check that their texts do not depend on the batch."""
    llama, tokenizer = random_llama(shape), MadeTokenizer(VOCABULARY)
    grammar = grammar_for(Grammar.json_schema(SCHEMA), tokenizer, VOCABULARY, [END])
    verify(llama, tokenizer, grammar)
    times: dict[str, list[float]] = {"plain": [], "constrained": []}
    for _ in range(arguments.rounds):
        engines = {name: filled(llama, tokenizer, grammar if name == "constrained" else None) for name in times}
        for number in range(arguments.steps):
            for name in in_turn(list(times), number):
                times[name].append(of_step(engines[name]))
    return {
        **dict(shape=shape, vocabulary=VOCABULARY, batch=BATCH, rounds=arguments.rounds, steps=arguments.steps),
        "sampling": SAMPLING,
        "step_milliseconds": {name: figures(found) for name, found in times.items()},
        "masks_milliseconds": {"masks": figures(of_masks(grammar, arguments.steps))},
    }


def random_llama(shape: str) -> Llama:
    """Packed, as a checkpoint that is loaded for the CPU."""
    torch.manual_seed(0)
    llama = Llama(replace(SHAPES[shape], vocab_size=VOCABULARY))
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.normal_(std=0.02 if parameter.ndim > 1 else 0.0).add_(parameter.ndim == 1)
    return llama.pack()


def requests(tokenizer: Tokenizer, grammar: CompiledGrammar | None, count: int, steps: int) -> list[Request]:
    given: dict[str, Any] = SAMPLING
    params = SamplingParams(**given)
    settings = [Settings(params, seed, steps, VOCABULARY, frozenset({END}), grammar=grammar) for seed in range(count)]
    return [Request([Choice(0, [1, 300 + one.seed], one, 0, tokenizer)]) for one in settings]


def filled(llama: Llama, tokenizer: Tokenizer, grammar: CompiledGrammar | None) -> Engine:
    """An engine in which every text has begun."""
    engine = Engine(llama, BATCH)
    for request in requests(tokenizer, grammar, BATCH, llama.config.max_position_embeddings - 2):
        engine.submit(request)
    engine.step()
    return engine


def verify(llama: Llama, tokenizer: Tokenizer, grammar: CompiledGrammar) -> None:
    """Raises: RuntimeError if a text depends on its neighbours, or has a token that its grammar excludes."""
    together = answers(Engine(llama, BATCH), requests(tokenizer, grammar, BATCH, 40))
    for request, ids in zip(requests(tokenizer, grammar, BATCH, 40), together, strict=True):
        if answers(Engine(llama, 1), [request]) != [ids]:
            raise RuntimeError(f"seed {request.choices[0].settings.seed}: a text under a grammar depends on the batch")
        matcher = grammar.matcher()
        for token in ids:
            matcher.allowed()
            matcher.put(token)


def answers(engine: Engine, asked: Iterable[Request]) -> list[list[int]]:
    asked = list(asked)
    for request in asked:
        engine.submit(request)
    while engine.is_busy:
        engine.step()
    return [request.choices[0].generation.ids for request in asked]


def of_masks(grammar: CompiledGrammar, steps: int) -> list[float]:
    """Milliseconds to find the next masks of all texts, whose tokens are drawn at random from what is allowed."""
    random, matchers, times = Random(0), [grammar.matcher() for _ in range(BATCH)], list[float]()
    for _ in range(steps):
        for matcher in matchers:
            mask = matcher.allowed()
            words = [i for i, word in enumerate(mask.tolist()) if word]
            word = random.choice(words)
            bits = [bit for bit in range(32) if int(mask[word]) >> bit & 1]
            matcher.put(32 * word + random.choice(bits))
        times.append(timed(partial(background.run, matchers)))
    return times


def of_step(engine: Engine) -> float:
    """Milliseconds to give each text a token; a step in which grammars force some gives more, and counts as less."""
    before = tokens_of(engine)
    milliseconds = timed(engine.step)
    return milliseconds * BATCH / (tokens_of(engine) - before)


def tokens_of(engine: Engine) -> int:
    return sum(len(choice.generation.ids) for choice in engine.running)


def timed(work: Any) -> float:
    """Milliseconds."""
    began = perf_counter()
    work()
    return 1e3 * (perf_counter() - began)


def figures(milliseconds: list[float]) -> dict[str, float]:
    """The mean tells of rare long steps, which a median hides."""
    ordered = sorted(milliseconds)
    return {**quantiles(milliseconds), "mean": sum(ordered) / len(ordered), "p99": ordered[int(0.99 * len(ordered))]}


def table(records: list[Record]) -> runner.Rows:
    lines = []
    for record in records:
        found = {**record["step_milliseconds"], **record["masks_milliseconds"]}
        for name, times in found.items():
            lines.append([record["shape"], name, *(three_digits(times[key]) for key in ("p50", "mean", "p99"))])
    return ["shape", "step", "median", "mean", "p99"], lines


def run(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    arguments.steps, shapes = (10, SHAPE_NAMES[:1]) if arguments.quick else (STEPS, SHAPE_NAMES)
    records = runner.collect("grammar", shapes, partial(measured, arguments), arguments.save)
    if records:
        runner.print_table("grammar", table(records), f"{CAPTION}.", left=2)
    return goals.check("grammar", records) if arguments.check else 0
