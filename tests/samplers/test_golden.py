"""Oracle: golden rows worked out by independent big-integer arithmetic. Integers are compared exactly."""

import numpy as np
import pytest

from samplers import InvalidLogits, filter_logits, sample
from samplers.reference.penalties import penalise
from samplers.reference.philox import random_bits
from tests.samplers.golden import GoldenRow, digest, read

ROWS, PENALTIES = read("rows"), read("penalties")


def test_all_golden_rows_are_there():
    assert (len(ROWS), len(PENALTIES)) == (400, 100)


@pytest.mark.parametrize("row", ROWS + PENALTIES)
def test_draw(row: GoldenRow, backend: str):
    out = sample(row.logits, row.params, **row.seeds, **row.changes, backend=backend, on_invalid="mark")
    drawn = tuple(int(column[0]) for column in (out.tokens, out.weight, out.total, out.kept))
    assert drawn == row.drawn


@pytest.mark.parametrize("row", ROWS + PENALTIES)
def test_kept_set(row: GoldenRow, backend: str):
    if row.kept_digest is None:
        with pytest.raises(InvalidLogits):
            filter_logits(row.logits, row.params, **row.changes, backend=backend)
        return
    filtered = filter_logits(row.logits, row.params, **row.changes, backend=backend)
    assert digest(filtered[0] > -np.inf) == row.kept_digest


def test_penalties_of_different_rows_in_one_batch(backend: str):
    """Golden rows of one vocabulary side by side, each with parameters, history, mask and seed of its own."""
    by_size: dict[int, list[GoldenRow]] = {}
    for row in PENALTIES:
        by_size.setdefault(len(row.logits), []).append(row)
    batches = [rows for rows in by_size.values() if len(rows) > 1]
    assert sum(map(len, batches)) > 20
    for rows in batches:
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


@pytest.mark.parametrize("row", ROWS)
def test_random_bits(row: GoldenRow):
    key = [np.array([row.seeds[name] % 2**64], np.uint64) for name in ("seed", "position", "stream")]
    assert int(random_bits(*key)[0]) == row.bits


@pytest.mark.parametrize("row", PENALTIES)
def test_penalised_logits(row: GoldenRow):
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
