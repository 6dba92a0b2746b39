"""Oracles: `samplers.sample` by hand on the logits that generate returns; stock transformers for everything that the
engine has no part in."""

import copy
import pickle
import subprocess
import sys
import threading
import warnings

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    LogitsProcessor,
    StoppingCriteria,
    SynthIDTextWatermarkingConfig,
    TextIteratorStreamer,
    WatermarkingConfig,
    pipeline,
)

import samplers
from model.loading.weights import BUILT_IN
from samplers import InvalidLogits, SamplingParams, hf

PARAMS = SamplingParams(temperature=0.7, top_k=40, top_p=0.9)
STEPS = 8
SAMPLING = dict(do_sample=True, temperature=0.7, top_k=40, top_p=0.9, max_new_tokens=STEPS)
RETURNED = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)


@pytest.fixture(autouse=True)
def no_warnings():
    """Stepping aside warns, and no test may do so without saying so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="module")
def storyteller():
    return AutoModelForCausalLM.from_pretrained(BUILT_IN), AutoTokenizer.from_pretrained(BUILT_IN)


def drawn_by_hand(logits, params, **keys) -> torch.Tensor:
    """int64 [B, steps] of the logits of all steps."""
    columns = [samplers.sample(x, params, position=step, **keys).tokens for step, x in enumerate(logits)]
    return torch.stack(columns, dim=1)


def test_tokens_scores_and_logits(llama, ids):
    hf.attach(llama, seed=5)
    out = llama.generate(ids, **SAMPLING, **RETURNED)
    assert torch.equal(out.sequences[:, :5], ids)
    assert torch.equal(out.sequences[:, 5:], drawn_by_hand(out.logits, PARAMS, seed=5))
    for logits, scores in zip(out.logits, out.scores, strict=True):
        assert type(scores) is type(logits) is torch.Tensor
        assert torch.equal(scores, samplers.filter_logits(logits, PARAMS))
        assert scores.data_ptr() != logits.data_ptr() and logits.isfinite().all()
    assert torch.equal(llama.generate(ids, **SAMPLING), out.sequences)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_backends_give_the_same_text(llama, ids, backend):
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    assert torch.equal(hf.attach(llama, seed=5, backend=backend).generate(ids, **SAMPLING), expected)


def test_logits_stay_as_they_were(llama, ids):
    stock = llama.generate(ids, do_sample=False, max_new_tokens=1, **RETURNED).logits[0]
    assert torch.equal(hf.attach(llama, seed=1).generate(ids, **SAMPLING, **RETURNED).logits[0], stock)


def test_detached_is_as_before(llama, ids):
    kind, state = type(llama), set(vars(llama))
    torch.manual_seed(3)
    stock = llama.generate(ids, **SAMPLING)
    assert hf.detach(hf.attach(llama, seed=1)) is llama
    assert type(llama) is kind and set(vars(llama)) == state
    torch.manual_seed(3)
    assert torch.equal(llama.generate(ids, **SAMPLING), stock)
    assert hf.detach(llama) is llama


def test_attached_again_replaces_the_options(llama, ids):
    first = hf.attach(llama, seed=1).generate(ids, **SAMPLING)
    assert not torch.equal(hf.attach(llama, seed=2).generate(ids, **SAMPLING), first)
    assert torch.equal(hf.attach(llama, seed=1).generate(ids, **SAMPLING), first)
    assert type(hf.detach(llama)).__mro__[0] is transformers.LlamaForCausalLM


@pytest.mark.parametrize("seeded", [torch.manual_seed, transformers.set_seed])
def test_without_a_seed_torch_rules(llama, ids, seeded):
    hf.attach(llama)
    texts = []
    for _ in range(2):
        seeded(11)
        texts.append([llama.generate(ids, **SAMPLING) for _ in range(2)])
    assert torch.equal(texts[0][0], texts[1][0]) and torch.equal(texts[0][1], texts[1][1])
    assert not torch.equal(texts[0][0], texts[0][1])


def test_rows_with_their_own_parameters_seeds_and_streams(llama, ids):
    params = [SamplingParams(temperature=0.5), SamplingParams(top_k=3), SamplingParams(top_p=0.5, min_p=0.01)]
    seeds, streams = [7, 2**64 - 1, -3], torch.tensor([100, 5, 2**40])
    hf.attach(llama, params, seed=seeds, stream=streams)
    out = llama.generate(ids, do_sample=True, max_new_tokens=STEPS, **RETURNED)
    assert torch.equal(out.sequences[:, 5:], drawn_by_hand(out.logits, params, seed=seeds, stream=streams))
    for logits, scores in zip(out.logits, out.scores, strict=True):
        assert torch.equal(scores, samplers.filter_logits(logits, params))


def test_a_row_keeps_its_text_in_any_batch(llama, ids):
    whole = hf.attach(llama, seed=5, stream=[10, 20, 30]).generate(ids, **SAMPLING)
    turned = hf.attach(llama, seed=5, stream=[30, 20, 10]).generate(ids.flip(0), **SAMPLING)
    alone = hf.attach(llama, seed=5, stream=[20]).generate(ids[1:2], **SAMPLING)
    assert torch.equal(whole, turned.flip(0)) and torch.equal(whole[1:2], alone)


def test_penalties_of_params_count_the_text_without_padding(llama, ids):
    ids[0, :2] = 0
    mask = (ids != 0).long()
    p = SamplingParams(repetition_penalty=1.7, presence_penalty=0.5, frequency_penalty=0.3, logit_bias={7: 2.0})
    out = hf.attach(llama, p, seed=5).generate(ids, attention_mask=mask, do_sample=True, max_new_tokens=6, **RETURNED)
    for step, logits in enumerate(out.logits):
        history = out.sequences[:, : 5 + step].clone()
        history[0, :2] = -1
        drawn = samplers.sample(logits, p, seed=5, position=step, history=history, history_start=5)
        assert torch.equal(drawn.tokens, out.sequences[:, 5 + step])
        assert torch.equal(out.scores[step], samplers.filter_logits(logits, p, history=history, history_start=5))


def test_padded_on_the_left(llama, ids):
    """As stock: the scores of a padded row are those of the row alone."""
    alone = hf.attach(llama, seed=5, stream=[9]).generate(ids[:1, 2:], **SAMPLING)
    ids[0, :2] = 0
    batch = hf.attach(llama, seed=5, stream=[9, 1, 2]).generate(ids, attention_mask=(ids != 0).long(), **SAMPLING)
    assert torch.equal(batch[:1, 2:], alone)


def test_returned_sequences_have_their_own_streams(llama, ids):
    hf.attach(llama, seed=5)
    out = llama.generate(ids, **SAMPLING, num_return_sequences=4, **RETURNED)
    assert torch.equal(out.sequences[:, 5:], drawn_by_hand(out.logits, PARAMS, seed=5))
    assert len(out.sequences.unique(dim=0)) == 12


class Banned(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.arange(0, scores.shape[1], 2), -torch.inf)


OPTIONS = {
    "penalties": dict(repetition_penalty=1.3, no_repeat_ngram_size=2),
    "bad words": dict(bad_words_ids=[[5], [7, 8]], suppress_tokens=[9], min_new_tokens=3),
    "a user's own": dict(logits_processor=[Banned()]),
    "a user's own warper": dict(logits_processor=[transformers.TopKLogitsWarper(5)]),
    "normalised": dict(renormalize_logits=True),
    "bias": dict(sequence_bias=[[[5], 3.0]]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_other_processors_keep_their_place_and_effect(llama, ids, name):
    """Fed with our text, stock transformers' list gives the scores that we return."""
    seen = []
    stock = llama._get_logits_processor

    def recording(*arguments, **kwargs):
        seen.append(stock(*arguments, **kwargs))
        return seen[-1]

    hf.attach(llama, seed=5)
    llama._get_logits_processor = recording
    out = llama.generate(ids, **SAMPLING, **RETURNED, **OPTIONS[name])
    assert torch.equal(llama.generate(ids, **SAMPLING, **OPTIONS[name]), out.sequences)
    for step, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        theirs = seen[0](out.sequences[:, : 5 + step], logits)
        torch.testing.assert_close(scores, theirs, rtol=1e-5, atol=1e-5)
        token = out.sequences[:, 5 + step]
        assert (theirs.gather(1, token[:, None]) > -torch.inf).all()


def test_a_processor_behind_the_warpers_changes_the_distribution(llama, ids):
    """A watermark so strong that it decides: every token drawn is one that it favours among those kept."""
    watermark = WatermarkingConfig(bias=50.0, greenlist_ratio=0.5)
    hf.attach(llama, seed=5)
    out = llama.generate(ids, **SAMPLING, **RETURNED, watermarking_config=watermark)
    assert torch.equal(llama.generate(ids, **SAMPLING, watermarking_config=watermark), out.sequences)
    processor = watermark.construct_processor(llama.config.vocab_size, "cpu")
    for step, logits in enumerate(out.logits):
        kept = samplers.filter_logits(logits, PARAMS)
        favoured = processor(out.sequences[:, : 5 + step], kept)
        torch.testing.assert_close(out.scores[step], favoured)
        drawn = samplers.sample(favoured, seed=5, position=step).tokens
        assert torch.equal(out.sequences[:, 5 + step], drawn)


def test_other_caches(llama, ids):
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    assert torch.equal(llama.generate(ids, **SAMPLING, cache_implementation="static"), expected)
    assert torch.equal(llama.generate(ids, **SAMPLING, use_cache=False), expected)


@pytest.mark.skipif(transformers.__version__.startswith("5.0."), reason="transformers 5.0 refuses it without us too")
def test_prefill_in_chunks(llama, ids):
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    assert torch.equal(llama.generate(ids, **SAMPLING, prefill_chunk_size=2), expected)


@pytest.mark.exhaustive
def test_behind_torch_compile(llama, ids):
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    hf.detach(llama)
    compiled = torch.compile(llama, backend="eager")
    assert hf.attach(compiled, seed=5) is compiled
    assert torch.equal(compiled.generate(ids, **SAMPLING), expected)
    llama.forward = torch.compile(llama.forward, backend="eager")
    assert torch.equal(llama.generate(ids, **SAMPLING), expected)


class Ids:
    """What a streamer is given."""

    def __init__(self):
        self.values, self.ended = [], False

    def put(self, value):
        self.values += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_streamer(llama, ids):
    streamer = Ids()
    text = hf.attach(llama, seed=5).generate(ids[:1], **SAMPLING, streamer=streamer)
    assert streamer.values == text[0].tolist() and streamer.ended


def test_text_iterator_streamer(storyteller):
    model, tokenizer = storyteller
    hf.attach(model, seed=5)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    arguments = dict(inputs, do_sample=True, max_new_tokens=12, streamer=streamer)
    thread = threading.Thread(target=model.generate, kwargs=arguments)
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    ids = model.generate(**{**arguments, "streamer": None})
    assert streamed == tokenizer.decode(ids[0, inputs.input_ids.shape[1] :])


def test_stop_strings(storyteller):
    model, tokenizer = storyteller
    hf.attach(model, seed=5)
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    whole = model.generate(**inputs, do_sample=True, max_new_tokens=60)[0]
    stopped = model.generate(**inputs, do_sample=True, max_new_tokens=60, stop_strings=["the"], tokenizer=tokenizer)[0]
    assert torch.equal(stopped, whole[: len(stopped)]) and len(stopped) < len(whole)
    assert "the" in tokenizer.decode(stopped) and "the" not in tokenizer.decode(stopped[:-1])


def test_pipeline(storyteller, caplog):
    model, tokenizer = storyteller
    hf.attach(model, seed=5)
    teller = pipeline("text-generation", model=model, tokenizer=tokenizer)
    one, two = (teller("The king", max_new_tokens=8, do_sample=True, num_return_sequences=2) for _ in range(2))
    assert one == two and one[0] != one[1]
    assert "not supported" not in caplog.text


def test_stopping_criteria_see_the_scores(llama, ids):
    class Confident(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            probabilities = torch.softmax(scores[-1], -1)
            assert type(probabilities) is torch.Tensor
            return probabilities.amax(-1) > 2

    hf.attach(llama, seed=5)
    out = llama.generate(ids, **SAMPLING, **RETURNED, stopping_criteria=[Confident()])
    assert torch.equal(out.sequences, llama.generate(ids, **SAMPLING))


def test_transition_scores(llama, ids):
    out = hf.attach(llama, seed=5).generate(ids, **SAMPLING, **RETURNED)
    ours = llama.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    for step, logits in enumerate(out.logits):
        expected = samplers.sample(logits, PARAMS, seed=5, position=step).logprobs
        torch.testing.assert_close(ours[:, step], expected, rtol=0, atol=1e-5)


def test_encoder_and_decoder(ids):
    torch.manual_seed(0)
    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    config = BartConfig(vocab_size=300, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    config.forced_eos_token_id = None
    bart = hf.attach(BartForConditionalGeneration(config).eval(), seed=5)
    out = bart.generate(ids, do_sample=True, top_p=0.9, top_k=0, max_new_tokens=6, num_beams=1, **RETURNED)
    drawn = drawn_by_hand(out.logits, SamplingParams(top_p=0.9), seed=5)
    assert torch.equal(out.sequences[:, 1:], drawn)


def test_embeddings_instead_of_ids(llama, ids):
    embeddings = llama.get_input_embeddings()(ids)
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    assert torch.equal(llama.generate(inputs_embeds=embeddings, **SAMPLING), expected[:, 5:])


@pytest.mark.parametrize("params", [None, SamplingParams(top_k=7), [SamplingParams(top_k=k) for k in (7, 8, 9)]])
def test_pickled_and_copied(llama, ids, params):
    options = dict(do_sample=True, max_new_tokens=STEPS)
    expected = hf.attach(llama, params, seed=5).generate(ids, **options)
    for other in (pickle.loads(pickle.dumps(llama)), copy.deepcopy(llama)):
        assert torch.equal(other.generate(ids, **options), expected)
        assert type(hf.detach(other)) is transformers.LlamaForCausalLM


SECOND = {
    "the constructor": lambda kind, llama, folder: kind(llama.config),
    "_from_config": lambda kind, llama, folder: kind._from_config(llama.config),
    "from_pretrained": lambda kind, llama, folder: kind.from_pretrained(folder),
}


@pytest.mark.parametrize("way", SECOND)
def test_a_second_model_of_the_class_is_not_attached(llama, ids, tmp_path, way):
    llama.save_pretrained(tmp_path)
    second = SECOND[way](type(hf.attach(llama, seed=5)), llama, tmp_path).eval()
    stock = copy.deepcopy(llama)
    stock.load_state_dict(second.state_dict())
    hf.detach(stock)
    for options in (SAMPLING, dict(SAMPLING, top_h=0.5), dict(max_new_tokens=STEPS), dict(SAMPLING, num_beams=2)):
        texts = []
        for model in (stock, second, copy.deepcopy(second)):
            torch.manual_seed(3)
            texts.append(model.generate(ids, **options))
        assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])
    assert type(hf.detach(second)) is transformers.LlamaForCausalLM


def test_saved_as_before(llama, tmp_path):
    hf.attach(llama, seed=5).save_pretrained(tmp_path)
    assert '"LlamaForCausalLM"' in (tmp_path / "config.json").read_text()
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is transformers.LlamaForCausalLM


# What the engine has no part in.


def test_greedy_and_beam_search_are_left_alone(llama, ids):
    for options in (dict(do_sample=False), dict(do_sample=False, num_beams=3)):
        stock = llama.generate(ids, **options, max_new_tokens=6)
        assert torch.equal(hf.attach(llama, seed=5).generate(ids, **options, max_new_tokens=6), stock)
        hf.detach(llama)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(top_h=0.5), "top_h"),
        (dict(num_beams=2), "num_beams"),
        (dict(prompt_lookup_num_tokens=2), "assistant"),
    ],
)
def test_steps_aside_with_a_warning_that_names_the_reason(llama, ids, options, named):
    options = dict(do_sample=True, max_new_tokens=6, **options)
    torch.manual_seed(3)
    stock = llama.generate(ids[:1], **options)
    hf.attach(llama, seed=5)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match=named) as caught:
        assert torch.equal(llama.generate(ids[:1], **options), stock)
    assert caught[0].filename == __file__


def test_assisted_decoding_is_left_to_transformers(llama, ids):
    """Also where the assistant is attached: its drafts are part of transformers' speculative decoding."""
    assistant = copy.deepcopy(llama)
    options = dict(do_sample=True, max_new_tokens=10, temperature=0.7, assistant_model=assistant)
    torch.manual_seed(3)
    stock = llama.generate(ids[:1], **options)
    hf.attach(llama, seed=5)
    hf.attach(assistant, seed=5)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="assistant"):
        assert torch.equal(llama.generate(ids[:1], **options), stock)


def test_unknown_processors_at_the_end_of_the_list(llama, ids):
    """A later transformers may end its list otherwise; then what it built is what runs."""
    hf.attach(llama, seed=5)
    stock = llama._get_logits_processor
    llama._get_logits_processor = lambda *a, **k: transformers.LogitsProcessorList([*stock(*a, **k), Banned()])
    with pytest.warns(UserWarning, match="Banned"):
        text = llama.generate(ids, do_sample=True, temperature=0.9, top_k=0, max_new_tokens=STEPS)
    assert (text[:, 5:] % 2 == 1).all()


class OwnLoop(transformers.LlamaForCausalLM):
    def _sample(self, input_ids, **kwargs):
        return super()._sample(input_ids, **kwargs)


def test_a_decoding_loop_of_its_own_is_left_alone(llama, ids):
    """Such models (of speech, mostly) choose tokens in ways that are not known here."""
    torch.manual_seed(3)
    stock = llama.generate(ids, **SAMPLING)
    llama.__class__ = OwnLoop
    hf.attach(llama, seed=5)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="OwnLoop has a decoding loop of its own"):
        assert torch.equal(llama.generate(ids, **SAMPLING), stock)
    assert type(hf.detach(llama)) is OwnLoop


class Adapted(torch.nn.Module):
    """As PEFT wraps a model: its generate is the inner model's."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def get_base_model(self):
        return self.inner

    def generate(self, *arguments, **kwargs):
        return self.inner.generate(*arguments, **kwargs)


def test_within_an_adapter(llama, ids):
    expected = hf.attach(llama, seed=5).generate(ids, **SAMPLING)
    adapted = Adapted(hf.detach(llama))
    assert hf.attach(adapted, seed=5) is adapted
    assert torch.equal(adapted.generate(ids, **SAMPLING), expected)
    assert type(hf.detach(adapted)) is Adapted and type(llama) is transformers.LlamaForCausalLM


def test_params_stand_in_for_options_with_a_warning(llama, ids):
    """For those of the call; the model's own defaults are what params are given to replace."""
    hf.attach(llama, SamplingParams(top_k=1), seed=5)
    llama.generation_config.top_p = 0.3
    greedy = hf.detach(copy.deepcopy(llama)).generate(ids, do_sample=False, max_new_tokens=STEPS)
    with pytest.warns(UserWarning, match=r"temperature=0\.7, top_k=40, top_p=0\.9"):
        assert torch.equal(llama.generate(ids, **SAMPLING), greedy)
    assert torch.equal(llama.generate(ids, do_sample=True, max_new_tokens=STEPS), greedy)


# Errors.


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(temperature=0.0), r"temperature must be in \[1e-6, 1e6\], got 0.0"),
        (dict(temperature=-1.0), "temperature must be .*got -1.0"),
        (dict(temperature=1e-45), "temperature must be"),
        (dict(top_p=1.2), r"top_p must be in \[0, 1\], got 1.2"),
        (dict(top_p=float("nan")), "top_p must be .*got nan"),
        (dict(top_k=True), "top_k must be an integer >= 0, got True"),
        (dict(top_k=-1), "top_k must be an integer >= 0, got -1"),
        (dict(min_p=1.5), "min_p must be"),
        (dict(typical_p=0.0), "typical_p must be"),
        (dict(epsilon_cutoff=1.5), "epsilon_cutoff must be"),
        (dict(eta_cutoff=-1.0), "eta_cutoff must be"),
    ],
)
def test_options_out_of_range_are_refused(llama, ids, option, message):
    hf.attach(llama, seed=5)
    with pytest.raises((ValueError, TypeError), match=message):
        llama.generate(ids, **{**SAMPLING, **option})


class Broken(LogitsProcessor):
    """Row 1 is invalid at the third step."""

    def __init__(self, value=torch.nan):
        self.value = value

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        if input_ids.shape[1] == 5 + 2:
            scores[1] = self.value
        return scores


BEHIND = {  # what makes the fused call filter before it draws
    "nothing": {},
    "scores": RETURNED,
    "watermark": dict(watermarking_config=WatermarkingConfig()),
    "SynthID": dict(watermarking_config=SynthIDTextWatermarkingConfig(keys=[1, 2, 3], ngram_len=3)),
    "normalised": dict(renormalize_logits=True, **RETURNED),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("behind", BEHIND)
def test_invalid_logits_name_the_row_and_the_step(llama, ids, behind, value):
    hf.attach(llama, seed=5)
    with pytest.raises(InvalidLogits, match=r"row 1 at step 2") as caught:
        llama.generate(ids, **SAMPLING, **BEHIND[behind], logits_processor=[Broken(value)])
    assert caught.value.rows == [1] and caught.value.step == 2
    assert pickle.loads(pickle.dumps(caught.value)).step == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(seed="a"), TypeError, "seed must be"),
        (dict(seed=1.5), TypeError, "seed must be"),
        (dict(stream=[0.5]), TypeError, "stream must be"),
        (dict(params=3), TypeError, "params must be"),
        (dict(backend="cuda"), ValueError, "backend must be"),
    ],
)
def test_arguments_are_checked_when_attached(llama, arguments, error, message):
    with pytest.raises(error, match=message):
        hf.attach(llama, **arguments)
    assert type(llama) is transformers.LlamaForCausalLM


@pytest.mark.parametrize("name", ["params", "seed", "stream"])
def test_one_or_one_a_row(llama, ids, name):
    values = [SamplingParams()] * 2 if name == "params" else [1, 2]
    hf.attach(llama, **{"seed": 0, name: values})
    with pytest.raises(ValueError, match=f"{name} must be"):
        llama.generate(ids, do_sample=True, max_new_tokens=2)


def test_only_models_that_generate():
    with pytest.raises(TypeError, match="model must be a transformers model with generate, got Linear"):
        hf.attach(torch.nn.Linear(2, 2))


@pytest.mark.exhaustive
def test_transformers_is_imported_only_where_it_is_asked_for():
    code = "import samplers, sys; assert 'transformers' not in sys.modules; samplers.hf.attach; samplers.no_such_name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'samplers' has no attribute 'no_such_name'" in done.stderr


@pytest.mark.exhaustive
def test_without_transformers_the_error_says_what_to_install():
    code = "import sys; sys.modules['transformers'] = None; import samplers; samplers.hf"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "samplers.hf needs transformers 5: pip install 'alea-sampling[transformers]'" in done.stderr
