"""Compiles C++ with the address and undefined-behaviour sanitizers, as setup.py compiles it otherwise, and runs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-Og"]  # -O1 compiles for minutes


def flags() -> tuple[list[str], dict[str, list[str]]]:
    """What setup.py compiles with: for all files, and more for some."""
    names = {"os": None, "Path": Path}
    text = (ROOT / "setup.py").read_text()
    exec("\n".join(re.findall(r"^(?:FLAGS|AVX512|MORE) = .*$", text, re.MULTILINE)), names)
    return names["FLAGS"], names["MORE"]


def run_sanitized(folder: Path, sources: list[Path], *arguments: object) -> str:
    """What the program of these sources prints. Skips without a compiler or sanitizers."""
    common, more = flags()
    objects = []
    program = folder / "sanitized"
    try:
        for source in sources:
            compiled = folder / f"{source.stem}.o"
            options = [flag for flag in common if flag != "-O3"] + more.get(source.stem.split("_")[-1], []) + SANITIZE
            command = ["g++", "-std=c++17", *options, f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", str(compiled)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            objects.append(str(compiled))
        subprocess.run(["g++", *SANITIZE, *objects, "-o", str(program)], check=True, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no compiler: {error}")
    except subprocess.CalledProcessError as error:
        if "asan" in error.stderr or "x86" in error.stderr:
            pytest.skip(f"no sanitizers here: {error.stderr[-300:]}")
        raise AssertionError(error.stderr) from None
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
