"""Oracle: golden rows worked out by independent big-integer arithmetic. Integers are compared exactly."""

from typing import Any

import numpy as np
import pytest

from samplers import InvalidLogits, filter_logits, sample
from samplers.identity import draws, weights
from samplers.reference import fixed_point
from samplers.reference.penalties import penalise
from samplers.reference.philox import random_bits
from samplers.reference.sampler import keep, sample_row
from tests.conftest import require
from tests.samplers.golden import GoldenRow, digest, read, read_weights

ROWS, PENALTIES, CLAMPED = read("rows"), read("penalties"), read("clamped")
ALL = ROWS + PENALTIES + CLAMPED
INVALID = [row for row in ALL if row.drawn[0] < 0]


def by_backend(first: int, step: int) -> list[Any]:
    """All rows; on Triton, whose interpreter takes a tenth of a second a row, every hundredth from `first` on.

    step: of the rows that Triton's exhaustive test takes.
    """
    some, many = (
        ("triton", INVALID + ALL[first::100]),
        pytest.param("triton", ALL[::step], marks=pytest.mark.exhaustive),
    )
    return [("reference", ALL), ("native", ALL), some, many]


EVERY_SIZE = {len(row.logits) for row in PENALTIES}
D, W = read_weights()


def test_all_golden_rows_are_there():
    assert (len(ROWS), len(PENALTIES), len(CLAMPED), len(W)) == (400, 100, 60, 1525)


@pytest.mark.parametrize(("backend", "rows"), by_backend(first=0, step=1))
def test_draw(backend: str, rows: list[GoldenRow]):
    require(backend)
    assert [row for row in rows if drawn(row, backend) != row.drawn] == []


def drawn(row: GoldenRow, backend: str) -> tuple[int, ...]:
    out = sample(row.logits, row.params, **row.seeds, **row.changes, backend=backend, on_invalid="mark")
    return tuple(int(column[0]) for column in (out.tokens, out.weight, out.total, out.kept))


@pytest.mark.parametrize(("backend", "rows"), by_backend(first=50, step=4))
def test_kept_set(backend: str, rows: list[GoldenRow]):
    require(backend)
    assert [row for row in rows if kept_digest(row, backend) != row.kept_digest] == []


def kept_digest(row: GoldenRow, backend: str) -> str | None:
    """None for an invalid row."""
    try:
        filtered = filter_logits(row.logits, row.params, **row.changes, backend=backend)
    except InvalidLogits:
        return None
    return digest(filtered[0] > -np.inf)


def test_weights(backend: str):
    for way in draws.ways(backend):
        w = fixed_point.weights(D) if backend == "reference" else weights.weigh(backend, D)
        np.testing.assert_array_equal(w, W, err_msg=way)


def test_unfused_weights_would_be_seen(monkeypatch):
    """The negative control: 90 pairs tell version 1, which rounded each product, from the definition."""
    monkeypatch.setattr(fixed_point, "fma", lambda a, b, c: a * b + c)  # float32
    assert (fixed_point.weights(D) != W).sum() == 90


def test_a_missing_clamp_would_be_seen(monkeypatch):
    """The negative control: without the -60 of step 3, 40 rows are drawn or cut otherwise."""
    monkeypatch.setattr(fixed_point, "LOWEST", np.float32(-np.inf))
    assert sum(differs(row) for row in CLAMPED) == 40


def differs(row: GoldenRow) -> bool:
    try:
        drawn, kept = sample_row(row.logits, row.params, row.bits), keep(row.logits, row.params)
    except (ValueError, OverflowError):
        return True
    mask = np.isin(np.arange(len(row.logits)), kept.ids)
    return tuple(drawn)[:4] != row.drawn or digest(mask) != row.kept_digest


@pytest.mark.parametrize(
    ("backend", "vocabularies"),
    [
        ("reference", EVERY_SIZE),
        ("native", EVERY_SIZE),
        ("triton", {7}),
        pytest.param("triton", EVERY_SIZE, marks=pytest.mark.exhaustive),
    ],
)
def test_penalties_of_different_rows_in_one_batch(backend: str, vocabularies: set[int]):
    """Golden rows of one vocabulary side by side, each with parameters, history, mask and seed of its own."""
    require(backend)
    for vocabulary in vocabularies:
        rows = [row for row in PENALTIES if len(row.logits) == vocabulary]
        assert len(rows) > 5
        everything = np.ones(len(rows[0].logits), bool)
        out = sample(
            np.stack([row.logits for row in rows]),
            [row.params for row in rows],
            history=[row.changes["history"][0] for row in rows],
            history_start=[row.changes["history_start"] for row in rows],
            allowed=np.stack([row.changes.get("allowed", everything) for row in rows]),
            backend=backend,
            on_invalid="mark",
            **{name: [row.seeds[name] for row in rows] for name in ("seed", "position", "stream")},
        )
        drawn = zip(*(column.tolist() for column in (out.tokens, out.weight, out.total, out.kept)), strict=True)
        assert list(drawn) == [row.drawn for row in rows]


def test_random_bits():
    rows = ROWS + CLAMPED
    keys = [[row.seeds[name] % 2**64 for row in rows] for name in ("seed", "position", "stream")]
    bits = random_bits(*(np.array(key, np.uint64) for key in keys))
    assert bits.tolist() == [row.bits for row in rows]


def test_penalised_logits():
    for row in PENALTIES:
        p, history = row.params, np.array(row.changes["history"][0], np.int64)
        x = penalise(
            row.logits,
            p.logit_bias,
            row.changes.get("allowed"),
            history,
            row.changes["history_start"],
            p.repetition_penalty,
            p.presence_penalty,
            p.frequency_penalty,
        )
        np.testing.assert_array_equal(x, row.penalised)
