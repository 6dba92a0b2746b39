"""The option for a command's output file, and --overwrite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model import files


def add_output_argument(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, replaced: str, **options: Any
) -> None:
    """replaced: of --overwrite, for its help."""
    parser.add_argument(*names, type=Path, **options)
    parser.add_argument("--overwrite", action="store_true", help=f"replace {replaced}; default: refuse")


def check_output(path: Path | None, option: str, overwrite: bool) -> None:
    """Call it before the work. Raises: as `files.check`; ValueError for --overwrite without the option."""
    if path is not None:
        files.check(path, option, overwrite)
    elif overwrite:
        raise ValueError(f"--overwrite needs {option}")
