"""On a GPU no step of either model runner waits for the host. Oracle: the same requests on the CPU.

Skipped without a GPU; `bench/gpu.sh` runs it on one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.samplers.vllm.conftest import asked, config, update
from tests.samplers.vllm.test_draw import REQUESTS, context, expected, logits, metadata

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")
GPU = torch.device("cuda")


@pytest.fixture
def unsynchronised():
    """A call that waits for the GPU is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs", "processed_logits"])
def test_v1(draw, sampler, unsynchronised, mode):
    processor = draw.Draw(config(), GPU, True)
    processor.update_state(update(added=[(row, p, output) for row, (p, output) in enumerate(REQUESTS)]))
    x, data = logits().to(GPU), metadata(processor, max_num_logprobs=2)
    sampler().sample(x, data, mode)  # compiles the kernels
    processor.update_state(update(added=[(0, *REQUESTS[0])]))
    unsynchronised()
    tokens, _ = sampler().sample(x, data, mode)
    torch.cuda.set_sync_debug_mode("default")
    assert tokens.tolist() == expected(logits())


@pytest.mark.parametrize("min_p", [0.0, 0.01])
def test_v2(draw, unsynchronised, min_p):
    """With min-p before top-p, and without."""
    prompt_len = SimpleNamespace(gpu=torch.tensor([2, 3], dtype=torch.int32, device=GPU))
    request = asked(temperature=0.9, top_p=0.9, min_p=min_p, seed=1)
    found: list[Any] = []
    for device in (GPU, torch.device("cpu")):
        lengths = SimpleNamespace(gpu=prompt_len.gpu.to(device))
        processor = draw.Draw(config(), SimpleNamespace(device=device, max_num_reqs=2, prompt_len=lengths))
        processor.add_request(1, request)
        where = context([1, 1], [6, 7])
        where.expanded_idx_mapping, where.pos = where.expanded_idx_mapping.to(device), where.pos.to(device)
        x = logits(2).to(device)
        processor.apply(x.clone(), where)
        if device == GPU:
            unsynchronised()
        rows = processor.apply(x, where)
        torch.cuda.set_sync_debug_mode("default")
        found.append(rows.argmax(1).tolist())
    assert found[0] == found[1]
