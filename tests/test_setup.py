"""Installation without a compiler: the package builds without its C++ backend, unless that is demanded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import ROOT


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
