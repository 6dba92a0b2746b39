"""Oracle: the attached model, which draws the same with the same seed; stock transformers for other modes."""

import pytest
import torch

import samplers
from samplers import SamplingParams, hf
from tests.samplers.hf.test_attach import SAMPLING, Ids

CALL = dict(custom_generate=hf.generate)


def test_the_same_as_attached(llama, ids):
    text = llama.generate(ids, **SAMPLING, **CALL, seed=5)
    assert torch.equal(hf.attach(llama, seed=5).generate(ids, **SAMPLING), text)


def test_takes_the_place_of_what_was_attached(llama, ids):
    text = llama.generate(ids, **SAMPLING, **CALL, seed=5)
    hf.attach(llama, seed=6)
    assert not torch.equal(llama.generate(ids, **SAMPLING), text)
    assert torch.equal(llama.generate(ids, **SAMPLING, **CALL, seed=5), text)


def test_rows(llama, ids):
    params, seed, stream = [SamplingParams(top_k=k) for k in (2, 5, 9)], [1, 2, 3], [4, 5, 6]
    options = dict(do_sample=True, max_new_tokens=4, return_dict_in_generate=True, output_logits=True)
    out = llama.generate(ids, **options, **CALL, params=params, seed=seed, stream=stream)
    for step, logits in enumerate(out.logits):
        drawn = samplers.sample(logits, params, seed=seed, position=step, stream=stream)
        assert torch.equal(drawn.tokens, out.sequences[:, 5 + step])


def test_without_a_seed_torch_rules(llama, ids):
    texts = []
    for _ in range(2):
        torch.manual_seed(4)
        texts.append(llama.generate(ids, **SAMPLING, **CALL))
    assert torch.equal(*texts)


def test_streamer(llama, ids):
    streamer = Ids()
    text = llama.generate(ids[:1], **SAMPLING, **CALL, seed=5, streamer=streamer)
    assert streamer.values == text[0].tolist() and streamer.ended


def test_a_streamer_of_one_call_is_not_that_of_another(llama, ids):
    """A call within a call: the streamer is that of the generate which called us, not of one further out."""

    class Nested(Ids):
        def put(self, value):
            super().put(value)
            llama.generate(ids[:1], **SAMPLING, **CALL, seed=1)

    streamer = Nested()
    text = llama.generate(ids[:1], **SAMPLING, **CALL, seed=5, streamer=streamer)
    assert streamer.values == text[0].tolist()


def test_stop_string_criteria(llama, ids):
    """generate keeps the tokenizer from a custom_generate; criteria are handed on."""

    class Fourth:
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= 9)

    assert llama.generate(ids, **SAMPLING, **CALL, seed=5, stopping_criteria=[Fourth()]).shape == (3, 9)


@pytest.mark.parametrize("options", [dict(do_sample=False), dict(do_sample=False, num_beams=3)])
@pytest.mark.parametrize("attached", [False, True])
def test_greedy_and_beam_search_are_left_alone(llama, ids, options, attached):
    stock = llama.generate(ids, **options, max_new_tokens=6)
    if attached:
        hf.attach(llama, seed=9)
    assert torch.equal(llama.generate(ids, **options, **CALL, max_new_tokens=6, seed=5), stock)


def test_beam_sampling_steps_aside(llama, ids):
    options = dict(do_sample=True, num_beams=2, max_new_tokens=6)
    torch.manual_seed(3)
    stock = llama.generate(ids, **options)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="num_beams"):
        assert torch.equal(llama.generate(ids, **options, **CALL, seed=5), stock)


def test_assisted_decoding_is_refused(llama, ids):
    for options in (dict(assistant_model=llama), dict(prompt_lookup_num_tokens=2)):
        with pytest.raises(ValueError, match="assisted_generation; use samplers"):
            llama.generate(ids[:1], **SAMPLING, **CALL, **options)


@pytest.mark.parametrize("option", [dict(top_p=1.2), dict(eta_cutoff=-1.0), dict(top_k=True)])
def test_options_out_of_range_are_refused(llama, ids, option):
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(option))} must be"):
        llama.generate(ids, **{**SAMPLING, **option}, **CALL, seed=5)


@pytest.mark.parametrize("option", [dict(seed="a"), dict(stream=[0.5]), dict(params=3), dict(backend="cuda")])
def test_arguments_are_checked(llama, ids, option):
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(option))} must be"):
        llama.generate(ids, **SAMPLING, **CALL, **option)
