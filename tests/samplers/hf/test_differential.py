"""Oracle: stock transformers. For random mixes of its sampling options, every step's kept set is the one of its
`output_scores`; what is drawn from them is distributed as its probabilities say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from samplers import hf
from samplers.goodness_of_fit import cells, chi_square_tail, pearson
from tests.conftest import examples
from tests.samplers.hf.conftest import SIZES

STEPS = 4
RETURNED = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)


def model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(LlamaConfig(**SIZES, pad_token_id=0, eos_token_id=None)).eval()
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.mul_(6)
    return llama


MODEL = model(0)


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


def number(low: float, high: float) -> st.SearchStrategy:
    return st.floats(low, high).map(lambda value: round(value, 3))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": number(0.3, 2.5),
        "top_k": st.integers(0, 300) | st.none(),
        "top_p": number(0.05, 1.0),
        "min_p": number(0.001, 0.3),
        "typical_p": number(0.1, 1.0),
        "epsilon_cutoff": number(0.001, 0.02),
        "eta_cutoff": number(0.001, 0.02),
        "repetition_penalty": number(0.7, 1.5),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.just([[5], [6, 7]]),
        "suppress_tokens": st.just([11, 12]),
        "min_new_tokens": st.integers(1, 3),
        "sequence_bias": st.just([[[9], 4.0], [[10, 11], -3.0]]),
        "renormalize_logits": st.booleans(),
        "num_return_sequences": st.integers(1, 3),
        "use_cache": st.booleans(),
    },
)


@examples(200)
@given(options=OPTIONS, prompt=st.integers(0, 2**20), seed=st.integers(0, 2**64 - 1))
def test_kept_sets_of_every_step(options, prompt, seed):
    """The tokens that we drew, fed to stock transformers step by step: its scores have the same -inf and values."""
    ids = torch.randint(3, SIZES["vocab_size"], (2, 6), generator=torch.Generator().manual_seed(prompt))
    arguments = dict(do_sample=True, max_new_tokens=STEPS, **options)
    ours = MODEL.generate(ids, **arguments, **RETURNED, custom_generate=hf.generate, seed=seed)
    lists = []
    stock = type(MODEL)._get_logits_processor.__get__(MODEL)
    MODEL._get_logits_processor = lambda *a, **k: lists.append(stock(*a, **k)) or lists[-1]
    try:
        torch.manual_seed(0)
        theirs = MODEL.generate(ids, **arguments, **RETURNED)
    finally:
        del MODEL._get_logits_processor
    assert torch.equal((theirs.scores[0] > -torch.inf), (ours.scores[0] > -torch.inf))
    for step, (logits, scores) in enumerate(zip(ours.logits, ours.scores, strict=True)):
        expected = lists[0](ours.sequences[:, : 6 + step], logits)
        assert torch.equal(scores > -torch.inf, expected > -torch.inf)
        torch.testing.assert_close(scores, expected, rtol=2e-6, atol=2e-5)
        assert (expected.gather(1, ours.sequences[:, 6 + step, None]) > -torch.inf).all()


@pytest.mark.exhaustive
def test_distribution_of_what_is_drawn():
    """χ² of 60,000 first tokens against the probabilities of stock transformers' scores."""
    llama, draws = MODEL, 2000
    ids = torch.randint(3, SIZES["vocab_size"], (1, 6), generator=torch.Generator().manual_seed(3))
    arguments = dict(do_sample=True, max_new_tokens=1, temperature=1.3, top_k=120, top_p=0.95, pad_token_id=0)
    torch.manual_seed(0)
    scores = llama.generate(ids, **arguments, **RETURNED).scores[0][0].double()
    probabilities = torch.softmax(scores, -1).numpy()
    hf.attach(llama)
    try:
        rows = ids.expand(draws, -1)
        tokens = torch.cat([llama.generate(rows, **arguments)[:, -1] for _ in range(30)])
    finally:
        hf.detach(llama)
    counts = np.bincount(tokens.numpy(), minlength=len(probabilities))
    assert counts[probabilities == 0].sum() == 0
    observed, expected = cells(counts, probabilities * counts.sum())
    assert chi_square_tail(pearson(observed, expected), len(observed) - 1) > 1e-6
