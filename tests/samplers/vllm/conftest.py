"""vLLM's interfaces as `samplers.vllm` uses them, without vLLM; `make test-vllm` has the real ones."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import Enum, auto
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


class V1LogitsProcessor(ABC):
    @abstractmethod
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None: ...
    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor: ...
    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...
    @abstractmethod
    def update_state(self, batch_update: Any) -> None: ...


class V2LogitsProcessor(ABC):
    @abstractmethod
    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor: ...


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@pytest.fixture
def sampler() -> Any:
    """A Sampler class with vLLM's signature; its own draw is the token 0."""

    class Sampler:
        logprobs_mode = "raw_logprobs"

        def sample(self, logits: Any, sampling_metadata: Any, logprobs_mode_override: Any = None) -> Any:
            return torch.zeros(len(logits), dtype=torch.int64), None

    return Sampler


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, sampler: Any) -> Iterator[ModuleType]:
    """The module `samplers.vllm.draw`, imported afresh."""
    members = {
        "vllm.v1.sample.logits_processor": {"LogitsProcessor": V1LogitsProcessor},
        "vllm.v1.sample.sampler": {"Sampler": sampler},
        "vllm.v1.worker.gpu.sample.logits_processor": {"LogitsProcessor": V2LogitsProcessor},
    }
    for name, member in members.items():
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            package = ".".join(parts[:length])
            monkeypatch.setitem(sys.modules, package, sys.modules.get(package) or ModuleType(package))
        vars(sys.modules[name]).update(member)
    yield import_module("samplers.vllm.draw")
    del sys.modules["samplers.vllm.draw"], sys.modules["samplers.vllm"].draw


def config(**model_config: Any) -> Any:
    """What `Draw` reads of a VllmConfig."""
    return SimpleNamespace(
        model_config=SimpleNamespace(seed=5, **({"logprobs_mode": "raw_logprobs"} | model_config)),
        parallel_config=SimpleNamespace(data_parallel_rank=0, data_parallel_index=0),
        watermark_config=None,
    )


def asked(**fields: Any) -> Any:
    """What `Draw` reads of vLLM's SamplingParams, with its defaults."""
    defaults = dict(n=1, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=None, extra_args=None)
    defaults |= dict(repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
    return SimpleNamespace(**(defaults | fields))


def update(removed: Any = (), added: Any = (), moved: Any = ()) -> Any:
    """vLLM's BatchUpdate; added: (row, params, output)."""
    return SimpleNamespace(
        removed=list(removed),
        added=[(row, params, [1, 2], output) for row, params, output in added],
        moved=list(moved),
    )
