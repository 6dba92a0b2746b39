"""The requests of a load, each a function of its number: those that are timed, and those with every setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from samplers.reference.filters import FILTERS, Filter

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
LENGTHS = (16, 32, 64, 128)  # new tokens
CLAUSES = (4, 8, 16, 32)  # of a prompt; one is about five tokens
SAMPLING = {"temperature": 0.8, "top_p": 0.95}
STORY = (
    *("once upon a time", "there was a king", "who had three daughters", "and the youngest of them"),
    *("went out into the forest", "where the old woman lived", "by the side of a well", "and when night came"),
    *("she heard a voice", "which said to her", "go home, my child", "and take the golden ring"),
    *("but the wolf answered", "I will not eat bread", "until the moon is up", "so he lay down to sleep"),
    *("the next morning", "the miller's son", "found a little bird", "with feathers of silver"),
    *("and he carried it", "over the mountains", "to the queen's castle", "and they were all glad"),
)


@dataclass(frozen=True)
class Request:
    path: str
    body: dict[str, Any]

    @property
    def is_streamed(self) -> bool:
        return bool(self.body.get("stream"))

    def streamed(self, stream: bool) -> Request:
        """The same request, whose answer comes in pieces or at once."""
        return Request(self.path, self.body | {"stream": stream})


def story(random: Random, clauses: int) -> str:
    """Two prompts hardly ever begin alike, so that no cache of prefixes helps."""
    return " ".join(random.choices(STORY, k=clauses))


def timed(number: int) -> Request:
    """A streamed completion of a mixed length, that no filter or penalty beside top-p slows down."""
    random = Random(number)
    body = dict(prompt=story(random, random.choice(CLAUSES)), max_tokens=random.choice(LENGTHS), seed=number)
    return Request(COMPLETIONS, {**body, **SAMPLING, "top_k": 0, "min_p": 0, "stream": True})


def varied(number: int) -> Request:
    """A request with a seed and settings of every kind, some of them off."""
    random = Random(number)
    body = {name: pick(random) for name, pick in FIELDS.items() if random.random() < 0.3}
    if "structured_outputs" in body:
        body.pop("ignore_eos", None)  # such a text ends where its grammar does
    body |= dict(seed=random.choice((0, 7, -1, number, 2**63 - 1)), max_tokens=random.randint(1, 48))
    if random.random() < 0.3:
        return Request(CHAT, body | chat_fields(random))
    return Request(COMPLETIONS, body | completion_fields(random))


def value_of(random: Random, accepted: Filter) -> float:
    """Of a filter's parameter, near the value that switches it off or far from it."""
    if accepted.is_integer:
        return random.choice((0, 1, 5, 50))
    return round(random.uniform(0.5, 0.99) if accepted.off == 1 else random.uniform(0, 0.05), 3)


NAMES: dict[str, Any] = {"type": "array", "items": {"enum": ["a king", "日本", 7]}, "minItems": 1, "maxItems": 3}
GRAMMARS: tuple[dict[str, Any], ...] = (
    {"json": {"type": "object", "properties": {"names": NAMES, "age": {"type": "integer"}}, "required": ["names"]}},
    {"regex": " [A-Z]?[a-z]{1,9}( was| is) [a-z ]*[.!]"},
    {"choice": [" a king", " a fox", " 日本"]},
    {"grammar": 'start: " (" start ")" | " x"'},
)
FIELDS: dict[str, Callable[[Random], Any]] = {  # of both kinds of requests
    **{each.name: partial(value_of, accepted=each) for each in FILTERS},
    "temperature": lambda random: random.choice((0, 0.3, 0.8, 1.0, 1.7)),
    "presence_penalty": lambda random: random.choice((-0.5, 0.7, 2)),
    "frequency_penalty": lambda random: random.choice((-0.3, 0.5, 1.5)),
    "repetition_penalty": lambda random: random.choice((1.1, 1.5)),
    "logit_bias": lambda random: {str(random.randrange(259, 4096)): random.choice((-100, -5, 3, 8)) for _ in range(3)},
    "n": lambda random: random.choice((2, 3)),
    "stop": lambda random: random.choice((".", [" the", ","], ["\n", " and he"])),
    "ignore_eos": lambda random: True,
    "stream": lambda random: True,
    "structured_outputs": lambda random: random.choice(GRAMMARS),
}


def chat_fields(random: Random) -> dict[str, Any]:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": story(random, random.randint(1, 20))}]}
    if random.random() < 0.4:
        fields |= {"logprobs": True, "top_logprobs": random.choice((0, 1, 5))}
    return fields


def completion_fields(random: Random) -> dict[str, Any]:
    prompts = [story(random, random.randint(1, 30)) for _ in range(random.choice((1, 1, 1, 2)))]
    fields: dict[str, Any] = {"prompt": prompts if len(prompts) > 1 else prompts[0]}
    if random.random() < 0.1:
        fields["prompt"] = [random.randrange(259, 4096) for _ in range(random.randint(1, 60))]
    if random.random() < 0.4:
        fields["logprobs"] = random.choice((0, 1, 5))
    if random.random() < 0.2:
        fields["echo"] = True
    return fields
