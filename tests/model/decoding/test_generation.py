"""Generation. Oracles: transformers' greedy generate, `samplers.sample` by hand, float64 log-softmax."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM, TextStreamer

import samplers
from model import Llama, Tokenizer, generate
from model.loading.weights import BUILT_IN
from samplers import SamplingParams

TOKENIZER = Tokenizer.from_pretrained()
STORYTELLER = Llama.from_pretrained()
PROMPTS = ["Once upon a time", "The king", "There was once a poor woodcutter who lived with his wife and"]
LLAMA2_SIZES = dict(vocab_size=32000, max_position_embeddings=64)


def continued(prompts=PROMPTS, **arguments):
    return generate(STORYTELLER, TOKENIZER, prompts, **arguments)


def texts(results):
    return [g.text for row in results for g in row]


def theirs(folder, ids, new_tokens, **arguments):
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    llama.generation_config = GenerationConfig()
    ids = torch.tensor([ids])
    out = llama.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, pad_token_id=0, **arguments
    )
    return out[0, ids.shape[1] :].tolist()


def test_greedy_equals_transformers_for_100_tokens():
    prompt = TOKENIZER.encode(PROMPTS[0])
    ours = continued([prompt], max_new_tokens=100, temperature=0, eos_token_id=())
    assert ours[0][0].ids == theirs(BUILT_IN, prompt, 100)


@pytest.mark.parametrize("config", [{}, {"num_key_value_heads": 2, "tie_word_embeddings": True}])
def test_greedy_equals_transformers_on_random_weights(llama_folder, config):
    folder = llama_folder(**config)
    prompt = [1, 5, 9, 11]
    ours = generate(
        Llama.from_pretrained(folder), TOKENIZER, [prompt], max_new_tokens=60, do_sample=False, eos_token_id=()
    )
    assert ours[0][0].ids == theirs(folder, prompt, 60)


def test_repetition_penalty_equals_transformers():
    prompt = TOKENIZER.encode(PROMPTS[1])
    ours = continued([prompt], max_new_tokens=40, do_sample=False, repetition_penalty=1.3, eos_token_id=())
    assert ours[0][0].ids == theirs(BUILT_IN, prompt, 40, repetition_penalty=1.3)


def test_the_same_seed_gives_the_same_text():
    a, b, c = (texts(continued(max_new_tokens=20, seed=seed)) for seed in (7, 7, 8))
    assert a == b != c
    assert len(set(a)) == 3


def test_torch_manual_seed_rules_a_missing_seed():
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(texts(continued(max_new_tokens=12)))
    assert runs[0] == runs[1] != runs[2]


def test_a_prompt_in_a_batch_gets_what_it_gets_alone():
    together = continued(max_new_tokens=40, seed=3, num_return_sequences=2)
    for number, prompt in enumerate(PROMPTS):
        for copy in range(2):
            alone = continued(prompt, max_new_tokens=40, seed=3, stream=[2 * number + copy])[0][0]
            assert alone.ids == together[number][copy].ids
            np.testing.assert_allclose(alone.logprobs, together[number][copy].logprobs, atol=1e-3)


def test_draws_are_those_of_samplers_by_hand():
    prompt = TOKENIZER.encode(PROMPTS[0])
    p = SamplingParams(temperature=1.2, top_k=40, frequency_penalty=0.5, repetition_penalty=1.1)
    arguments = {name: getattr(p, name) for name in ("temperature", "top_k", "frequency_penalty", "repetition_penalty")}
    result = continued([prompt], max_new_tokens=15, seed=11, stream=[4], top_p=1.0, eos_token_id=(), **arguments)[0][0]
    ids = list(prompt)
    for position, token in enumerate(result.ids):
        logits = STORYTELLER(torch.tensor([ids]))[:, -1]
        history = dict(history=[ids], history_start=len(prompt))
        out = samplers.sample(logits, p, seed=11, position=position, stream=[4], details=True, **history)
        assert int(out.tokens[0]) == token
        assert result.logprobs[position] == pytest.approx(float(out.logprobs[0]), abs=1e-3)
        raw = torch.log_softmax(logits.double(), dim=-1)[0, token]
        assert result.model_logprobs[position] == pytest.approx(float(raw), abs=1e-3)
        ids.append(token)


def test_sampling_defaults_come_from_the_generation_config(llama_folder):
    folder = llama_folder()
    (folder / "generation_config.json").write_text('{"do_sample": true, "top_k": 1, "eos_token_id": [4, 7]}')
    model = Llama.from_pretrained(folder)
    assert model.eos_token_ids == (4, 7)
    sampled = generate(model, TOKENIZER, [[1, 5]], max_new_tokens=20, seed=0)[0][0].ids
    assert sampled == generate(model, TOKENIZER, [[1, 5]], max_new_tokens=20, do_sample=False)[0][0].ids
    assert sampled != generate(model, TOKENIZER, [[1, 5]], max_new_tokens=20, seed=0, top_k=0)[0][0].ids


def test_an_end_token_ends():
    free = continued("The king", max_new_tokens=30, seed=1, eos_token_id=())[0][0]
    end = free.ids[9]
    ended = continued("The king", max_new_tokens=30, seed=1, eos_token_id=end)[0][0]
    assert ended.ids == free.ids[: free.ids.index(end) + 1]
    assert (ended.finish_reason, free.finish_reason) == ("eos", "length")
    assert len(ended.logprobs) == len(ended.ids) == len(ended.model_logprobs)


@pytest.mark.parametrize("width", [1, 3, 9])
def test_stop_strings_cut_the_text_at_any_place(width):
    free = continued("The king", max_new_tokens=40, seed=1, eos_token_id=())[0][0]
    for start in (5, 20, 41):
        stop = free.text[start : start + width]
        shown = []
        cut = continued(
            "The king",
            max_new_tokens=40,
            seed=1,
            eos_token_id=(),
            stop_strings=stop,
            on_text=lambda _, text, shown=shown: shown.append(text),
        )
        assert cut[0][0].text == free.text[: free.text.find(stop)] == "".join(shown)
        assert cut[0][0].finish_reason == "stop"


def test_text_is_shown_as_it_grows():
    shown = {}
    results = continued(max_new_tokens=25, seed=2, on_text=lambda n, text: shown.setdefault(n, []).append(text))
    assert ["".join(shown[n]) for n in range(3)] == texts(results)
    assert len(shown[0]) > 5


class Recorder(TextStreamer):
    """transformers' own streamer, as its users subclass it."""

    def __init__(self):
        super().__init__(tokenizer=None, skip_prompt=False)
        self.ids, self.ended = [], False

    def put(self, value):
        self.ids += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_streamer_protocol():
    streamer = Recorder()
    result = continued("The king", max_new_tokens=5, seed=2, streamer=streamer)[0][0]
    assert streamer.ids == TOKENIZER.encode("The king") + result.ids and streamer.ended


def test_lengths():
    assert [len(g[0].ids) for g in continued(max_length=30, seed=1, eos_token_id=())] == [
        30 - len(TOKENIZER.encode(p)) for p in PROMPTS
    ]
    assert len(continued("a", max_new_tokens=3, max_length=99, seed=1)[0][0].ids) == 3
    window = STORYTELLER.config.max_position_embeddings
    ids = [5] * (window - 2)
    assert len(continued([ids], seed=1, eos_token_id=())[0][0].ids) == 2


def test_without_model_logprobs():
    a, b = (continued("a", max_new_tokens=5, seed=1, model_logprobs=m)[0][0] for m in (True, False))
    assert a.ids == b.ids and len(a.model_logprobs) == 5 and b.model_logprobs == []


def test_llama2_tokenizer_on_random_weights(llama_folder, llama2_tokenizer):
    """A folder as Meta's, weights apart: transformers' save_pretrained and Llama 2's tokenizer.model."""
    folder = llama_folder(**LLAMA2_SIZES)
    (folder / "tokenizer.model").write_bytes(llama2_tokenizer.read_bytes())
    tokenizer = Tokenizer.from_pretrained(folder)
    results = generate(
        Llama.from_pretrained(folder), tokenizer, "Tell me a story about a dragon.", max_new_tokens=20, top_k=50, seed=1
    )
    assert results[0][0].text == tokenizer.decode([tokenizer.bos_id, 29889, *results[0][0].ids])[1:]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompts": []}, ValueError, "prompts must hold at least one prompt, got none"),
        ({"prompts": [[]]}, ValueError, r"prompts\[0\] must hold at least one token"),
        ({"prompts": [[1], [4096]]}, ValueError, r"prompts\[1\] must hold token ids in 0 .. 4095, got 4096"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be an integer >= 1, got 0"),
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be an integer >= 1, got 2.5"),
        (
            {"prompts": [[5] * 400], "max_new_tokens": 200},
            ValueError,
            "400 prompt tokens \\+ 200 new = 600 > 512.*shorten one of them by 88",
        ),
        ({"prompts": [[5] * 40], "max_length": 30}, ValueError, "has 40 tokens, which leaves -10 of max_length = 30"),
        ({"prompts": [[5] * 600]}, ValueError, "has 600 tokens, which leaves -88 of the model's window of 512"),
        ({"num_return_sequences": 0}, ValueError, "num_return_sequences must be an integer >= 1"),
        ({"prompts": None}, TypeError, "prompts must be a text or a list of texts or lists of ids, got NoneType"),
        ({"prompts": [1, 2, 3]}, TypeError, r"prompts\[0\] must be a text or a list of token ids, got 1"),
        ({"prompts": [[1.7]]}, TypeError, r"prompts\[0\]: a token id must be an integer, got 1.7"),
        ({"prompts": ["\ud800"]}, ValueError, "text must be valid Unicode, got a lone surrogate"),
        ({"seed": [1, 2]}, TypeError, r"seed must be an integer, got \[1, 2\]"),
        ({"do_sample": "no"}, TypeError, "do_sample must be True, False or None, got 'no'"),
        ({"eos_token_id": "</s>"}, ValueError, "eos_token_id must be a token id in 0"),
        ({"stream": 5}, TypeError, "stream must be a list of 1 integers"),
        ({"stop_strings": 5}, ValueError, "stop_strings must be non-empty strings, got 5"),
        ({"stream": [1, 2]}, ValueError, "stream must hold one number for each of 1 sequences, got 2"),
        ({"stop_strings": ["a", ""]}, ValueError, "stop_strings must be non-empty strings"),
        ({"streamer": Recorder(), "prompts": ["a", "b"]}, ValueError, "streamer must be None for more than one"),
        ({"top_p": 1.5}, ValueError, r"top_p must be in \[0, 1\], got 1.5"),
        ({"topp": 0.5}, TypeError, "unknown argument 'topp'; sampling takes temperature, top_k, top_p"),
    ],
)
def test_refused(arguments, error, message):
    given = {"prompts": ["The king"], "seed": 1} | arguments
    with pytest.raises(error, match=message):
        continued(given.pop("prompts"), **given)
