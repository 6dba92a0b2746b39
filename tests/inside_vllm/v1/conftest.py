"""Engines that run vLLM's V1 model runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engines import new_engine
from vllm import LLM


@pytest.fixture(scope="session")
def engine() -> Callable[..., LLM]:
    """Starts an engine with the given options. It lives on: the end of one takes vLLM's process groups from all."""
    engines = []

    def start(**options: Any) -> LLM:
        engines.append(new_engine(**options))
        return engines[-1]

    return start


@pytest.fixture(scope="session")
def llm(engine: Callable[..., LLM]) -> LLM:
    """The engine that most tests share: float32, 64 requests at a time."""
    return engine(max_num_seqs=64)
