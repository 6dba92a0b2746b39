"""What the sampler's speed shall be, beside its peers and beside reading the rows; `alea bench sample --check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HOLDS, MISSED, UNKNOWN = "holds", "missed", "not measured"


@dataclass(frozen=True)
class Goal:
    """A bound on the quotient of two contestants' medians in every case that matches; None matches all."""

    above: str
    below: str
    kinds: tuple[str, ...] = ("peaked",)
    filters: str | None = None
    vocabulary: int | None = None
    batch: int | None = 1
    at_least: float | None = None
    at_most: float | None = None

    def covers(self, record: dict[str, Any]) -> bool:
        return (
            record["kind"] in self.kinds
            and self.filters in (None, record["filters"])
            and self.vocabulary in (None, record["vocabulary"])
            and self.batch in (None, record["batch"])
            and {self.above, self.below} <= record["microseconds"].keys()
        )

    def quotient(self, record: dict[str, Any]) -> float:
        return record["microseconds"][self.above]["p50"] / record["microseconds"][self.below]["p50"]

    def worst(self, quotients: list[float]) -> float:
        return min(quotients) if self.at_least is not None else max(quotients)

    def holds(self, quotient: float) -> bool:
        return (self.at_least is None or quotient >= self.at_least) and (
            self.at_most is None or quotient <= self.at_most
        )

    def __str__(self) -> str:
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        vocabulary = "" if self.vocabulary is None else f", V = {self.vocabulary:,}"
        batch = "" if self.batch is None else f", batch {self.batch}"
        where = f"{' and '.join(self.kinds)}, {self.filters or 'every filter'}{vocabulary}{batch}"
        return f"{self.above} / {self.below} {bound} ({where})"


def on_peaked_rows(filters: str, llama_cpp: float, limit: float, transformers: dict[int, float]) -> list[Goal]:
    return [
        Goal("llama.cpp", "kernel", filters=filters, at_least=llama_cpp),
        Goal("kernel", "max", filters=filters, at_most=limit),
        *(
            Goal("transformers", "alea", filters=filters, vocabulary=vocabulary, at_least=times)
            for vocabulary, times in transformers.items()
        ),
    ]


GOALS = [
    *on_peaked_rows("k50+p.9", llama_cpp=4, limit=1.5, transformers={32000: 60, 128256: 150}),
    *on_peaked_rows("p.9", llama_cpp=12, limit=6, transformers={32000: 60, 128256: 100}),
    *on_peaked_rows("none", llama_cpp=12, limit=5, transformers={32000: 20, 128256: 30}),
    Goal("kernel", "max", kinds=("flat", "tied"), batch=None, at_most=15),
    Goal("kernel", "kernel, 2 threads", batch=16, at_least=1.7),
]


def verdicts(records: list[dict[str, Any]]) -> Iterator[str]:
    """A line a goal: whether it holds in every case that it covers."""
    for goal in GOALS:
        quotients = [goal.quotient(record) for record in records if goal.covers(record)]
        if not quotients:
            yield f"{UNKNOWN}: {goal}"
            continue
        worst = goal.worst(quotients)
        cases = f"the worst of {len(quotients)} cases" if len(quotients) > 1 else "one case"
        yield f"{HOLDS if goal.holds(worst) else MISSED}: {goal}; got {worst:.3g} in {cases}"
