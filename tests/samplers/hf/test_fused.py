"""Oracles: torch's own arg max where a Drawn is not asked for its tokens; `samplers.sample` for what is drawn."""

import pytest
import torch

import samplers
from samplers import InvalidLogits, SamplingParams
from samplers.hf.chain import Chain
from samplers.hf.fused import Drawn, FusedSampler, InvalidRowFlag, plain
from samplers.hf.options import Options

SCORES = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
TOKENS = torch.tensor([2, 1])


@pytest.mark.parametrize(
    "asked",
    [
        lambda x: torch.argmax(x, dim=-1),
        lambda x: torch.argmax(x, -1),
        lambda x: torch.argmax(input=x, dim=-1),
        lambda x: x.argmax(-1),
        lambda x: x.argmax(dim=1),
    ],
)
def test_the_arg_max_is_what_was_drawn(asked):
    drawn = Drawn.of(SCORES, TOKENS)
    assert not drawn.taken
    assert asked(drawn) is TOKENS and drawn.taken


def test_otherwise_scores_like_any_other():
    drawn = Drawn.of(SCORES, TOKENS)
    assert drawn.data_ptr() == SCORES.data_ptr() and type(SCORES) is torch.Tensor
    for operation in (
        lambda x: torch.softmax(x, -1),
        lambda x: x + 1,
        lambda x: x[0],
        lambda x: x.max(-1).values,
        lambda x: torch.argmax(x),
        lambda x: torch.argmax(x, dim=0),
        lambda x: torch.argmax(x, dim=-1, keepdim=True),
        lambda x: torch.stack([x, x]),
    ):
        result = operation(drawn)
        assert type(result) is torch.Tensor and torch.equal(result, operation(SCORES))
    assert not drawn.taken
    assert type(plain([drawn])[0]) is torch.Tensor


def fused(params: SamplingParams = SamplingParams(), scores: bool = False, **options) -> FusedSampler:  # noqa: B008
    ids = torch.zeros(2, 4, dtype=torch.int64)
    return FusedSampler(Chain([], params.packed, []), Options(**options), ids, None, scores)


def test_the_position_is_the_number_of_tokens_generated():
    sampler = fused(seed=3, stream=[8, 9])
    for step in (0, 1, 5):
        drawn = sampler(torch.zeros(2, 4 + step, dtype=torch.int64), SCORES)
        assert torch.equal(
            torch.argmax(drawn, -1), samplers.sample(SCORES, seed=3, position=step, stream=[8, 9]).tokens
        )


def test_scores_that_the_caller_wants_are_those_of_their_step():
    for wanted in (False, True):
        sampler, kept = fused(seed=3, scores=wanted), []
        for step in range(2):
            drawn = sampler(torch.zeros(2, 4 + step, dtype=torch.int64), SCORES + step * SCORES)
            expected = samplers.sample(SCORES + step * SCORES, seed=3, position=step).tokens
            assert torch.equal(torch.argmax(drawn, -1), expected)
            kept.append(drawn)
        assert (kept[0] is kept[1]) != wanted
    assert [torch.equal(scores, SCORES + i * SCORES) for i, scores in enumerate(plain(kept))] == [True, True]


def test_tokens_that_nobody_took_are_noticed():
    """A loop that chose otherwise than by arg max would be greedy in silence."""
    sampler = fused(seed=3)
    drawn = sampler(torch.zeros(2, 4, dtype=torch.int64), SCORES)
    torch.multinomial(torch.softmax(drawn, -1), 1)
    with pytest.raises(RuntimeError, match="did not take the tokens"):
        sampler.finish()


def test_drawn_without_a_copy_of_the_scores():
    drawn = fused(SamplingParams(top_k=1), seed=3)(torch.zeros(2, 4, dtype=torch.int64), SCORES)
    assert drawn.data_ptr() == SCORES.data_ptr()


def test_invalid_rows_are_told_one_step_later():
    """What a GPU does, on the CPU: tokens go on as 0, and the next check names the rows and their step."""
    flag = InvalidRowFlag()
    flag.check()
    assert flag.record(torch.tensor([3, -1, 5, -1]), 7).tolist() == [3, 0, 5, 0]
    with pytest.raises(InvalidLogits, match="row 1, 3 at step 7"):
        flag.check()
    flag.check()
    assert flag.record(torch.tensor([3, 4]), 8).tolist() == [3, 4]
    flag.check()
