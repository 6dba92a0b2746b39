"""Engines that run vLLM's V2 model runner, which is made of Triton kernels, on a CPU: Triton interprets them."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}

import triton.backends

assert "vllm" not in sys.modules, "these tests need a process of their own"
triton.backends.backends["cpu"] = SimpleNamespace(
    driver=SimpleNamespace(is_active=lambda: True)
)  # or vLLM does without

import pytest
from engines import new_engine
from vllm import LLM
from vllm.v1.sample.ops import topk_topp_sampler

topk_topp_sampler.HAS_TRITON = False  # this kernel can't be interpreted


@pytest.fixture(scope="session")
def llm() -> LLM:
    """The engine that all tests but those of speculation share."""
    return new_engine(max_model_len=128, max_num_seqs=4)
