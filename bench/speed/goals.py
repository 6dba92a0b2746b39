"""Goals of speed: bounds on medians, their quotients and differences; `--check` of the commands that have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench import runner
from bench.peers import TWO_THREADS
from bench.records import Record

LONG = 128256  # a shorter row is read in less time than a call takes
HOLDS, MISSED, UNKNOWN = "holds", "missed", "not measured"


@dataclass(frozen=True)
class Goal:
    """A bound on `above` / `below` in every record that has the values of `where`; a tuple lists several.

    figure: of the record, the times or speeds that it bounds. by: "/", "-" for the microseconds of the difference, or
    "" for those of `above` alone. longer_than: the microseconds of `above` in the cases that it covers.
    Two threads are judged by the rounds in which two cores were free.
    """

    above: str
    below: str
    sign: str  # >= or <=
    bound: float
    where: Mapping[str, Any]
    figure: str = "microseconds"
    by: str = "/"
    longer_than: float = 0

    def covers(self, record: Record) -> bool:
        matches = (record[name] in several(values) for name, values in self.where.items())
        times = self.times(record)
        measured = {self.above, self.below} - {""} <= times.keys()
        return all(matches) and measured and times[self.above]["p50"] > self.longer_than

    def times(self, record: Record) -> Mapping[str, Any]:
        if self.below != TWO_THREADS:
            return record.get(self.figure) or {}
        return record["two_threads"]["microseconds"] if record["two_threads"] else {}

    def value(self, record: Record) -> float:
        times = {name: q["p50"] for name, q in self.times(record).items()}
        above, below = times[self.above], times.get(self.below, 0.0)
        return above / below if self.by == "/" else above - below

    def worst(self, values: list[float]) -> float:
        return min(values) if self.sign == ">=" else max(values)

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.sign == ">=" else value <= self.bound

    def __str__(self) -> str:
        where = [f"{name} {' and '.join(map(str, several(values)))}" for name, values in self.where.items()]
        where += [f"above {self.longer_than:g} µs"] if self.longer_than else []
        times = "" if self.figure == "microseconds" else f"{self.figure}: "
        bounded = f"{self.above} {self.by} {self.below}".strip()
        return f"{times}{bounded} {self.sign} {self.bound:g} ({', '.join(where) or 'all cases'})"


def several(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def on_peaked_rows(filters: str, llama_cpp: float, limit: float, transformers: dict[int, float]) -> list[Goal]:
    where = dict(kind="peaked", filters=filters, batch=1)
    faster = [Goal("transformers", "alea", ">=", n, where | {"vocabulary": v}) for v, n in transformers.items()]
    reading = Goal("kernel", "max", "<=", limit, where | {"vocabulary": LONG})
    return [Goal("llama.cpp", "kernel", ">=", llama_cpp, where), reading, *faster]


def of_the_public_call() -> list[Goal]:
    """Beyond the kernel: on its own, between the peers, and with cold caches."""
    where = dict(kind="peaked", filters="k50+p.9", batch=1)
    long, short = where | {"vocabulary": LONG}, where | {"vocabulary": 32000}
    return [
        Goal("alea", "kernel", "<=", 2.5, long, "alone_microseconds", by="-"),
        Goal("alea", "kernel", "<=", 4, long, by="-"),
        Goal("alea", "max", "<=", 3, short, "cold_microseconds"),
    ]


def of_generate(shape: str, weights: str, faster: dict[int, float], prefill: float) -> list[Goal]:
    """Against llama.cpp by batch, and of reading a prompt against llama.cpp and torch."""
    where = dict(shape=shape, weights=weights, threads=1)
    return [
        *(Goal("alea", "llama.cpp", ">=", n, where | {"batch": b}, "tokens_a_second") for b, n in faster.items()),
        *(Goal(peer, "alea", ">=", prefill, where, "prefill_milliseconds") for peer in ("llama.cpp", "torch")),
    ]


def of_serving() -> list[Goal]:
    """Against `generate` in full batches, and against the peers under every load."""
    loads, peers = dict(clients=(1, 8, 32)), ("llama.cpp", "vllm")
    return [
        Goal("alea", "generate", ">=", 0.9, dict(clients=32), "tokens_a_second"),
        Goal("alea", "generate", "<=", 1, dict(clients=1), "gap_milliseconds", by="-"),
        *(Goal("alea", peer, ">=", 1, loads, "tokens_a_second") for peer in peers),
        *(Goal(peer, "alea", ">=", 1, loads, "first_token_milliseconds") for peer in peers),
    ]


GOALS = {
    "sample": [
        *on_peaked_rows("k50+p.9", llama_cpp=4, limit=0.5, transformers={32000: 60, 128256: 150}),
        *on_peaked_rows("p.9", llama_cpp=12, limit=2.5, transformers={32000: 60, 128256: 100}),
        *on_peaked_rows("none", llama_cpp=12, limit=2.2, transformers={32000: 20, 128256: 30}),
        *of_the_public_call(),
        Goal("kernel", "max", "<=", 8, dict(kind=("flat", "tied"), vocabulary=LONG, batch=1)),
        Goal("kernel", "max", "<=", 6, dict(kind="normal", vocabulary=LONG, batch=1)),
        Goal("kernel", TWO_THREADS, ">=", 0.95, dict(batch=16)),
        Goal("kernel", TWO_THREADS, ">=", 1.6, dict(batch=16), longer_than=200),
    ],
    "hf": [
        Goal("stock", "attached", ">=", 50, dict(chain="T+k+p")),
        Goal("attached", "", "<=", 40, dict(chain="T+k+p", vocabulary=32000, batch=1), "microseconds_inside", by=""),
    ],
    "decode": [
        *of_generate("storyteller", "float32", {1: 1.5, 8: 2, 32: 2}, prefill=2),
        *of_generate("storyteller", "bfloat16", {1: 1.5, 8: 2, 32: 2}, prefill=1.2),
        *of_generate("110M", "float32", {1: 1.2, 8: 1.5, 32: 1.5}, prefill=1.4),
        *of_generate("110M", "bfloat16", {1: 1.3, 8: 1.5, 32: 1.1}, prefill=0.8),
        *of_generate("1B-4-layers", "float32", {1: 0.95, 8: 1.5, 32: 1.5}, prefill=1.4),
        *of_generate("1B-4-layers", "bfloat16", {1: 0.95, 8: 1.2, 32: 0.85}, prefill=0.55),
    ],
    "serve": of_serving(),
    "vllm": [
        Goal("stock", "alea", ">=", 5, dict(vocabulary=32000, batch=16, filters="k50+p.9"), "milliseconds"),
        Goal("stock", "alea", ">=", 1, {}, "milliseconds"),
    ],
    "grammar": [Goal("constrained", "plain", "<=", 1.05, dict(batch=8), "step_milliseconds")],
}


def check(benchmark: str, records: list[Record]) -> int:
    """Prints a line a goal; returns the exit status, 1 if one is missed."""
    found = list(verdicts(GOALS[benchmark], records))
    for verdict in found:
        runner.say(verdict)
    return int(any(verdict.startswith(MISSED) for verdict in found))


def verdicts(goals: list[Goal], records: list[Record]) -> Iterator[str]:
    """A line a goal: whether it holds in every case that it covers."""
    for goal in goals:
        values = [goal.value(record) for record in records if goal.covers(record)]
        if not values:
            yield f"{UNKNOWN}: {goal}"
            continue
        worst = goal.worst(values)
        cases = f"the worst of {len(values)} cases" if len(values) > 1 else "one case"
        yield f"{HOLDS if goal.holds(worst) else MISSED}: {goal}; got {worst:.3g} in {cases}"
