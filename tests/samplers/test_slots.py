"""Parameters, seeds and streams of a server's slots, chosen by an index.

Oracle: the reference, given the parameters, the seed and the stream of each row one by one.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samplers import SamplingParams, filter_logits, pack, sample, trace
from tests.samplers import strategies

SLOTS = (
    SamplingParams(temperature=0.7, top_k=5),
    SamplingParams(top_p=0.8),
    SamplingParams(temperature=0.0),
    SamplingParams(),
    SamplingParams(repetition_penalty=1.5, logit_bias={2: 3.0}, min_p=0.1),
)
SEEDS, STREAMS = [5, 2**63, 7, -1, 0], [10, 11, 12, 13, 2**40]


def integers(out):
    return [np.asarray(column).tolist() for column in out[:4]]


@pytest.mark.parametrize("index", [[3], [4, 0, 4, 1, 2, 3], [2, 1, 0, 3, 4]])
def test_a_slot_is_its_parameters_seed_and_stream(index, backend):
    x = torch.randn(len(index), 40, generator=torch.Generator().manual_seed(1))
    position, history = list(range(len(index))), [[2, 3]] * len(index)
    given_ = dict(position=position, history=history)
    one_by_one = [SLOTS[i] for i in index]
    seed, stream = [SEEDS[i] for i in index], [STREAMS[i] for i in index]
    expected = integers(sample(x, one_by_one, seed=seed, stream=stream, backend="reference", **given_))
    chosen = pack(SLOTS).rows(index)
    assert integers(sample(x, chosen, seed=SEEDS, stream=STREAMS, backend=backend, **given_)) == expected
    if len(index) != len(SLOTS):  # else they are the slots'
        assert integers(sample(x, chosen, seed=seed, stream=stream, backend=backend, **given_)) == expected
    kept = filter_logits(x, one_by_one, history=history, backend="reference")
    assert torch.equal(filter_logits(x, chosen, history=history, backend=backend), kept)


@pytest.mark.parametrize("form", [np.array, torch.tensor, lambda i: torch.tensor(i, dtype=torch.int32)])
def test_an_index_of_any_form(form):
    index, x = [4, 0, 4, 1, 2, 3, 3], torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    expected = integers(sample(x, pack(SLOTS).rows(index), seed=SEEDS, stream=STREAMS))
    assert integers(sample(x, pack(SLOTS).rows(form(index)), seed=SEEDS, stream=STREAMS)) == expected


def test_as_many_rows_as_slots_in_another_order(backend):
    """Nothing else is given, so on the CPU the call in one step sees it first."""
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    chosen = pack([SamplingParams(top_k=1), SamplingParams()]).rows([1, 0])
    assert sample(x, chosen, seed=3, backend=backend).kept.tolist() == [50, 1]


@given(strategies.rows(), st.data())
@settings(max_examples=20, deadline=None)
def test_any_slots(row, data):
    slots = data.draw(st.lists(strategies.params(), min_size=1, max_size=4))
    index = data.draw(st.lists(st.integers(0, len(slots) - 1), min_size=1, max_size=4))
    x = np.tile(row, (len(index), 1))
    ours = sample(x, pack(slots).rows(index), seed=3, on_invalid="mark")
    theirs = sample(x, [slots[i] for i in index], seed=3, on_invalid="mark")
    assert integers(ours) == integers(theirs)


def test_a_trace_follows_the_slots():
    x = np.float32([[1, 2, 3], [3, 2, 1]])
    traces = trace(x, pack(SLOTS).rows([2, 0]), seed=SEEDS)
    assert [t.params for t in traces] == [SLOTS[2], SLOTS[0]] and [t.seed for t in traces] == [7, 5]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([0, 5], ValueError, r"index must be integers \(B,\) in 0 .. 4, got 5"),
        ([-1], ValueError, "got -1"),
        ([[0]], TypeError, r"got int64 of shape \(1, 1\)"),
        ([0.5], TypeError, "got float64"),
        ([True], TypeError, "got bool"),
    ],
)
def test_wrong_index(index, error, message):
    with pytest.raises(error, match=message):
        pack(SLOTS).rows(index)


def test_an_index_of_another_size():
    with pytest.raises(ValueError, match="params must have an index for each of the 3 rows, got 2"):
        sample(np.zeros((3, 4), np.float32), pack(SLOTS).rows([0, 1]), seed=0)
