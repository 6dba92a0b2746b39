"""Beams. Oracles: transformers' beam search, every text of a tiny vocabulary, exact probabilities of the draws."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

import samplers
from model import Llama, Tokenizer, generate
from model.decoding.beam_search import Beam, BeamRules, CandidateSelector, Search
from model.kv_cache import KVCache
from model.loading.weights import BUILT_IN
from samplers import SamplingParams, textbook
from tests.conftest import examples

TOKENIZER = Tokenizer.from_pretrained()
STORYTELLER = Llama.from_pretrained()
V = 29
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def models(folder, vocabulary, spread=0.08):
    """Random weights, in transformers' Llama and in ours; small ones, so that many texts are about as probable."""
    torch.manual_seed(1)
    theirs = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, max_position_embeddings=64, **SIZES)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread)
    theirs.save_pretrained(folder)
    theirs.generation_config = GenerationConfig()
    return theirs, Llama.from_pretrained(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return models(tmp_path_factory.mktemp("random"), V)


def transformers_beams(theirs, prompts, **arguments):
    """[(ids, score)] a prompt of transformers' search, in one batch padded on the left."""
    length = max(map(len, prompts))
    padded = torch.tensor([[0] * (length - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts])
    out = theirs.generate(
        padded,
        attention_mask=mask,
        pad_token_id=0,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **{name: value for name, value in arguments.items() if value != []},
    )
    lengths = (out.beam_indices >= 0).sum(dim=1).tolist()
    ids = [row[length : length + n].tolist() for row, n in zip(out.sequences, lengths, strict=True)]
    found = list(zip(ids, out.sequences_scores.tolist(), strict=True))
    count = arguments["num_return_sequences"]
    return [found[i : i + count] for i in range(0, len(found), count)]


sums = st.floats(-30, -0.125, width=32)


@st.composite
def searches(draw):
    beams = draw(st.integers(2, 5))
    return dict(
        num_beams=beams,
        num_return_sequences=draw(st.integers(1, beams)),
        length_penalty=draw(st.sampled_from([-1.5, 0.0, 0.7, 1.0, 3.0])),
        early_stopping=draw(st.sampled_from([True, False, "never"])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 0.8, 1.5])),
        eos_token_id=draw(st.lists(st.integers(1, V - 1), max_size=9, unique=True)),
        max_new_tokens=draw(st.sampled_from([1, 2, 6, 15])),
    )


@examples(80)
@given(searches(), st.lists(st.lists(st.integers(1, V - 1), min_size=1, max_size=8), min_size=1, max_size=3))
def test_beam_search_is_transformers(pair, arguments, prompts):
    """Ids and scores, alone; transformers' repetition penalty counts padding, so that it is not for a batch."""
    theirs, ours = pair
    results = generate(ours, TOKENIZER, prompts, do_sample=False, **arguments)
    for prompt, row in zip(prompts, results, strict=True):
        (expected,) = transformers_beams(theirs, [prompt], **arguments)
        assert [one.ids for one in row] == [ids for ids, _ in expected]
        assert [one.score for one in row] == pytest.approx([score for _, score in expected], rel=1e-4)
        for one in row:
            length = len(one.ids) ** arguments["length_penalty"]
            assert sum(one.logprobs) == pytest.approx(one.score * length)
            assert one.finish_reason == ("eos" if one.ids[-1] in arguments["eos_token_id"] else "length")


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_batch_is_transformers(pair, early_stopping):
    theirs, ours = pair
    prompts = [[3], [5, 9, 11, 2, 7, 7], [1, 20, 8]]
    arguments = dict(num_beams=4, num_return_sequences=4, max_new_tokens=12, eos_token_id=[4, 6, 13])
    arguments |= dict(early_stopping=early_stopping, length_penalty=0.5)
    results = generate(ours, TOKENIZER, prompts, do_sample=False, **arguments)
    for row, expected in zip(results, transformers_beams(theirs, prompts, **arguments), strict=True):
        assert [one.ids for one in row] == [ids for ids, _ in expected]
        assert [one.score for one in row] == pytest.approx([score for _, score in expected], rel=1e-4)
    assert len({len(row[0].ids) for row in results}) > 1  # some left the batch before others


@examples(300)
@given(st.data())
def test_a_search_is_over_where_transformers_is(data):
    """Its own two functions for it, on sums and lengths of all kinds."""
    count, room = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 12))
    length = data.draw(st.integers(1, room - 1))
    penalty = data.draw(st.sampled_from([-1.5, 0.0, 0.7, 1.0, 3.0]))
    early_stopping = data.draw(st.sampled_from([True, False, "never"]))
    finished = data.draw(st.lists(st.tuples(sums, st.integers(1, length)), max_size=count))
    live = sorted(data.draw(st.lists(sums, min_size=count, max_size=count)), reverse=True)
    search = Search([1], room, BeamRules(count, penalty, early_stopping))
    search.live = [Beam(total=total, length=length) for total in live]
    search.finished = sorted((Beam(total=t, length=n) for t, n in finished), key=search.score, reverse=True)

    missing = count - len(finished)
    scores = torch.tensor([[search.score(beam) for beam in search.finished] + [-1e9] * missing])
    is_finished = torch.tensor([[True] * len(finished) + [False] * missing])
    may_improve = LlamaForCausalLM._check_early_stop_heuristic(
        torch.tensor([[True]]), torch.tensor([live]), scores, is_finished, length, room, 0, early_stopping, penalty
    )
    goes_on = LlamaForCausalLM._beam_search_has_unfinished_sequences(
        may_improve, is_finished, torch.tensor([[False]]), early_stopping
    )
    assert search.is_over == (not goes_on)


@pytest.mark.parametrize("stop", ["time a", "had", ["ing wh", "daughter"]])
def test_stop_strings_are_transformers(stop):
    theirs = AutoModelForCausalLM.from_pretrained(BUILT_IN, dtype=torch.float32).eval()
    theirs.generation_config = GenerationConfig()
    prompt = TOKENIZER.encode("There was once")
    arguments = dict(num_beams=3, num_return_sequences=3, max_new_tokens=12, early_stopping=True, stop_strings=stop)
    (row,) = generate(STORYTELLER, TOKENIZER, [prompt], do_sample=False, eos_token_id=(), **arguments)
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN)
    (expected,) = transformers_beams(theirs, [prompt], tokenizer=tokenizer, **arguments)
    assert [one.ids for one in row] == [ids for ids, _ in expected]
    assert any(one.finish_reason == "stop" for one in row)
    for one in row:
        assert not any(text in one.text for text in ([stop] if isinstance(stop, str) else stop))


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0])
def test_many_beams_find_the_best_of_all_texts(tmp_path, penalty):
    """With beams for every text nothing is pruned: the finished are the best of all, and no score is made up."""
    vocabulary, end, length = 6, 2, 3
    _, ours = models(tmp_path, vocabulary)

    def total(ids):
        logprobs = torch.log_softmax(ours(torch.tensor([[1, *ids]]))[0].double(), -1)
        return sum(float(logprobs[i, token]) for i, token in enumerate(ids))

    texts = [
        ids
        for n in range(1, length + 1)
        for ids in itertools.product(range(vocabulary), repeat=n)
        if end not in ids[:-1] and (n == length or ids[-1] == end)
    ]
    with torch.no_grad():
        expected = sorted(((total(ids) / len(ids) ** penalty, list(ids)) for ids in texts), reverse=True)
    (row,) = generate(
        ours,
        TOKENIZER,
        [[1]],
        do_sample=False,
        num_beams=len(texts),
        num_return_sequences=len(texts),
        length_penalty=penalty,
        max_new_tokens=length,
        eos_token_id=end,
    )
    assert [one.ids for one in row] == [ids for _, ids in expected]
    assert [one.score for one in row] == pytest.approx([score for score, _ in expected], rel=1e-4)
    with pytest.raises(ValueError, match=f"at most {len(texts)}, the texts there are after"):
        count = dict(num_beams=len(texts) + 1, num_return_sequences=len(texts) + 1)
        generate(ours, TOKENIZER, [[1]], do_sample=False, max_new_tokens=length, eos_token_id=end, **count)


def test_logprobs_are_the_models():
    """The cache was reordered at every step: a whole pass over each text must say the same."""
    prompts = ["The king", "There was once a poor"]
    arguments = dict(max_new_tokens=15, num_beams=4, num_return_sequences=4, repetition_penalty=1.3, eos_token_id=())
    results = generate(STORYTELLER, TOKENIZER, prompts, do_sample=False, **arguments)
    for prompt, row in zip(prompts, results, strict=True):
        start = TOKENIZER.encode(prompt)
        for one in row:
            with torch.no_grad():
                logprobs = torch.log_softmax(STORYTELLER(torch.tensor([start + one.ids]))[0], -1)
            for i, token in enumerate(one.ids):
                raw = float(logprobs[len(start) - 1 + i, token])
                added = raw * 1.3 if token in start + one.ids[:i] else raw
                assert one.model_logprobs[i] == pytest.approx(raw, abs=1e-3)
                assert one.logprobs[i] == pytest.approx(added, abs=1e-3)
            assert sum(one.logprobs) / 15 == pytest.approx(one.score)
    (row,) = generate(STORYTELLER, TOKENIZER, "A", num_beams=2, max_new_tokens=2, model_logprobs=False)
    assert row[0].model_logprobs == []


# ---- beam sampling ----

SAMPLING = dict(temperature=1.2, top_k=40, top_p=0.9, num_beams=3, num_return_sequences=3, max_new_tokens=12)


def test_a_seed_gives_the_same_beams_alone_and_in_a_batch():
    prompts = ["Once upon a time", "The king", "There was once a poor woodcutter who lived with his wife and"]
    a, b, c = (generate(STORYTELLER, TOKENIZER, prompts, seed=seed, **SAMPLING) for seed in (7, 7, 8))
    assert a == b and [row[0].ids for row in a] != [row[0].ids for row in c]
    for number, prompt in enumerate(prompts):
        (alone,) = generate(STORYTELLER, TOKENIZER, prompt, seed=7, stream=[number], **SAMPLING)
        assert [one.ids for one in alone] == [one.ids for one in a[number]]
        for one in alone:
            assert sum(one.logprobs) / len(one.ids) == pytest.approx(one.score)


def test_a_low_temperature_is_beam_search(pair):
    """All sums are over T then, and noise is nothing against their differences."""
    _, ours = pair
    prompts = [[3], [5, 9, 11, 2, 7, 7]]
    arguments = dict(num_beams=4, num_return_sequences=4, max_new_tokens=10, eos_token_id=[4, 13])
    search = generate(ours, TOKENIZER, prompts, do_sample=False, **arguments)
    cold = generate(ours, TOKENIZER, prompts, do_sample=True, temperature=1e-5, seed=1, **arguments)
    for row, other in zip(search, cold, strict=True):
        assert [one.ids for one in row] == [one.ids for one in other]
        assert [one.score for one in row] == pytest.approx([one.score * 1e-5 for one in other], rel=1e-4)


def test_draws_are_those_of_samplers_by_hand():
    """One call of `sample` a draw, all but those drawn before allowed, each at its own position."""
    rules, generator = BeamRules(3, eos_ids=(2,)), torch.Generator().manual_seed(1)
    for step in (0, 4):
        logits = torch.randn(2 if step else 1, 50, generator=generator) * 2
        search = Search([1], 9, rules, stream=7)
        if step:
            search.live = [
                Beam(Beam(), token, total=total, length=step) for token, total in enumerate((-300.0, -301.0))
            ]
        params = SamplingParams(temperature=0.8, top_p=0.95, min_tokens_to_keep=2)
        (drawn,) = CandidateSelector(params, rules, 50, seed=11).candidates(logits, [search], step)
        filtered = samplers.filter_logits(torch.log_softmax(logits, -1), params).double()
        flat = torch.cat([row + beam.total for row, beam in zip(filtered, search.live, strict=True)])
        flat, allowed = (flat - flat.max()).float(), torch.ones(len(flat), dtype=torch.bool)
        for i, beam in enumerate(drawn):
            out = samplers.sample(flat, None, seed=11, stream=[7], position=step * 6 + i, allowed=allowed)
            place = search.live.index(beam.parent)
            assert int(out.tokens[0]) == 50 * place + beam.token
            allowed[out.tokens] = False
        assert len(drawn) == 6


def chi_square(counts, expected):
    """Statistic over its degrees of freedom, in standard deviations above its mean."""
    statistic = sum((counts[key] - e) ** 2 / e for key, e in expected.items())
    freedom = len(expected) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_draws_are_without_replacement_from_the_filtered_sums():
    """First draws against p, ordered pairs against p_i p_j / (1 - p_i), in float64 (Plackett-Luce)."""
    rng = np.random.default_rng(0)
    logits, totals, count = torch.tensor(rng.normal(size=(2, 6)), dtype=torch.float32), [-1.0, -1.4], 10_000
    params = SamplingParams(temperature=1.3, top_k=4)
    searches = [Search([1], 5, BeamRules(2), stream=stream) for stream in range(count)]
    for search in searches:
        search.live = [Beam(Beam(), token, total, total, total, 1) for token, total in enumerate(totals)]
    drawn = CandidateSelector(params, BeamRules(2), 6, seed=3).candidates(logits.repeat(count, 1), searches, step=1)
    pairs = [[(beam.parent.token, beam.token) for beam in beams] for beams in drawn]

    logprobs = torch.log_softmax(logits.double(), -1).numpy()
    kept = np.argsort(-logprobs, axis=1)[:, :4].tolist()
    sums = {(beam, token): logprobs[beam, token] / 1.3 + totals[beam] for beam in (0, 1) for token in kept[beam]}
    p = dict(zip(sums, textbook.softmax(np.array(list(sums.values()))), strict=True))
    assert {key for row in pairs for key in row} == set(p) and all(len(set(row)) == 4 for row in pairs)
    assert chi_square(Counter(row[0] for row in pairs), {key: count * q for key, q in p.items()}) < 4
    both = {(a, b): count * p[a] * p[b] / (1 - p[a]) for a in p for b in p if a != b}
    assert chi_square(Counter((row[0], row[1]) for row in pairs), both) < 4
    for beams in drawn[:5]:
        for beam in beams:
            assert beam.logprob == pytest.approx(logprobs[beam.parent.token, beam.token] / 1.3, rel=1e-5)
            assert beam.total == beam.parent.total + beam.logprob


@given(st.integers(0, 2**32), st.sampled_from([dict(top_p=0.6), dict(top_k=3), dict(min_p=0.2), dict(top_p=0.0)]))
def test_only_what_the_filters_keep_is_drawn(seed, filters):
    """Kept as by `filter_logits`, at least one token more than there are ends, as in transformers; each drawn once."""
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed))
    rules = BeamRules(4, eos_ids=(2, 3))
    searches = [Search([1], 9, rules), Search([1], 9, rules, stream=1)]
    searches[0].live = [Beam(Beam(), token, total=-float(token), length=1) for token in (0, 1)]
    drawn = CandidateSelector(SamplingParams(**filters), rules, 12, seed).candidates(logits, searches, step=3)
    kept = samplers.filter_logits(torch.log_softmax(logits, -1), SamplingParams(min_tokens_to_keep=3, **filters))
    for beams, rows in zip(drawn, (kept[:2], kept[2:]), strict=True):
        parents = {beam.parent: beam.parent.token for beam in beams}
        found = {(parents[beam.parent] if len(rows) > 1 else 0, beam.token) for beam in beams}
        allowed = {(row, token) for row, token in (rows > -torch.inf).nonzero().tolist()}
        assert found <= allowed and len(found) == len(beams) == min(12, len(allowed))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_impossible_is_no_candidate(temperature):
    """Tokens of probability 0, and places of beams that a prompt does not have while another does."""
    params, rules = SamplingParams(temperature=temperature, logit_bias={3: -math.inf}), BeamRules(6)
    searches = [Search([1], 9, rules), Search([1], 9, rules)]
    searches[1].live = [Beam(Beam(), token, total=-1.0, length=1) for token in range(3)]
    few, many = CandidateSelector(params, rules, 4).candidates(torch.zeros(4, 4), searches, step=0)
    assert sorted(beam.token for beam in few) == [0, 1, 2]
    assert sorted((beam.parent.token, beam.token) for beam in many) == list(itertools.product(range(3), repeat=2))


def test_an_invalid_row_is_refused():
    logits = torch.zeros(1, 6)
    logits[0, 3] = torch.nan
    for params in (SamplingParams(temperature=0.0), SamplingParams()):
        with pytest.raises(samplers.InvalidLogits):
            CandidateSelector(params, BeamRules(2), 6).candidates(logits, [Search([1], 5, BeamRules(2))], step=0)


# ---- the cache ----


@given(st.data())
def test_reordered_rows_are_the_rows_they_were(data):
    """Against plain indexing of a copy; slots beyond those in use may hold anything."""
    batch, length = data.draw(st.integers(1, 4)), 7
    cache = KVCache(STORYTELLER.config, batch, length, torch.float32, torch.device("cpu"))
    cache.keys.normal_()
    cache.values.normal_()
    for _ in range(3):
        rows = data.draw(st.lists(st.integers(0, cache.keys.shape[1] - 1), min_size=1, max_size=6))
        used = data.draw(st.integers(0, length))
        before = [cache.keys.clone()[:, rows, :, :used], cache.values.clone()[:, rows, :, :used]]
        cache.reorder(rows, used)
        assert cache.keys.shape[1] == cache.values.shape[1] == len(rows) and cache.keys.shape[3] == length
        assert torch.equal(cache.keys[:, :, :, :used], before[0])
        assert torch.equal(cache.values[:, :, :, :used], before[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_beams": 0}, ValueError, "num_beams must be an integer >= 1, got 0"),
        ({"num_beams": 2.0}, TypeError, "num_beams must be an integer >= 1, got 2.0"),
        ({"num_return_sequences": 4}, ValueError, "num_return_sequences must be at most num_beams = 3, got 4"),
        ({"early_stopping": "yes"}, ValueError, "early_stopping must be True, False or 'never', got 'yes'"),
        ({"early_stopping": 1}, ValueError, "early_stopping must be True, False or 'never', got 1"),
        ({"length_penalty": math.inf}, ValueError, r"length_penalty must be in \[-50, 50\], got inf"),
        ({"length_penalty": math.nan}, ValueError, "length_penalty must be in"),
        ({"length_penalty": "1"}, TypeError, "length_penalty must be a number, in"),
        ({"num_beams": 1, "length_penalty": 2.0}, ValueError, "num_beams must be above 1 for length_penalty and"),
        ({"num_beams": 1, "early_stopping": True}, ValueError, "got 1 with length_penalty = 1.0 and early"),
        ({"on_text": print}, ValueError, "on_text must be None with num_beams above 1"),
        ({"streamer": object()}, ValueError, "streamer must be None with num_beams above 1"),
        ({"logprobs": 2}, ValueError, "logprobs must be None with num_beams above 1, got 2"),
        ({"stream": [1, 2, 3]}, ValueError, "stream must hold one number for each of 1"),
        ({"num_beams": 1025, "do_sample": False}, ValueError, "num_beams must be at most 1024, got 1025"),
        ({"num_beams": 257, "top_k": 5}, ValueError, "num_beams must be at most 256 to sample from 4096, got 257"),
    ],
)
def test_refused(arguments, error, message):
    given = {"num_beams": 3, "max_new_tokens": 2, "seed": 1} | arguments
    with pytest.raises(error, match=message):
        generate(STORYTELLER, TOKENIZER, "The king", **given)
