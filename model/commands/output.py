"""The option that names what a command writes, and the one that lets it replace what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model import files


def add_output_argument(parser: Any, *names: str, replaced: str, **options: Any) -> None:
    """replaced: what --overwrite replaces, for its help."""
    parser.add_argument(*names, type=Path, **options)
    parser.add_argument("--overwrite", action="store_true", help=f"replace {replaced}; default: refuse")


def check_output(path: Path | None, option: str, overwrite: bool) -> None:
    """Before the work. Raises: as `files.check`; ValueError for --overwrite without the option."""
    if path is not None:
        files.check(path, option, overwrite)
    elif overwrite:
        raise ValueError(f"--overwrite is of {option}, and needs it")
