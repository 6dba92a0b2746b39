"""SGLang needs a GPU: here a Sampler and a batch with the fields of SGLang 0.5 stand in. Oracle: `samplers.sample`."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from samplers import SamplingParams, sample, sglang

B, V = 4, 50


class Sampler:
    """As SGLang's, without its own draw."""

    def __init__(self) -> None:
        self.output_logprob_processor = SimpleNamespace(compute_logprobs=self.compute_logprobs)
        self.synchronised: list[torch.Tensor] = []

    def _preprocess_logits(self, logits: torch.Tensor, sampling_info: Any) -> torch.Tensor:
        return logits + 0.0

    def _sync_token_ids_across_tp(self, tokens: torch.Tensor, sampling_info: Any) -> None:
        self.synchronised.append(tokens)

    def compute_logprobs(self, logprobs: torch.Tensor, top: Any, ids: Any, tokens: torch.Tensor) -> Any:
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        return SimpleNamespace(write_output_to=lambda output: setattr(output, "next_token_logprobs", chosen))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The backends that SGLang knows after its plugins are loaded."""
    found: dict[str, Any] = {}
    module = ModuleType("sglang.srt.layers.sampler")
    vars(module).update(Sampler=Sampler, register_sampler_backend=found.__setitem__)
    for name in ("sglang", "sglang.srt", "sglang.srt.layers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "sglang.srt.layers.sampler", module)
    sglang.register()
    return found


def batch(**fields: Any) -> Any:
    """Four requests: filters, greedy as SGLang writes it, a temperature, min-p."""
    columns = dict(
        temperatures=torch.tensor([[0.9], [1.0], [1.7], [1.0]]),
        top_ks=torch.tensor([20, 1, 1 << 30, 1 << 30], dtype=torch.int32),
        top_ps=torch.tensor([0.9, 1.0, 1.0, 1.0]),
        min_ps=torch.tensor([0.0, 0.0, 0.0, 0.1]),
        sampling_seed=torch.tensor([7, 8, 9, 7]),
        sampling_mask_batch_indices=None,
    )
    return SimpleNamespace(**(columns | fields))


PARAMS = [
    SamplingParams(0.9, top_k=20, top_p=0.9),
    SamplingParams(0),
    SamplingParams(1.7),
    SamplingParams(min_p=0.1),
]
POSITIONS = torch.tensor([5, 6, 7, 8])


def logits() -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(0)) * 2


def forward(sampler: Any, x: torch.Tensor, info: Any, **options: Any) -> tuple[torch.Tensor, Any]:
    output = SimpleNamespace(next_token_logits=x)
    return sampler.forward(output, info, True, [0] * B, [None] * B, POSITIONS, **options), output


def test_a_draw_is_that_of_sample(registered):
    sampler = registered["alea"]()
    assert isinstance(sampler, Sampler)
    x = logits()
    tokens, output = forward(sampler, x, batch())
    expected = sample(logits(), PARAMS, seed=[7, 8, 9, 7], stream=[0] * B, position=POSITIONS)
    assert tokens.tolist() == expected.tokens.tolist() and sampler.synchronised[0] is tokens
    assert torch.equal(x, logits()), "its own logits are only read"
    scaled = torch.log_softmax(x / torch.tensor([[0.9], [1.0], [1.7], [1.0]]), -1)
    assert torch.equal(output.next_token_logprobs, scaled.gather(1, tokens[:, None])[:, 0])


def test_parameters_are_read_again_only_after_a_change(registered):
    sampler, info = registered["alea"](), batch()
    forward(sampler, logits(), info)
    packed = sampler.params
    forward(sampler, logits(), info)
    assert sampler.params is packed
    info.top_ps = torch.full((B,), 0.5)
    forward(sampler, logits(), info)
    assert [p.top_p for p in sampler.params.params] == [0.5, 1.0, 0.5, 0.5]


def test_without_seeds_torch_s_generator_decides(registered):
    sampler, info = registered["alea"](), batch(sampling_seed=None)
    torch.manual_seed(1)
    first, again = forward(sampler, logits(), info)[0], forward(sampler, logits(), info)[0]
    torch.manual_seed(1)
    assert torch.equal(forward(sampler, logits(), info)[0], first) and not torch.equal(first, again)


def test_an_invalid_row_gets_token_0(registered):
    sampler, x = registered["alea"](), logits()
    x[2, 5] = math.nan
    tokens, _ = forward(sampler, x, batch())
    assert tokens[2] == 0 and sampler.invalid.count == 1


@pytest.mark.parametrize("what", ["mask", "watermark"])
def test_what_needs_sglang_s_own_draw_is_refused(registered, what):
    info = batch(sampling_mask_batch_indices=torch.tensor([0])) if what == "mask" else batch()
    options = {"logprob_logits": logits()} if what == "watermark" else {}
    with pytest.raises(ValueError, match="sampling_backend must not be 'alea' with watermarks or return_sampling_mask"):
        forward(registered["alea"](), logits(), info, **options)
