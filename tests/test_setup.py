"""What installation promises: the names that stand in pyproject.toml, and a package that builds without a compiler."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.versions import DISTRIBUTION, installed
from samplers.extras import how_to_install
from tests.test_architecture import ROOT, SOURCES, tracked

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SOMEBODY_ELSES = re.compile(rb"pip3? install(?: -\S+)* ['\"]?alea(?![-\w])")


def test_the_installed_project_is_this_one():
    name, number = re.search(r'\[project\]\nname = "(.+)"\nversion = "(.+)"', PROJECT).groups()
    assert (name, installed(name)) == (DISTRIBUTION, number), "installed under an older name? `make` installs it anew"
    assert f"'{name}[study]'" in how_to_install("study")


def test_extras_that_messages_name_exist():
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\n", PROJECT, re.DOTALL)[1]
    named = {name for path in SOURCES for name in re.findall(r"how_to_install\([\"'](\w+)", path.read_text())}
    assert named and named <= set(re.findall(r"^(\w+) =", extras, re.MULTILINE))


def test_nobody_is_told_to_install_somebody_elses_alea():
    """On the package index that name is not ours."""
    for path in tracked():
        if (ROOT / path).is_file():
            assert not SOMEBODY_ELSES.search((ROOT / path).read_bytes()), path


@pytest.mark.parametrize(
    ("requirement", "is_found"),
    [("alea", True), ("-U 'alea'", True), ("'alea[study]'", True), ("alea-sampling", False), ("-e '.[study]'", False)],
)
def test_how_that_is_looked_for(requirement: str, is_found: bool):
    assert bool(SOMEBODY_ELSES.search(f"pip install {requirement}".encode())) == is_found


@pytest.mark.parametrize("demanded", [False, True])
def test_without_a_compiler(tmp_path: Path, demanded: bool):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "samplers").mkdir()
    environment = os.environ | {"CC": "no-compiler", "CXX": "no-compiler", "ALEA_REQUIRE_NATIVE": str(int(demanded))}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == demanded, done.stderr
    assert not list((tmp_path / "samplers").glob("_native*"))
