"""Which package may import which, and one basename a concept on every backend."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {  # folder: packages of this project that it may import
    "samplers/reference": {"samplers.reference"},
    "samplers/kernels": {"samplers.kernels"},
    "samplers": {"samplers"},
    "model": {"samplers", "model"},
    "bench": {"samplers", "model", "bench"},
}
OUTSIDE = {"samplers/reference": {"numpy"}, "samplers/kernels": {"torch", "triton"}}
CONCEPTS = {"fixed_point", "philox", "top_k", "top_p", "cutoffs", "typical", "penalties", "draw", "sampler"}
STANDARD = set(__import__("sys").stdlib_module_names)


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def home(path: Path) -> str:
    """The most specific folder of ALLOWED that holds the file."""
    inside = [folder for folder in ALLOWED if (ROOT / folder) in path.parents]
    return max(inside, key=len)


SOURCES = [path for package in ("samplers", "model", "bench") for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_directions(path: Path):
    folder = home(path)
    for name in imports(path):
        package = name.split(".")[0]
        if package in ("samplers", "model", "bench", "tests"):
            assert any(name == a or name.startswith(a + ".") for a in ALLOWED[folder]), f"{path} imports {name}"
        elif folder in OUTSIDE:
            assert package in OUTSIDE[folder] | STANDARD, f"{path} imports {name}"


def test_one_basename_on_every_backend():
    names = {
        "reference": {path.stem for path in (ROOT / "samplers/reference").glob("*.py")},
        "kernels": {path.stem for path in (ROOT / "samplers/kernels").glob("*.py")},
        "csrc": {path.stem for path in (ROOT / "csrc").glob("*.h")},
    }
    for backend, found in names.items():
        assert found >= CONCEPTS, f"{backend} lacks {CONCEPTS - found}"


def tracked() -> list[str]:
    """Files that git tracks; none outside a checkout."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_top_level_folders():
    folders = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    assert folders <= {"bench", "csrc", "docs", "model", "samplers", "tests"}
