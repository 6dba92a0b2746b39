"""Oracle: the server's own OpenAPI document. schemathesis draws requests that fit it, and some that don't."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_every_route_does_what_its_document_says(url: str, tmp_path: Path):
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
    done = subprocess.run(
        [*command, f"{url}/openapi.json"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
