"""Oracle: a list for each key, and turns counted by hand."""

from model.serve.engine.fair_queue import FairQueue
from model.serve.engine.request import Choice, Request, Settings
from model.tokenizer import Tokenizer
from samplers import SamplingParams

TOKENIZER = Tokenizer.from_pretrained()


def choices(key: str, count: int) -> list[Choice]:
    settings = Settings(SamplingParams(), 0, 1, 4096)
    return Request([Choice(i, [1], settings, i, TOKENIZER) for i in range(count)], key).choices


def test_keys_take_turns_and_each_is_served_in_its_order():
    queue, greedy, modest = FairQueue(), choices("a", 5), choices("b", 2)
    for choice in greedy + modest:
        queue.put(choice)
    a, b = iter(greedy), iter(modest)
    assert [queue.take() for _ in range(len(queue))] == [next(a), next(b), next(a), next(b), *a]
    assert not queue


def test_a_choice_that_leaves():
    queue, (first, second), (other,) = FairQueue(), choices("a", 2), choices("b", 1)
    for choice in (first, second, other):
        queue.put(choice)
    queue.remove(first)
    queue.remove(other)
    assert len(queue) == 1 and queue.first() is second and queue.take() is second and not queue
