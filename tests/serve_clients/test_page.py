"""docs/serving.md is true. Oracle: the page; every block runs as it stands, with the test's server for the page's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PYTHON, ROOT, Serve

URL = "http://127.0.0.1:8000"
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
CHAPTERS = {
    chapter.splitlines()[0]: re.findall(r"```(sh|python|js|text)\n(.*?)```", chapter, re.DOTALL)
    for chapter in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
RUNNING = {name: blocks for name, blocks in CHAPTERS.items() if blocks}


@pytest.fixture(scope="module")
def page_url(serve: Serve) -> str:
    """With the names that the page gives its server."""
    names = re.findall(r"--name (\S+)", PAGE)
    return serve(*(word for name in names for word in ("--name", name)))


@pytest.mark.parametrize("chapter", RUNNING)
def test_a_chapter_runs_from_top_to_bottom(chapter: str, page_url: str, tmp_path: Path):
    """Each line of a text block was printed above it; a later block may use an earlier one's files."""
    printed = ""
    for language, code in RUNNING[chapter]:
        if language == "text":
            for line in code.splitlines():
                assert line.strip() in printed, line
        else:
            printed += ran(language, code.replace(URL, page_url), tmp_path)


def ran(language: str, code: str, folder: Path) -> str:
    if language == "python":
        return output([sys.executable, "-c", code], folder)
    if language == "js":
        if shutil.which("node") is None:
            pytest.skip("node is not installed")
        return output(["node", "--input-type=module", "-e", code], Path(__file__).parent)
    return "".join(
        output(["bash", "-c", line], folder, checks_json=True) for line in map(shell, code.splitlines()) if line
    )


def shell(line: str) -> str:
    """A line of the page; "" for what sets up the server, which runs already."""
    if line.startswith(("pip ", "alea serve")):
        return ""
    return re.sub(r"^alea\b", f"{shlex.quote(PYTHON)} -m model.cli", line)


def output(command: list[str], folder: Path, checks_json: bool = False) -> str:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not checks_json or '"error":{' not in done.stdout, done.stdout
    return done.stdout


def test_what_the_page_says_of_the_seed(page_url: str, tmp_path: Path):
    """The chapter on the promise draws one text in two ways."""
    lines = [line for _, code in CHAPTERS["The promise"] for line in code.splitlines() if "seed" in line]
    alone, served = (output(["bash", "-c", shell(line.replace(URL, page_url))], tmp_path) for line in lines)
    assert f'"text":"{alone.removeprefix("The king").rstrip()}"' in served
