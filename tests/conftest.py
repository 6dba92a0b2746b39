"""What all tests share: the backends that can run here, the shared data where it exists, small models to load."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import samplers

settings.register_profile("alea", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("alea")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def working_backends() -> list[str]:
    return [name for name, state in samplers.backends().items() if state in ("ok", "interpreter")]


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn; a missing one skips, unless ALEA_REQUIRE_NATIVE demands it."""
    if request.param in working_backends():
        return request.param
    reason = f"{request.param}: {samplers.backends()[request.param]}"
    if request.param == "native" and os.environ.get("ALEA_REQUIRE_NATIVE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def llama2_tokenizer() -> Path:
    """Llama 2's tokenizer.model, which is no part of the project."""
    path = SHARED / "llama2" / "tokenizer.model"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path
