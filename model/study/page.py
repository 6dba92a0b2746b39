"""Builds a web page as one file that needs no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
MARK = re.compile(r"\{\{ ([\w.]+) \}\}")


def part(name: str) -> str:
    """The text of a file in `assets/`."""
    return (ASSETS / name).read_text(encoding="utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """The page of this name with each `{{ mark }}` filled. One pass: a token's text is never read as a mark."""
    return MARK.sub(lambda mark: values[mark[1]], part(name))
