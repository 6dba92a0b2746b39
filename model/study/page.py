"""Builds a web page as one file that loads nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
STEP_SCRIPTS = (  # what shows a step, in the order in which they use each other
    "engine",
    "elements",
    "words",
    "steps",
    "strip",
    "entropy_chart",
    "controls",
    "comparison",
    "stages",
    "top_p_chart",
    "candidates",
    "step_view",
    "keys",
)
MARK = re.compile(r"\{\{ ([\w.]+) \}\}")


def part(name: str) -> str:
    """The text of a file in `assets/`."""
    return (ASSETS / name).read_text(encoding="utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """The page of this name with each `{{ mark }}` filled. One pass: a token's text is never read as a mark."""
    return MARK.sub(lambda mark: values[mark[1]], part(name))


def step_parts(*scripts: str) -> dict[str, str]:
    """The marks of a page that shows steps. scripts: its own, after those of a step."""
    joined = "\n".join(part(f"{name}.js") for name in (*STEP_SCRIPTS, *scripts))
    return {"page.css": part("page.css"), "step.html": part("step.html"), "scripts": joined}
