"""What all tests share: the backends that can run here, the shared data where it exists, small models to load."""

from __future__ import annotations

import gc
import os

import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import samplers
from tests.samplers import interpreter

interpreter.patch_once()
settings.register_profile("all", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("all"), max_examples=25)


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried on a quarter of their examples where the exhaustive tests are left out."""
    settings.load_profile("fast" if config.option.markexpr == "not exhaustive" else "all")


def pytest_collection_finish() -> None:
    """What is imported by now is never garbage: to look it through again and again took a twentieth of the time."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries complain at the end that their objects are still there


def examples(count: int) -> settings:
    """Decorates a property: `count` examples of it, a quarter of them in the fast suite."""
    return settings(max_examples=count * settings.default.max_examples // 100)


collect_ignore = ["serve_clients", "inside_vllm"]  # each in an environment of its own: `make test-serve`, `test-vllm`
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def working_backends() -> list[str]:
    return [name for name, state in samplers.backends().items() if state in ("ok", "interpreter")]


def require(backend: str) -> None:
    """Skips where a backend can't run; fails where ALEA_REQUIRE_NATIVE demands the extension."""
    if backend in working_backends():
        return
    reason = f"{backend}: {samplers.backends()[backend]}"
    if backend == "native" and os.environ.get("ALEA_REQUIRE_NATIVE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=["reference", "native", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    require(request.param)
    return request.param


@pytest.fixture(scope="session")
def llama2_tokenizer() -> Path:
    """Llama 2's tokenizer.model, which is no part of the project."""
    path = SHARED / "llama2" / "tokenizer.model"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def saved_llamas(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Each small Llama that tests ask for, made once."""
    folders: dict[str, Path] = {}

    def saved(**arguments: Any) -> Path:
        key = repr(sorted(arguments.items()))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("llama")
            save_llama(folders[key], **arguments)
        return folders[key]

    return saved


@pytest.fixture
def llama_folder(tmp_path: Path, saved_llamas: Callable[..., Path]) -> Callable[..., Path]:
    """Makes folders as transformers' save_pretrained writes them: small Llamas with random weights.

    Keywords go to LlamaConfig; `max_shard_size` to save_pretrained; `dtype` casts the weights first.
    """

    def make(name: str = "llama", **arguments: Any) -> Path:
        torch.manual_seed(0)
        return shutil.copytree(saved_llamas(**arguments), tmp_path / name, dirs_exist_ok=True)

    return make


def save_llama(folder: Path, max_shard_size: str = "1GB", dtype: torch.dtype = torch.float32, **config: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM  # seconds, which the process that only deals tests out saves

    sizes = dict(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        llama = LlamaForCausalLM(LlamaConfig(**(sizes | config)))
        with torch.no_grad():
            for parameter in llama.parameters():  # biases and norms too, so that no term hides behind 0 or 1
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    llama.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
