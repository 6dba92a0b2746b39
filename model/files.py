"""Files that are written whole or not at all, and files that grow line by line and survive being cut off."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that holds this text already is left alone."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def append(path: Path, lines: str) -> None:
    """Add whole lines at the end, in one write."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(lines)


def whole_lines(path: Path) -> list[str]:
    """The lines that end; what follows the last end was cut off while it was written."""
    if not path.exists():
        return []
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1]]


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In which settings what is there is of another run than the one wanted, in words; "" where in none.

    >>> differences({"seed": 5, "top_p": 0.9}, {"seed": 6, "top_p": 0.9})
    'seed is 5, not 6'
    """
    changes = [
        f"{name} is {there.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]
    return "; ".join(changes)
