"""Oracles: `sample` on the same arguments for what was drawn; `textbook` in float64 for what each stage left."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import samplers
from samplers import InvalidLogits, SamplingParams, textbook, trace
from tests.conftest import examples
from tests.samplers.strategies import row

EXAMPLE = np.log(textbook.example()).astype(np.float32)
WORDS = textbook.words()
FILTERS = {
    "top_k": lambda p, value: textbook.top_k(p, value),
    "top_p": lambda p, value: textbook.top_p(p, value),
    "min_p": lambda p, value: textbook.min_p(p, value),
    "typical_p": lambda p, value: textbook.typical(p, value),
    "epsilon_cutoff": lambda p, value: textbook.epsilon(p, value),
    "eta_cutoff": lambda p, value: textbook.eta(p, value),
}
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 7, 40]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.05]),
    typical_p=st.sampled_from([1.0, 0.8]),
    epsilon_cutoff=st.sampled_from([0.0, 0.003]),
    eta_cutoff=st.sampled_from([0.0, 0.01]),
    min_tokens_to_keep=st.sampled_from([1, 3]),
)


@examples(150)
@given(
    params=PARAMS, kind=st.sampled_from(["normal", "tied", "peaked"]), seed=st.integers(-5, 2**64), n=st.integers(1, 99)
)
def test_what_sample_draws(params, kind, seed, n):
    logits = np.random.default_rng(n).normal(0, 3, n).astype(np.float32)
    if kind == "tied":
        logits = np.round(logits)
    out = samplers.sample(logits, params, seed=seed, position=3, stream=[9], details=True)
    t = trace(logits, params, seed=seed, position=3, stream=[9], top=5)
    assert (t.token, t.weight, t.total, t.kept) == tuple(int(v[0]) for v in out[:4])
    assert np.float32(t.logprob) == out.logprobs[0] and t.entropy == pytest.approx(out.entropy[0], abs=2e-6)
    assert t.model_logprob == pytest.approx(out.model_logprobs[0], abs=1e-5)
    assert t.chosen.interval[0] <= t.u < t.chosen.interval[1] <= t.total
    for after in range(len(t.stages)):
        assert sum(one.probabilities[after] for one in t.candidates) + t.others.probabilities[after] == pytest.approx(1)
    assert t.others.count + len(t.candidates) == n
    assert t.others.survivors + sum(one.cut_by is None for one in t.candidates) == t.kept
    json.dumps(t.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "params",
    [
        dict(top_k=5),
        dict(top_p=0.8),
        dict(epsilon_cutoff=0.05),
        dict(temperature=1.5, top_k=9, top_p=0.9, min_p=0.2, typical_p=0.9, epsilon_cutoff=0.09, eta_cutoff=0.2),
    ],
)
def test_every_stage_is_the_textbooks(params):
    """Survivors, mass, thresholds, entropy and every probability, by independent float64 formulas."""
    t = trace(EXAMPLE, SamplingParams(**params), seed=1)
    raw, p = textbook.softmax(EXAMPLE), textbook.softmax(EXAMPLE, params.get("temperature", 1.0))
    expected = [("logits", raw, 1.0), ("temperature", p, 1.0)]
    thresholds = [None, None]
    for name in FILTERS:
        if name in params:
            q = FILTERS[name](p, params[name])
            expected.append((name, q, p[q > 0].sum()))
            thresholds.append((p[q > 0].min(), p[q == 0].max() if (q == 0).any() and p[q == 0].max() > 0 else None))
            p = q
    assert [stage.name for stage in t.stages] == [name for name, *_ in expected]
    for stage, (_, q, mass), threshold in zip(t.stages, expected, thresholds, strict=True):
        assert stage.survivors == (q > 0).sum() and stage.kept_mass == pytest.approx(mass, abs=1e-6)
        assert stage.entropy == pytest.approx(textbook.entropy(q), abs=1e-5)
        if threshold:
            assert stage.least_kept == pytest.approx(threshold[0], rel=1e-5)
            cut = threshold[1]
            assert stage.greatest_cut == (None if cut is None else pytest.approx(cut, rel=1e-5))
    for one in t.candidates:
        assert one.probabilities == pytest.approx([q[one.id] for _, q, _ in expected], abs=1e-6)
        cut = [name for name, q, _ in expected if q[one.id] == 0]
        assert one.cut_by == (cut[0] if cut else None)


def test_the_tutorials_cuts():
    """top_p = 0.8 keeps through "and", then ε = 0.12 cuts "flew"."""
    t = trace(EXAMPLE, SamplingParams(top_p=0.8, epsilon_cutoff=0.12), seed=1)
    cut = {WORDS[one.id]: one.cut_by for one in t.candidates}
    assert [word for word, stage in cut.items() if stage is None] == ["the", "a", "dragon"]
    assert cut["flew"] == cut["over"] == cut["and"] == "epsilon_cutoff" and cut["castle"] == "top_p"


def test_mask_and_penalties_are_stages():
    params = SamplingParams(repetition_penalty=2.0, logit_bias={4: -math.inf, 5: 1.0})
    allowed = np.arange(10) != 6
    arguments = dict(history=[[0, 0, 1]], history_start=1, allowed=allowed)
    t = trace(EXAMPLE, params, seed=1, **arguments)
    assert [stage.name for stage in t.stages] == ["logits", "allowed", "penalties", "temperature"]
    assert [(one.id, one.cut_by) for one in t.candidates if one.cut_by] == [(4, "penalties"), (6, "allowed")]
    assert [stage.survivors for stage in t.stages] == [10, 9, 8, 8]
    assert t.token == samplers.sample(EXAMPLE, params, seed=1, **arguments).tokens[0]
    assert t.what_if(top_k=2).token == samplers.sample(EXAMPLE, replace(params, top_k=2), seed=1, **arguments).tokens[0]
    with pytest.raises(ValueError, match="what_if must name parameters of temperature and filters, got logit_bias"):
        t.what_if(logit_bias=None)


@pytest.mark.parametrize("kind", ["bool", "bits", "a row of two"])
def test_a_mask_is_softmax_over_what_it_allows(kind):
    """Mass, thresholds and entropy by float64; the same from a mask of bits, and from one row of a batch."""
    allowed = np.isin(np.arange(10), [1, 2, 5, 7])
    given = {"bool": allowed, "bits": np.int32([0b10100110]), "a row of two": np.stack([allowed, ~allowed])}[kind]
    t = trace(EXAMPLE if kind != "a row of two" else np.stack([EXAMPLE] * 2), seed=3, allowed=given)
    t = t[0] if kind == "a row of two" else t
    before = textbook.softmax(EXAMPLE)
    after = np.where(allowed, before, 0) / before[allowed].sum()
    raw, stage, temperature = t.stages
    assert (raw.name, stage.name, temperature.name) == ("logits", "allowed", "temperature")
    assert raw.survivors == 10 and stage.survivors == temperature.survivors == 4
    assert stage.kept_mass == pytest.approx(before[allowed].sum(), rel=1e-6)
    assert stage.least_kept == pytest.approx(before[allowed].min(), rel=1e-5)
    assert stage.greatest_cut == pytest.approx(before[~allowed].max(), rel=1e-5)
    assert stage.entropy == pytest.approx(textbook.entropy(after), abs=1e-6)
    for one in t.candidates:
        assert one.probabilities == pytest.approx((before[one.id], after[one.id], after[one.id]), abs=1e-6)
        assert one.cut_by == (None if allowed[one.id] else "allowed")
    np.testing.assert_array_equal(t.allowed, allowed)
    assert "allowed" not in t.to_dict() and t.what_if(top_k=1).stages[1] == stage


def test_a_mask_that_excludes_nothing_is_no_stage():
    for allowed in (None, np.ones(10, bool), np.int32([-1])):
        t = trace(EXAMPLE, seed=1, allowed=allowed)
        assert [stage.name for stage in t.stages] == ["logits", "temperature"] and t.allowed is None


def test_one_allowed_token_far_below_the_others():
    """Its weight before the mask is 0, and after it the whole mass."""
    t = trace(np.float32([90, 0, 89]), seed=1, allowed=np.array([False, True, False]))
    stage = t.stages[1]
    assert (stage.survivors, stage.kept_mass, stage.least_kept, stage.entropy) == (1, 0, 0, 0)
    assert t.token == 1 and t.chosen.probabilities == (0, 1, 1) and t.weight == t.total


def test_a_mask_that_makes_a_row_valid():
    """Raw logits without a distribution: the stages begin after step 0, as with a bias."""
    for raw in (np.nan, np.inf):
        x = np.float32([1, raw, 2])
        t = trace(x, seed=1, allowed=np.array([True, False, True]))
        assert [stage.name for stage in t.stages] == ["logits", "penalties", "temperature"]
        assert [stage.survivors for stage in t.stages] == [2, 2, 2]
        json.dumps(t.to_dict(), allow_nan=False)


@pytest.mark.parametrize("params", [dict(top_k=3), dict(temperature=0.0), dict(temperature=4.0, top_p=0.5)])
def test_what_if_is_a_draw_with_the_same_bits(params):
    t = trace(EXAMPLE, SamplingParams(top_p=0.8), seed=7, position=2, stream=[5])
    other = t.what_if(top_p=1.0) if not params else t.what_if(**params)
    expected = samplers.sample(EXAMPLE, SamplingParams(**{"top_p": 0.8} | params), seed=7, position=2, stream=[5])
    assert (other.token, other.weight, other.total) == tuple(int(v[0]) for v in expected[:3]) and other.bits == t.bits


def test_replay_is_a_draw_with_other_bits():
    t = trace(EXAMPLE, SamplingParams(top_p=0.8), seed=7, position=2)
    for seed in range(20):
        assert t.replay(seed=seed).token == samplers.sample(EXAMPLE, t.params, seed=seed, position=2).tokens[0]
    assert t.replay(position=9).token == samplers.sample(EXAMPLE, t.params, seed=7, position=9).tokens[0]
    assert t.replay().to_dict() == t.to_dict()
    with pytest.raises(TypeError, match="seed must be"):
        t.replay(seed=0.5)


def test_a_batch_gives_a_trace_a_row():
    logits = torch.from_numpy(np.stack([row("normal", 50, np.random.default_rng(i)) for i in range(3)]))
    params = [SamplingParams(top_k=k) for k in (1, 5, 0)]
    traces = trace(logits, params, seed=[1, 2, 3], stream=[4, 5, 6])
    tokens = samplers.sample(logits, params, seed=[1, 2, 3], stream=[4, 5, 6]).tokens
    assert [t.token for t in traces] == tokens.tolist() and [t.kept for t in traces] == [1, 5, 50]


def test_the_token_drawn_is_listed_whatever_its_rank():
    t = trace(np.zeros(1000, np.float32), seed=1, top=3)
    assert len(t.candidates) == 4 and t.chosen.rank == t.token + 1


def test_printed():
    console = Console(file=io.StringIO(), width=140)
    console.print(trace(EXAMPLE, SamplingParams(top_p=0.8), seed=7, top=7).table(lambda i: f"[{WORDS[i]}]"))
    text = console.file.getvalue()
    assert "top_p" in text and "[castle]" in text and "cut" in text and "+3 others" in text and "u = 0.75" in text


def test_errors():
    with pytest.raises(InvalidLogits, match="row 1"):
        trace(np.float32([[1, 2], [np.nan, 1]]), seed=1)
    with pytest.raises(ValueError, match="top must be an integer >= 1, got 0"):
        trace(EXAMPLE, seed=1, top=0)
    with pytest.raises(ValueError, match="top_p must be"):
        trace(EXAMPLE, seed=1).what_if(top_p=1.2)


def test_more_candidates_than_there_are_tokens():
    """As many as there are, and no memory for more."""
    assert len(trace(np.float32([1, 3, 2]), seed=1, top=10**15).candidates) == 3
