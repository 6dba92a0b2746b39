"""The hand-made rows that `samplers.conformance` draws from, each with its exact final distribution in float64.

No kept set depends on a tie, or on a sum that equals its limit: libraries settle these cases by convention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from samplers import textbook
from samplers.params import SamplingParams
from samplers.reference.filters import stages

PLAIN = SamplingParams()
LEVELS = {1e-4: 200, 1e-5: 2_000, 1e-6: 10_000, 1e-8: 40_000}  # probability: the number of such tokens in `tail_case`


@dataclass(frozen=True, eq=False)
class Case:
    """One row: logits float32 [V] under params with T > 0, and its exact distribution."""

    name: str
    logits: np.ndarray
    params: SamplingParams = PLAIN

    @cached_property
    def probabilities(self) -> np.ndarray:
        return final_distribution(self.logits, self.params)


def final_distribution(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """softmax(logits / T), filtered in the order of SamplingParams by the textbook's formulas: float64 [V].

    logits: [V], -inf allowed. params: T > 0; penalties and biases are ignored.

    >>> logits = np.log(textbook.example())
    >>> final_distribution(logits, SamplingParams(top_p=0.8)).round(3)[:7].tolist()
    [0.294, 0.235, 0.176, 0.118, 0.094, 0.082, 0.0]
    """
    n = params.min_tokens_to_keep
    p = textbook.softmax(logits, params.temperature)
    for f, value in stages(params):
        p = getattr(textbook, f.concept)(p, value, n)
    return p


def zipf(vocabulary: int) -> np.ndarray:
    """Logits of p ∝ 1 / rank (Zipf's law), with the ranks spread over the ids: float32 [V]."""
    rank = np.arange(vocabulary) * 7919 % vocabulary  # 7919 is a prime that divides no vocabulary here
    return -np.log1p(rank).astype(np.float32)


def log(p: Any) -> np.ndarray:
    """Probabilities as logits: float32 [V], -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p, np.float64)).astype(np.float32)


def named(settings: Mapping[str, Any]) -> str:
    """
    >>> named({"temperature": 0.7, "top_k": 5})
    'temperature=0.7, top_k=5'
    """
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "softmax"


@lru_cache
def distributions() -> list[Case]:
    """For χ² and G: short, long and flat rows, high and low temperatures, and each filter."""
    of_100: list[dict[str, Any]] = [
        {},
        {"temperature": 0.7},
        {"temperature": 1.7},
        {"top_k": 20},
        {"top_p": 0.9},
        {"min_p": 0.03},
        {"typical_p": 0.8},
        {"epsilon_cutoff": 0.004},
        {"eta_cutoff": 0.01},
        {"temperature": 1.3, "top_k": 60, "top_p": 0.95, "min_p": 0.02},
    ]
    cases = [Case(f"{named(settings)} of 100", zipf(100), SamplingParams(**settings)) for settings in of_100]
    cases += [Case(f"softmax of {v:,}", zipf(v)) for v in (2, 1000)]
    return cases + [Case(f"flat of {v:,}", np.zeros(v, np.float32)) for v in (1025, 65_539)]


@lru_cache
def tail_case() -> Case:
    """Tokens of each level and 16 common ones, spread over the ids."""
    p = np.concatenate([np.full(size, level) for level, size in LEVELS.items()])
    p = np.append(p, np.full(16, (1 - p.sum()) / 16))
    return Case("tail", log(p[np.random.default_rng(0).permutation(len(p))]))


@lru_cache
def zero_cases() -> list[Case]:
    """Tokens that can't be drawn: first, last and next to heavy ones."""
    no, low, high = -math.inf, 0.0, 5.0
    rows = {
        "-inf first": [no, no, no, high, low, low, high],
        "-inf last": [high, low, low, high, no, no, no],
        "-inf beside heavy tokens": [low, no, high, no, high, no, low],
        "-inf around one token": [no] * 200 + [low] + [no] * 200,
        "every other -inf": [no if i % 2 == 0 else x for i, x in enumerate(zipf(1001))],
        "underflow": [-200, low, high, -200, -1000, high, low, -150],
        "underflow far from 0": [9800, 10_000, 9700, 10_000, 9000],
    }
    cases = [Case(name, np.array(row, np.float32)) for name, row in rows.items()]
    few, ordered = np.array([no, high, no, low, low, no], np.float32), log(np.sort(textbook.example()))
    return [
        *cases,
        Case("underflow, temperature=0.01", np.array([-1, 2, 1, 2, 0], np.float32), SamplingParams(temperature=0.01)),
        Case("top_k=5 of 3 above -inf", few, SamplingParams(top_k=5)),
        Case("top_p=0.999 of 3 above -inf", few, SamplingParams(top_p=0.999)),
        Case("top_k=4, cut first", ordered, SamplingParams(top_k=4)),
        Case("min_p=0.3, cut last", ordered[::-1].copy(), SamplingParams(min_p=0.3)),
    ]


@lru_cache
def mask_cases() -> list[Case]:
    """The textbook's worked example under each filter, with its ids in order and spread; and two long rows."""
    settings: list[dict[str, Any]] = [
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 9},
        {"top_p": 0.2},
        {"top_p": 0.8},
        {"top_p": 0.99},
        {"temperature": 0.5, "top_p": 0.8},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 10.0, "top_p": 0.8},
        {"min_p": 0.3},
        {"typical_p": 0.3},
        {"typical_p": 0.75},
        {"epsilon_cutoff": 0.05},
        {"eta_cutoff": 0.2},
        {"top_p": 0.3, "min_tokens_to_keep": 4},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.4},
    ]
    example = log(textbook.example())
    spread = example[np.arange(10) * 7 % 10]
    layouts = (("", example), (", spread", spread))
    cases = [Case(named(s) + name, logits, SamplingParams(**s)) for s in settings for name, logits in layouts]
    head, rest = np.linspace(0.011, 0.009, 50), np.full(4950, 0.5 / 4950)
    long = log(np.concatenate([rest[:2000], head, rest[2000:]]))
    return [*cases, *(Case(named(s) + " of 5,000", long, SamplingParams(**s)) for s in ({"top_k": 45}, {"min_p": 0.1}))]
