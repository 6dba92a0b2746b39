"""A page for a browser, one file without network: how it is put together and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from model import files

PARTS = Path(__file__).parent / "report"
MARK = re.compile(r"\{\{ ([\w.]+) \}\}")


def part(name: str) -> str:
    """A file of `report/`."""
    return (PARTS / name).read_text(encoding="utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """The page of this name with each `{{ mark }}` filled, in one pass, so that no token text is taken for a mark."""
    return MARK.sub(lambda mark: values[mark[1]], part(name))


def put(path: Path, page: str) -> None:
    """Write a page, whole or not at all. Raises: FileNotFoundError, IsADirectoryError with the path."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; the report {path.name} needs one that exists")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; the report needs the name of a file")
    files.replace(path, page)
