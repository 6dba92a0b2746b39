"""Oracle: `samplers.sample` on each row by itself."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from samplers import SamplingParams, filter_logits, sample
from tests.samplers.vllm.conftest import Direction, asked, config, update

CPU = torch.device("cpu")
V = 101
REQUESTS = [
    (asked(temperature=0.9, top_k=20, top_p=0.9, seed=1, extra_args={"stream": 4}), [3] * 5),
    (asked(temperature=0.0, seed=2), []),
    (asked(seed=3, extra_args={"typical_p": 0.8}), [3]),
]


def logits(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(0)) * 3


def expected(x: torch.Tensor) -> list[int]:
    """The tokens of REQUESTS, each drawn alone."""
    params = [
        SamplingParams(temperature=0.9, top_k=20, top_p=0.9),
        SamplingParams(temperature=0),
        SamplingParams(typical_p=0.8),
    ]
    keys = [(1, 4, 5), (2, 0, 0), (3, 0, 1)]
    return [
        int(sample(row, p, seed=seed, stream=stream, position=position).tokens[0])
        for row, p, (seed, stream, position) in zip(x, params, keys, strict=True)
    ]


def metadata(processor, **fields):
    logitsprocs = SimpleNamespace(argmax_invariant=[processor] if processor else [])
    return SimpleNamespace(**(dict(logitsprocs=logitsprocs, generators={0: 1}, max_num_logprobs=None) | fields))


def v1(draw, kind="Draw", **model_config):
    processor = getattr(draw, kind)(config(**model_config), CPU, False)
    processor.update_state(update(added=[(row, p, output) for row, (p, output) in enumerate(REQUESTS)]))
    processor.update_state(None)
    return processor


def v2(draw, kind="Draw"):
    """Request i in slot 4 - i, of 6 slots; its prompt has i + 2 tokens."""
    prompt_len = SimpleNamespace(gpu=torch.tensor([0, 0, 4, 3, 2, 0], dtype=torch.int32))
    processor = getattr(draw, kind)(config(), SimpleNamespace(device=CPU, max_num_reqs=6, prompt_len=prompt_len))
    for i, (p, _) in enumerate(REQUESTS):
        assert processor.add_request(4 - i, p)
    return processor


def context(slots, positions):
    return SimpleNamespace(
        expanded_idx_mapping=torch.tensor(slots), idx_mapping_np=np.array(slots), pos=torch.tensor(positions)
    )


def test_v1_draws_in_place_of_the_sampler(draw, sampler):
    processor = v1(draw)
    data = metadata(processor)
    tokens, processed = sampler().sample(logits(), data)
    assert tokens.tolist() == expected(logits()) and processed is None
    assert processor.is_argmax_invariant() and not data.generators


def test_v1_after_a_swap(draw, sampler):
    processor = v1(draw)
    processor.update_state(update(moved=[(0, 2, Direction.SWAP)]))
    assert sampler().sample(logits().flip(0), metadata(processor))[0].tolist() == expected(logits())[::-1]


def test_batches_without_the_processor_are_left_to_vllm(draw, sampler):
    v1(draw)
    assert sampler().sample(logits(), metadata(None))[0].tolist() == [0, 0, 0]


def test_one_hot_rows_hold_the_token_alone(draw, sampler):
    processor = v1(draw, "OneHotDraw")
    rows = processor.apply(logits())
    assert not processor.is_argmax_invariant()
    assert [row.isfinite().nonzero()[:, 0].tolist() for row in rows] == [[token] for token in expected(logits())]
    assert sampler().sample(logits(), metadata(None))[0].tolist() == [0, 0, 0], "the sampler is vLLM's own"


@pytest.mark.parametrize("kind", ["Draw", "OneHotDraw"])
def test_v2_rows_by_slot(draw, kind):
    order = [2, 0, 1]
    pos = [[2 + 5 - 1, 3 + 0 - 1, 4 + 1 - 1][i] for i in order]  # prompt + tokens so far - 1: that of the last token
    rows = v2(draw, kind).apply(logits()[order], context([4 - i for i in order], pos))
    assert rows.isfinite().sum(1).tolist() == [1, 1, 1]
    assert rows.argmax(1).tolist() == [expected(logits())[i] for i in order]


def test_v2_draft_rows_of_one_request(draw):
    x = logits(2)
    rows = v2(draw).apply(x.clone(), context([4, 4], [6, 7]))
    keys = dict(seed=1, stream=[4, 4], position=[5, 6])
    assert rows.argmax(1).tolist() == sample(x, SamplingParams(0.9, 20, 0.9), **keys).tokens.tolist()


def test_v2_min_p_acts_first_where_a_row_has_one(draw):
    """V1 is the oracle."""
    processor, x = v2(draw), logits(2) / 3
    processor.add_request(5, asked(min_p=0.2, top_p=0.6, seed=1))
    rows = processor.apply(x.clone(), context([5, 4], [-1, 6]))
    one = draw.Draw(config(), CPU, False)
    one.update_state(update(added=[(0, asked(min_p=0.2, top_p=0.6, seed=1), []), (1, REQUESTS[0][0], [3] * 5)]))
    assert rows.argmax(1).tolist() == one.draw(x, None)[0].tolist()
    alone = processor.apply(x[1:].clone(), context([4], [6]))
    assert torch.equal(alone, rows[1:]), "the table has a min-p, but the batch has none"


def test_v2_padding_and_empty_slots_are_drawn_and_ignored(draw):
    rows = v2(draw).apply(logits(2), context([-1, 5], [0, 0]))
    assert rows.isfinite().sum(1).tolist() == [1, 1]


def test_vllm_s_min_p_acts_first(draw, sampler):
    processor = draw.Draw(config(), CPU, False)
    processor.update_state(update(added=[(0, asked(min_p=0.2, top_p=0.6, seed=1), []), (1, REQUESTS[0][0], [3] * 5)]))
    x = logits(2) / 3
    allowed = filter_logits(x[0], SamplingParams(min_p=0.2)) > -math.inf
    first = sample(x[0], SamplingParams(top_p=0.6), seed=1, allowed=allowed)
    assert int(first.kept[0]) != int(sample(x[0], SamplingParams(min_p=0.2, top_p=0.6), seed=1).kept[0])
    second = sample(x[1], SamplingParams(0.9, 20, 0.9), seed=1, stream=4, position=5)
    tokens, _ = sampler().sample(x, metadata(processor))
    assert tokens.tolist() == [int(first.tokens[0]), int(second.tokens[0])]


@pytest.mark.parametrize("fields", [{"max_num_logprobs": 0}, {"logprob_token_ids": {0: [1]}}])
def test_processed_logprobs_are_those_of_the_final_distribution(draw, sampler, fields):
    processor, one = v1(draw), sampler()
    one.logprobs_mode = "processed_logprobs"
    tokens, scores = one.sample(logits(), metadata(processor, **fields))
    alone = sample(logits()[0], SamplingParams(0.9, 20, 0.9), seed=1, stream=4, position=5)
    assert float(scores[0, tokens[0]]) == float(alone.logprobs[0])
    assert int((scores[0] > -math.inf).sum()) == int(alone.kept[0])
    assert float(scores[1, tokens[1]]) == 0, "at T = 0"


def test_processed_logits_are_those_of_filter_logits(draw, sampler):
    data = metadata(v1(draw), max_num_logprobs=2)
    _, scores = sampler().sample(logits(), data, "processed_logits")
    assert torch.equal(scores[0], filter_logits(logits()[0], SamplingParams(0.9, 20, 0.9))[0])


def test_nobody_asks_for_logprobs(draw, sampler):
    processor, one = v1(draw), sampler()
    one.logprobs_mode = "processed_logprobs"
    assert one.sample(logits(), metadata(processor))[1] is None


def test_invalid_rows_get_token_0_and_are_counted(draw, sampler, caplog):
    processor, x = v1(draw), logits()
    x[0, 5], x[2] = math.nan, -math.inf
    with caplog.at_level(logging.WARNING):
        tokens, _ = sampler().sample(x, metadata(processor))
    assert tokens.tolist() == [0, expected(logits())[1], 0]
    assert processor.invalid.count == 2 and "2 invalid, 2 since the start" in caplog.text
    rows = v2(draw).apply(x[:1].clone(), context([4], [6]))
    assert rows[0].argmax() == 0 and rows.isfinite().sum() == 1


def test_rows_without_requests_are_refused(draw, sampler):
    data = metadata(v1(draw))
    with pytest.raises(RuntimeError, match="logits of 4 rows for 3 requests"):
        sampler().sample(logits(4), data)


def test_a_sampler_that_does_not_call_ours_is_refused(draw):
    with pytest.raises(RuntimeError, match=r"samples without Sampler\.sample"):
        v1(draw).apply(logits())


def test_an_unknown_signature_is_refused_by_name(draw, sampler):
    sampler.sample = lambda self, logits, metadata, temperature: None
    with pytest.raises(RuntimeError, match=r"this vLLM has self, logits, metadata, temperature.*OneHotDraw"):
        draw.Draw(config(), CPU, False)
    draw.OneHotDraw(config(), CPU, False)


def test_the_signature_of_2025_is_known(draw, sampler):
    sampler.sample = lambda self, logits, sampling_metadata: "vLLM's own"
    v1(draw)
    assert sampler().sample(logits(), metadata(None)) == "vLLM's own"


@pytest.mark.parametrize("mode", ["processed_logprobs", "processed_logits"])
def test_processed_modes_are_refused_where_a_row_of_one_token_would_show(draw, mode):
    with pytest.raises(ValueError, match="logprobs_mode must be raw_logprobs or raw_logits here"):
        draw.OneHotDraw(config(logprobs_mode=mode), CPU, False)
    with pytest.raises(ValueError, match="logprobs_mode"):
        draw.Draw(config(logprobs_mode=mode), SimpleNamespace(device=CPU))


def test_engines_that_run_in_parallel_do_not_share_streams(draw):
    """vLLM 0.32 gives every replica of a dense model the rank 0; only its index is its own."""
    second = config()
    second.parallel_config.data_parallel_index = 1
    before = config()
    before.parallel_config = SimpleNamespace(data_parallel_rank=1)  # without an index: before it existed
    streams = []
    for own in (config(), second, before):
        processor = draw.Draw(own, CPU, False)
        processor.update_state(update(added=[(0, asked(), [])]))
        streams.append(int(processor.slots.columns(1).stream[0]))
    assert streams[0] != streams[1] == streams[2]


def test_a_processor_that_would_act_after_the_draw_is_refused(draw, sampler):
    class Other(draw.V1LogitsProcessor):
        __init__ = apply = is_argmax_invariant = update_state = lambda *_: None

    class OfVLLM(Other):
        __module__ = "vllm.v1.sample.logits_processor.builtin"

    processor = v1(draw)
    data = metadata(processor)
    data.logitsprocs.argmax_invariant += [OfVLLM(), v1(draw)]
    assert sampler().sample(logits(), data)[0].tolist() == expected(logits()), "vLLM's own, and Draw twice"
    data.logitsprocs.argmax_invariant.append(Other())
    with pytest.raises(RuntimeError, match=r"Other\.is_argmax_invariant\(\) must be False with samplers.vllm:Draw"):
        sampler().sample(logits(), data)


def test_watermarks_are_refused(draw):
    watermarked = config()
    watermarked.watermark_config = object()
    with pytest.raises(ValueError, match="watermark_config must be None"):
        draw.Draw(watermarked, CPU, False)


def test_requests_are_refused_when_they_arrive(draw):
    with pytest.raises(ValueError, match="typical_p"):
        draw.Draw.validate_params(asked(extra_args={"typical_p": 2.0}))
    draw.Draw.validate_params(asked(repetition_penalty=1.3))
    with pytest.raises(ValueError, match=r"repetition_penalty must be 1.0 with samplers.vllm:OneHotDraw, got 1.3"):
        draw.OneHotDraw.validate_params(asked(repetition_penalty=1.3))


def test_the_classes_are_found_by_name(draw):
    import samplers.vllm

    assert samplers.vllm.Draw.__name__ == "Draw"
    with pytest.raises(AttributeError, match="Drwa"):
        samplers.vllm.Drwa  # noqa: B018
