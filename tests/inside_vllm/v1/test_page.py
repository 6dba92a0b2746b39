"""docs/scale.md is true. Oracle: the page, which shows what its code prints."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from engines import ENGINES, ROOT

CHAPTER = (ROOT / "docs/scale.md").read_text(encoding="utf-8").split("\n## ")[1]
SHOWN = re.search(r"```text\n(.*?)```", CHAPTER, re.DOTALL)[1].splitlines()


def test_the_code_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", CHAPTER, re.DOTALL)[1], names)
    ENGINES.append(names["llm"])  # it must live on, see `new_engine`
    printed = capsys.readouterr().out.splitlines()
    assert printed[-len(SHOWN) :] == SHOWN


def test_the_request_over_http_gets_the_same_text(server: httpx.Client):
    """Its stream is that of the second text above."""
    body = json.loads(re.search(r"-d '(.*)'", CHAPTER)[1])
    assert body["prompt"] + server.post("/v1/completions", json=body).json()["choices"][0]["text"] == SHOWN[1]
