"""Safe handling of untrusted input: paths, JSON files, and names or values in messages."""

from __future__ import annotations

import json
import os
import reprlib
import stat
from pathlib import Path
from typing import Any

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlevel = 2


def shown(value: Any) -> str:
    r"""A name or value for a message: a short `repr`, without control characters that a terminal would obey.

    >>> shown("evil\x1b[31m.weight"), len(shown("x" * 5000))
    ("'evil\\x1b[31m.weight'", 100)
    """
    return _SHORT.repr(value)


def is_there(path: Path) -> bool:
    """Whether the name exists, even as a broken link."""
    return os.path.lexists(path)


def require_file(path: Path, hint: str = "") -> Path:
    """The path, if it is a file.

    Raises: FileNotFoundError with the hint if it does not exist; ValueError if it is no file.
    """
    if not is_there(path):
        raise FileNotFoundError(f"{path}: no such file{hint}")
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got {kind(path)}")
    return path


def kind(path: Path) -> str:
    """The kind of a path that is no file."""
    try:
        return KINDS[stat.S_IFMT(path.stat().st_mode)]
    except OSError:  # a broken link, or a link to itself
        return "a link that leads to no file"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ValueError naming the file if it holds no object."""
    require_file(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(raw).__name__}")
    return raw


def optional_json(path: Path) -> dict[str, Any]:
    """The same, {} if the file is missing."""
    return read_json(path) if is_there(path) else {}
