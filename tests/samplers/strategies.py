"""Rows and parameters for property-based tests: peaked, flat, tied and -inf-riddled, any mix of filters."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from samplers import SamplingParams
from samplers.identity import rows as identity_rows
from samplers.reference.filters import FILTERS, Filter

KINDS = ("peaked", "normal", "flat", "tied", "riddled", "one survivor")


def row(kind: str, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [V] with a finite logit."""
    x = identity_rows.row(kind, vocabulary, rng)
    if not np.isfinite(x).any():
        x[0] = 1.0
    return x


@st.composite
def rows(draw: st.DrawFn, max_vocabulary: int = 5000) -> np.ndarray:
    vocabulary = draw(st.one_of(st.integers(1, 9), st.integers(1, max_vocabulary)))
    return row(draw(st.sampled_from(KINDS)), vocabulary, np.random.default_rng(draw(st.integers(0, 2**32))))


def params(greedy: bool = True, extreme: bool = False, penalties: bool = False) -> st.SearchStrategy[SamplingParams]:
    """greedy: T = 0 too. extreme: T and fractions over their whole range. penalties: those on the history too."""
    temperature = st.floats(1e-6, 1e6) if extreme else st.floats(0.05, 10)
    least = 1e-12 if extreme else 1e-6
    more = dict(
        repetition_penalty=st.floats(0.1, 4),
        presence_penalty=st.floats(-2, 2),
        frequency_penalty=st.floats(-2, 2),
    )
    return st.builds(
        SamplingParams,
        temperature=st.one_of(st.just(0.0), temperature) if greedy else temperature,
        **{f.name: st.one_of(st.just(f.off), filter_values(f, least)) for f in FILTERS},
        min_tokens_to_keep=st.one_of(st.just(1), st.integers(1, 20)),
        **(more if penalties else {}),
    )


def filter_values(f: Filter, least: float) -> st.SearchStrategy[float]:
    if f.is_integer:
        return st.integers(1, 100)
    if f.off:
        return st.floats(least if f.accepts.open_low else 0, f.off)
    return st.floats(least, 0.9 if f.accepts.open_high else 1)
