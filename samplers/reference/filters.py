"""The table of filters, in the order in which they act (docs/definition.md, step 4).

Every list of filters is read from this table, or compared with it by a test: the parameters and their packed row, the
stages of a draw and of a trace, the conformance suite, the command line, the page of `alea trace`, the peers of the
benchmarks, the fast paths in C++ and Triton, and the documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from samplers.reference.cutoffs import epsilon, eta, min_p
from samplers.reference.fixed_point import fraction
from samplers.reference.kept import Kept
from samplers.reference.top_k import top_k
from samplers.reference.top_p import top_p
from samplers.reference.typical import typical


class Range:
    """An interval of accepted numbers; `text` is its name in error messages."""

    def __init__(self, text: str, low: float, high: float, open_low: bool = False, open_high: bool = False) -> None:
        self.text, self.low, self.high, self.open_low, self.open_high = text, low, high, open_low, open_high

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below  # False for NaN


@dataclass(frozen=True)
class Filter:
    """One filter of the table.

    name: its parameter, a field of SamplingParams with the name that transformers uses. concept: the name of its
    function on every backend and in the textbook. off: the value that switches it off; an int if the parameter is an
    int. accepts: the accepted values. mask: (tokens, value, min_tokens_to_keep) -> the tokens to keep, bool [K].
    slots: the numbers of a packed row that hold its value, {name: value -> 64 bits}. summary: one line for help texts.
    """

    name: str
    concept: str
    off: float
    accepts: Range
    mask: Callable[[Kept, Any, int], np.ndarray]
    slots: Mapping[str, Callable[[Any], int]]
    summary: str

    @property
    def is_integer(self) -> bool:
        return isinstance(self.off, int)

    def is_on(self, value: float) -> bool:
        return value != self.off


def bits_of_fraction(q: float) -> int:
    """ceil(q·2^64), at most 2^64 - 1, which changes no bound."""
    return min(fraction(q), 2**64 - 1)


def bits_of_count(k: int) -> int:
    """k, at most 2^31, which is more than any vocabulary."""
    return min(k, 2**31)


FILTERS = (
    Filter(
        "top_k",
        "top_k",
        off=0,
        accepts=Range(">= 0", 0, math.inf),
        mask=lambda c, k, n: top_k(c.x, k, n),
        slots={"top_k": bits_of_count},
        summary="keep the k most probable tokens",
    ),
    Filter(
        "top_p",
        "top_p",
        off=1.0,
        accepts=Range("in [0, 1]", 0, 1),
        mask=lambda c, p, n: top_p(c.x, c.w, p, n),
        slots={"top_p": bits_of_fraction},
        summary="keep the fewest tokens that hold this mass",
    ),
    Filter(
        "min_p",
        "min_p",
        off=0.0,
        accepts=Range("in [0, 1]", 0, 1),
        mask=lambda c, p, n: min_p(c.x, c.w, p, n),
        slots={"min_p": bits_of_fraction},
        summary="keep tokens at least this fraction as probable as the first",
    ),
    Filter(
        "typical_p",
        "typical",
        off=1.0,
        accepts=Range("in (0, 1]", 0, 1, open_low=True),
        mask=lambda c, p, n: typical(c.d, c.w, p, n),
        slots={"typical_p": bits_of_fraction},
        summary="keep the tokens nearest the entropy that hold this mass",
    ),
    Filter(
        "epsilon_cutoff",
        "epsilon",
        off=0.0,
        accepts=Range("in [0, 1)", 0, 1, open_high=True),
        mask=lambda c, cutoff, n: epsilon(c.x, c.w, cutoff, n),
        slots={"epsilon_cutoff": bits_of_fraction},
        summary="keep tokens at least this probable",
    ),
    Filter(
        "eta_cutoff",
        "eta",
        off=0.0,
        accepts=Range("in [0, 1)", 0, 1, open_high=True),
        mask=lambda c, cutoff, n: eta(c.x, c.d, c.w, cutoff, n),
        slots={"eta_cutoff": bits_of_fraction, "sqrt_eta_cutoff": lambda cutoff: bits_of_fraction(math.sqrt(cutoff))},
        summary="keep tokens at least this probable, or less where the entropy is high",
    ),
)


class Parameters(Protocol):
    """The parameters of a row (a SamplingParams); the attribute with a filter's name is its value."""

    @property
    def temperature(self) -> float: ...
    @property
    def min_tokens_to_keep(self) -> int: ...


def stages(p: Parameters) -> Iterator[tuple[Filter, float]]:
    """The filters that p switches on, in order, with their values; none at T = 0."""
    for f in FILTERS if p.temperature > 0 else ():
        value = getattr(p, f.name)
        if f.is_on(value):
            yield f, value
