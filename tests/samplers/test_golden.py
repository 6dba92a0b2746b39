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
