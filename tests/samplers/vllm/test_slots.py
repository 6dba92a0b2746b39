"""Oracle: a batch as a list of requests, changed in the way that vLLM documents for its BatchUpdate."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from samplers.vllm.slots import FIRST_STREAM, STREAMS_OF_REPLICA, Slots
from tests.conftest import examples
from tests.samplers.vllm.conftest import Direction, asked, update

CPU = torch.device("cpu")


@examples(100)
@given(st.data())
def test_rows_added_removed_moved_swapped_and_preempted(data):
    slots, batch, waiting, numbers = Slots(CPU, seed=5), [], [], iter(range(1000))
    for _ in range(data.draw(st.integers(1, 8))):
        removed = sorted(data.draw(st.sets(st.integers(0, 5))) & set(range(len(batch))), reverse=True)
        waiting += [batch[row] for row in removed]  # finished, or preempted and added again later
        holes, added, moved = list(reversed(removed)), [], []
        for _ in range(data.draw(st.integers(0, 3))):
            resumed = bool(waiting) and data.draw(st.booleans())
            request = waiting.pop() if resumed else (next(numbers), [0] * data.draw(st.integers(0, 4)))
            row = holes.pop(0) if holes else len(batch)
            batch[row:] = [request, *batch[row + 1 :]]
            added.append((row, asked(seed=request[0], extra_args={"stream": -request[0]}), request[1]))
        while holes:  # the last rows fill the holes
            hole, last = holes.pop(0), len(batch) - 1
            if last in holes or last == hole:
                holes = [row for row in [hole, *holes] if row != last]
            else:
                batch[hole] = batch[last]
                moved.append((last, hole, Direction.UNIDIRECTIONAL))
            batch.pop()
        if len(batch) > 1 and data.draw(st.booleans()):
            a, b = data.draw(st.permutations(range(len(batch))))[:2]
            batch[a], batch[b] = batch[b], batch[a]
            moved.append((a, b, Direction.SWAP))
        unfilled = [row for row in removed if row not in [row for row, _, _ in added]]
        slots.update(update(unfilled, added, moved))
        for _, output in batch:
            output.append(1)
        columns = slots.columns(len(batch))
        assert sorted(slots.slots) == list(range(len(batch)))
        assert columns.seed.tolist() == [number for number, _ in batch]
        assert columns.stream.tolist() == [-number for number, _ in batch]
        assert slots.lengths(len(batch)).tolist() == [len(output) for _, output in batch]


def test_requests_without_a_seed_have_streams_of_their_own():
    slots = Slots(CPU, seed=5, replica=2)
    slots.update(update(added=[(0, asked(), []), (1, asked(extra_args={"stream": 8}), []), (2, asked(), [])]))
    columns = slots.columns(3)
    first = FIRST_STREAM + 2 * STREAMS_OF_REPLICA
    assert columns.seed.tolist() == [5, 5, 5] and columns.stream.tolist() == [first, 8, first + 1]


def test_a_seed_without_a_stream_means_stream_0():
    slots = Slots(CPU, seed=5)
    slots.put(0, asked(seed=9))
    assert slots.columns(1).seed.tolist() == [9] and slots.columns(1).stream.tolist() == [0]


def test_columns_are_made_again_only_after_a_change():
    slots = Slots(CPU, seed=5)
    slots.put(0, asked())
    columns = slots.columns(2)
    assert slots.columns(2) is columns
    slots.put(1, asked(top_p=0.9, min_p=0.1))
    assert slots.columns(2).needs_min_p.tolist() == [False, True]
