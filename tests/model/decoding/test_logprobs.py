"""Logprobs of completions. Oracles: transformers' logits in float64 with log_softmax, penalties and T by hand,
`samplers.sample`, Python's sorted, and the text that the tokens make."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

import samplers
from model import Llama, Tokenizer, generate
from model.cli import main
from model.decoding.logprobs import (
    Alternative,
    CompletionLogprobs,
    Recorder,
    characters_of,
    greatest,
    keyed,
    text_offsets,
    token_text,
)
from model.loading.weights import BUILT_IN
from samplers import SamplingParams

TOKENIZER = Tokenizer.from_pretrained()
STORYTELLER = Llama.from_pretrained()
VOCABULARY = STORYTELLER.config.vocab_size
PROMPT = "Once upon a time"
SAMPLING = dict(temperature=0.7, top_p=0.8, repetition_penalty=1.2, logit_bias={13: 2.0})
BYTES = {byte: TOKENIZER.sp.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)}
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size + 5) | st.sampled_from(list(BYTES.values())), max_size=30)
TWINS = (TOKENIZER.sp.piece_to_id("a"), BYTES[ord("a")])  # two ids of one text


def continued(prompts=PROMPT, **arguments):
    arguments = {"max_new_tokens": 12, "seed": 7, "eos_token_id": (), "logprobs": 3} | arguments
    return generate(STORYTELLER, TOKENIZER, prompts, **arguments)


def one(**arguments):
    return continued(**arguments)[0][0]


def forced(*tokens: int) -> dict[int, float]:
    """A bias that leaves these tokens the only ones that can be drawn."""
    return dict.fromkeys(tokens, 1000.0)


def scripted(tokens, **arguments):
    """A continuation by these very tokens."""
    left, sample = iter(tokens), samplers.sample

    def next_one(logits, _, **keywords):
        return sample(logits, SamplingParams(logit_bias=forced(next(left))), **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.decoding.sampling.samplers.sample", next_one)
        return one(max_new_tokens=len(tokens), **arguments)


@pytest.fixture(scope="module")
def double():
    """Logits [L, V] after each of the ids, by transformers in float64."""
    llama = LlamaForCausalLM.from_pretrained(BUILT_IN, dtype=torch.float64).eval()

    def logits(ids):
        with torch.inference_mode():
            return llama(torch.tensor([ids])).logits[0].double()

    return logits


def test_raw_logprobs_are_those_of_transformers_and_not_shifted(double):
    prompt = TOKENIZER.encode(PROMPT)
    result = one(**SAMPLING)
    found = result.completion_logprobs
    expected = torch.log_softmax(double(prompt + result.ids)[len(prompt) - 1 : -1], -1)
    drawn = expected[range(12), result.ids]
    assert float((drawn - drawn.roll(1)).abs().min()) > 1e-2  # a shift would show
    np.testing.assert_allclose(found.token_logprobs, drawn, atol=1e-4)
    np.testing.assert_allclose(found.token_logprobs, result.model_logprobs, atol=1e-5)
    for top, row in zip(found.top_logprobs, expected, strict=True):
        values, ids = row.sort(descending=True, stable=True)
        assert [a.id for a in top] == ids[:3].tolist()
        np.testing.assert_allclose([a.logprob for a in top], values[:3], atol=1e-4)


def test_final_logprobs_are_those_of_what_is_drawn_from(double):
    prompt = TOKENIZER.encode(PROMPT)
    result = one(logprobs=40, **SAMPLING)
    found = result.completion_logprobs
    assert found.final_logprobs == result.logprobs
    ids, params, sizes = list(prompt), SamplingParams(**SAMPLING), set()
    for position, token in enumerate(result.ids):
        logits = double(ids)[-1:].float()
        out = samplers.sample(logits, params, seed=7, position=position, stream=[0], history=[ids])
        assert int(out.tokens[0]) == token
        x = logits[0].double()
        x[13] += 2
        seen = torch.tensor(sorted(set(ids)))
        x[seen] = torch.where(x[seen] > 0, x[seen] / 1.2, x[seen] * 1.2)
        kept = samplers.filter_logits(logits, params, history=[ids])[0] > -math.inf
        expected = torch.log_softmax((x / 0.7).masked_fill(~kept, -math.inf), -1)
        assert found.final_logprobs[position] == pytest.approx(float(expected[token]), abs=1e-4)
        top = found.top_final_logprobs[position]
        assert len(top) == min(40, int(kept.sum()))
        np.testing.assert_allclose([a.logprob for a in top], expected.sort(descending=True)[0][: len(top)], atol=1e-4)
        drawn = [a.logprob for a in top if a.id == token]
        assert drawn == pytest.approx([found.final_logprobs[position]] * len(drawn), abs=3e-6)
        sizes.add(len(top))
        ids.append(token)
    assert len(sizes) > 3 and min(sizes) < 40


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("temperature", [0.0, 1e-6, 0.01, 3.0])
def test_final_alternatives_at_any_temperature(backend, temperature):
    if samplers.backends()[backend] != "ok":
        pytest.skip(backend)
    logits = torch.tensor([[20.0, 20.000002, -5.0, 19.9], [1.0, 2.0, 2.0, -math.inf]])
    params = SamplingParams(temperature=temperature)
    recorder = Recorder(4, 4, params, backend)
    out = samplers.sample(logits, params, seed=1, backend=backend)
    recorder.put([0, 1], logits, out.tokens)
    for row in range(2):
        (step,) = recorder.steps[row]
        final = {i: logprob for i, logprob in step.final if logprob > -math.inf}
        assert len(final) == int(out.kept[row])
        assert final[int(out.tokens[row])] == pytest.approx(float(out.logprobs[row]), rel=3e-6, abs=3e-6)
        assert math.fsum(map(math.exp, final.values())) == pytest.approx(1)


def test_off_is_as_before_and_on_draws_the_same():
    off, on = one(logprobs=None, **SAMPLING), one(**SAMPLING)
    assert off.completion_logprobs is None
    for name in ("text", "ids", "logprobs", "model_logprobs", "finish_reason"):
        assert getattr(off, name) == getattr(on, name)


def test_off_records_nothing(monkeypatch):
    monkeypatch.setattr("model.decoding.sampling.Recorder", None)
    assert len(one(logprobs=None).ids) == 12


def test_without_alternatives():
    result = one(logprobs=0, model_logprobs=False)
    found = result.completion_logprobs
    assert found.top_logprobs == found.top_final_logprobs == [[]] * 12
    assert found.token_logprobs == one().completion_logprobs.token_logprobs and result.model_logprobs == []
    tops = found.to_openai()["top_logprobs"]
    assert tops == [{t: x} for t, x in zip(found.tokens, found.token_logprobs, strict=True)]  # as OpenAI's: the drawn


def test_the_whole_vocabulary():
    found = one(logprobs=VOCABULARY, max_new_tokens=2, temperature=1.0, top_p=1.0).completion_logprobs
    for top in found.top_logprobs + found.top_final_logprobs:
        assert sorted(a.id for a in top) == list(range(VOCABULARY))
        assert math.fsum(math.exp(a.logprob) for a in top) == pytest.approx(1, abs=1e-9)
    for step in found.to_openai()["top_logprobs"]:
        assert len(step) == VOCABULARY  # none merged


def test_batches_and_copies_keep_what_each_has_alone():
    prompts = [PROMPT, "The king", "There was once a poor woodcutter who lived with"]
    together = continued(prompts, num_return_sequences=2, eos_token_id=TOKENIZER.sp.piece_to_id("▁the"))
    lengths = set()
    for number, prompt in enumerate(prompts):
        for copy, result in enumerate(together[number]):
            alone = continued(prompt, stream=[2 * number + copy], eos_token_id=TOKENIZER.sp.piece_to_id("▁the"))[0][0]
            here, there = result.completion_logprobs, alone.completion_logprobs
            assert here.token_ids == there.token_ids == result.ids and here.text_offset == there.text_offset
            np.testing.assert_allclose(here.token_logprobs, there.token_logprobs, atol=1e-3)
            for ours, theirs in zip(here.top_logprobs, there.top_logprobs, strict=True):
                assert [a.id for a in ours] == [a.id for a in theirs]
                np.testing.assert_allclose([a.logprob for a in ours], [a.logprob for a in theirs], atol=1e-3)
            lengths.add(len(result.ids))
    assert len(lengths) > 1  # rows left the batch while others went on


@given(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, -0.0, 2.0]), min_size=1, max_size=40), st.data())
def test_ties_go_by_the_lowest_id(row, data):
    count = data.draw(st.integers(1, len(row)))
    expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    assert greatest(torch.tensor(row), count).tolist() == expected


def test_tokens_join_to_the_text_and_offsets_slice_it():
    result = one(max_new_tokens=60)
    found = result.completion_logprobs
    assert "".join(found.tokens) == result.text
    ends = [*found.text_offset[1:], len(result.text)]
    assert [result.text[a:b] for a, b in zip(found.text_offset, ends, strict=True)] == found.tokens


@given(st.binary(max_size=12) | st.text(max_size=8).map(str.encode))
def test_every_byte_belongs_to_a_character(data):
    text = data.decode("utf-8", "replace")
    numbers = characters_of(data)
    assert sorted(set(numbers)) == list(range(len(text))) and numbers == sorted(numbers)
    for number, character in enumerate(text):
        piece = bytes(b for b, n in zip(data, numbers, strict=True) if n == number)
        assert piece.decode("utf-8", "replace") == character


@given(IDS)
def test_offsets_of_any_ids(ids):
    stream = TOKENIZER.stream()
    text = "".join(map(stream.put, ids)) + stream.end()
    offsets = text_offsets([TOKENIZER.token_bytes(i) for i in ids], len(text))
    assert len(offsets) == len(ids) and offsets == sorted(offsets) and offsets[:1] in ([], [0])
    for i, offset in zip(ids, offsets, strict=True):
        data = TOKENIZER.token_bytes(i)
        if not data or token_text(TOKENIZER, i).startswith("bytes:"):
            assert 0 <= offset <= len(text)
        else:
            assert text.startswith(data.decode(), offset)


def test_bytes_of_one_character_share_its_place():
    result = scripted([*(BYTES[byte] for byte in "€\n".encode() + b"\xe2"), TWINS[0]])
    found = result.completion_logprobs
    assert result.text == "€\n\ufffda"
    assert found.tokens == ["bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "\n", "bytes:\\xe2", "a"]
    assert found.text_offset == [0, 0, 0, 1, 2, 3]


def test_special_tokens_and_ids_beyond_the_tokenizer_have_names():
    assert [token_text(TOKENIZER, i) for i in (TOKENIZER.bos_id, TOKENIZER.eos_id, 999999)] == [
        "<s>",
        "</s>",
        "<999999>",
    ]
    result = scripted([TWINS[0], TOKENIZER.eos_id, TWINS[0]], eos_token_id=None)
    assert (result.text, result.finish_reason) == ("a", "eos")
    assert result.completion_logprobs.tokens == ["a", "</s>"] and result.completion_logprobs.text_offset == [0, 1]


def test_two_ids_of_one_text_do_not_merge():
    plain, byte = TWINS
    assert token_text(TOKENIZER, plain) == token_text(TOKENIZER, byte) == "a"
    both = dict(max_new_tokens=1, logprobs=2, logit_bias=forced(*TWINS), temperature=50.0, top_p=1.0)
    found = one(**both).completion_logprobs
    (drawn,) = found.token_ids
    other = plain + byte - drawn
    top = {a.id: a.logprob for a in found.top_final_logprobs[0]}
    assert set(top) == {plain, byte}
    shape = found.to_openai(final=True)["top_logprobs"][0]
    assert shape == {"a": found.final_logprobs[0], f"a (id {other})": top[other]}


def test_keys_stay_apart_even_from_a_token_that_reads_like_one():
    top = [Alternative(5, "a", -1.0), Alternative(6, "a", -2.0), Alternative(7, "a (id 5)", -3.0)]
    keys = keyed(Alternative(8, "b", -4.0), top)
    assert list(keys.values()) == [-1.0, -2.0, -3.0, -4.0] and "a (id 6)" in keys
    keys = keyed(Alternative(9, "a (id 5)", -4.0), top)
    assert sorted(keys.values()) == [-4.0, -3.0, -2.0, -1.0] and keys["a (id 5)"] == -4.0


def test_the_key_of_the_drawn_token_is_its_text_alone():
    shape = one(max_new_tokens=40, logprobs=5).completion_logprobs.to_openai()
    for token, logprob, top in zip(shape["tokens"], shape["token_logprobs"], shape["top_logprobs"], strict=True):
        assert top[token] == logprob and len(top) in (5, 6)


@pytest.mark.parametrize("width", [1, 3, 9])
def test_a_stop_string_cuts_the_text_and_leaves_the_tokens(width):
    free = one(max_new_tokens=40)
    for start in (5, 20, 41):
        cut = one(max_new_tokens=40, stop_strings=free.text[start : start + width])
        found = cut.completion_logprobs
        assert cut.finish_reason == "stop" and len(found.tokens) == len(found.text_offset) == len(cut.ids)
        assert "".join(found.tokens).startswith(cut.text) and "".join(found.tokens) != cut.text
        expected = [min(offset, len(cut.text)) for offset in free.completion_logprobs.text_offset[: len(cut.ids)]]
        assert found.text_offset == expected


def test_no_probability_is_a_number_in_json():
    tops = [[Alternative(1, "a", 0.0), Alternative(2, "b", -math.inf)]]
    found = CompletionLogprobs(["a"], [1], [0.0], [0.0], tops, [[]], [0])
    assert found.to_openai()["top_logprobs"] == [{"a": 0.0, "b": -9999.0}]


@pytest.mark.parametrize(
    ("logprobs", "error", "message"),
    [
        (-1, ValueError, "logprobs must be an integer >= 0, got -1"),
        (True, TypeError, "logprobs must be an integer >= 0, got True of type bool"),
        (2.0, TypeError, "logprobs must be an integer >= 0, got 2.0"),
        (VOCABULARY + 1, ValueError, f"logprobs must be an integer in 0 .. {VOCABULARY}, the vocabulary, got"),
    ],
)
def test_refused(logprobs, error, message):
    with pytest.raises(error, match=message):
        one(logprobs=logprobs)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["generate", "-p", "The king", "-n", "6", "--seed", "3", *arguments])
    return status, *capsys.readouterr()


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_json_of_the_command(capsys):
    before = json.loads(run(capsys, "--json", "--top-k", "2")[1])
    line = json.loads(run(capsys, "--json", "--top-k", "2", "--logprobs", "3")[1], parse_constant=refuse_constant)
    raw, final = line.pop("logprobs"), line.pop("final_logprobs")
    assert final["token_logprobs"] == before.pop("logprobs")  # the list that stands there without --logprobs
    assert line == before
    assert set(raw) == set(final) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    np.testing.assert_allclose(raw["token_logprobs"], line["model_logprobs"], atol=1e-5)
    assert [len(top) for top in final["top_logprobs"]] == [2] * 6
    assert all(len(top) in (3, 4) for top in raw["top_logprobs"])
    assert raw["text_offset"] == final["text_offset"] and "".join(raw["tokens"]) == line["text"]


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_table_of_the_command(capsys, stream):
    text = run(capsys, stream)[1]
    status, out, err = run(capsys, stream, "--logprobs", "2")
    assert status == 0 and err == "" and out.startswith(text)
    result = generate(STORYTELLER, TOKENIZER, "The king", max_new_tokens=6, do_sample=True, seed=3, logprobs=2)[0][0]
    found, table = result.completion_logprobs, out[len(text) :]
    for i, token in enumerate(found.tokens):
        row = next(line.split() for line in table.splitlines() if line.split()[1:2] == [str(found.token_ids[i])])
        assert row[0] == token.replace(" ", "▁")
        assert row[2:4] == [f"{found.token_logprobs[i]:.3f}", f"{found.final_logprobs[i]:.3f}"]
        best = found.top_logprobs[i][0]
        assert row[4] == f"{best.token.replace(' ', '▁')}({best.logprob:.3f})"


def test_the_command_says_what_is_wrong(capsys):
    status, out, err = run(capsys, "--logprobs", "-1")
    assert (status, out) == (2, "") and "logprobs must be an integer >= 0, got -1" in err
