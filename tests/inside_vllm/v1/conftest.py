"""Engines that run vLLM's V1 model runner."""

import pytest
from engines import new_engine
from vllm import LLM


@pytest.fixture(scope="session")
def llm() -> LLM:
    """The engine that most tests share: float32, 64 requests at a time."""
    return new_engine(max_num_seqs=64)
