"""openai's client for node: client.test.mjs, run by node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_openais_client_for_node(url: str):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (HERE / "node_modules/openai").is_dir():
        pytest.skip("openai's client for node is not installed: npm was missing when .venv-serve was made")
    done = subprocess.run(
        [node, "--test", "client.test.mjs"],
        cwd=HERE,
        env={**os.environ, "ALEA_URL": url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout and "# pass 0" not in done.stdout, done.stdout
