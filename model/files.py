"""Files that are written whole or not at all, and files that grow line by line and survive being cut off."""

from __future__ import annotations

import os
from pathlib import Path


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
