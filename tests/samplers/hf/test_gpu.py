"""On a GPU only: what generate draws there is what the reference draws from the same logits, and nothing waits."""

import pytest
import torch

import samplers
from samplers import InvalidLogits, SamplingParams, hf
from samplers.hf.chain import Chain
from samplers.hf.fused import FusedSampler
from samplers.hf.options import Options
from tests.samplers.hf.test_attach import BEHIND, PARAMS, RETURNED, SAMPLING, Broken

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_tokens_are_those_of_the_reference(llama, ids):
    model = hf.attach(llama.cuda(), seed=[5, 6, 7], stream=[1, 2, 3])
    out = model.generate(ids.cuda(), **SAMPLING, **RETURNED)
    for step, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        keys = dict(seed=[5, 6, 7], stream=[1, 2, 3], position=step)
        drawn = samplers.sample(logits.cpu(), PARAMS, **keys, backend="reference").tokens
        assert torch.equal(out.sequences[:, 5 + step].cpu(), drawn)
        assert torch.equal(scores.cpu(), samplers.filter_logits(logits.cpu(), PARAMS, backend="reference"))


def test_penalties(llama, ids):
    p = SamplingParams(repetition_penalty=1.7, frequency_penalty=0.3)
    out = hf.attach(llama.cuda(), p, seed=5).generate(ids.cuda(), do_sample=True, max_new_tokens=6, **RETURNED)
    for step, logits in enumerate(out.logits):
        text = dict(history=out.sequences[:, : 5 + step].cpu(), history_start=5)
        drawn = samplers.sample(logits.cpu(), p, seed=5, position=step, **text, backend="reference").tokens
        assert torch.equal(out.sequences[:, 5 + step].cpu(), drawn)


@pytest.mark.parametrize("scores", [False, True])
def test_a_step_waits_for_nothing(scores):
    logits = torch.randn(4, 300, device="cuda")
    texts = [torch.zeros(4, 5 + step, dtype=torch.int64, device="cuda") for step in range(3)]
    chain = Chain([], PARAMS.packed, [])
    sampler = FusedSampler(chain, Options(seed=[1, 2, 3, 4]), texts[0], None, scores)
    torch.argmax(sampler(texts[0], logits), dim=-1)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for text in texts[1:]:
            torch.argmax(sampler(text, logits), dim=-1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("steps", [3, 8])  # at the last step, and before it
def test_invalid_logits_name_the_row_and_the_step(llama, ids, steps, behind):
    hf.attach(llama.cuda(), seed=5)
    options = {**SAMPLING, **BEHIND[behind], "max_new_tokens": steps}
    with pytest.raises(InvalidLogits, match="row 1 at step 2"):
        llama.generate(ids.cuda(), **options, logits_processor=[Broken()])
