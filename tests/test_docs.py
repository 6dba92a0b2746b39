"""The docs are true: their commands run, their Python runs, their tables come from the records."""

import re
import shlex

import pytest

from bench import report
from model.cli import main
from samplers import textbook
from tests.test_architecture import ROOT, tracked

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/decoding.md", "model/storyteller/README.md")]


def fenced(language: str) -> list[str]:
    return [block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)]


COMMANDS = [line for block in fenced("sh") for line in block.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("alea ")])
def test_alea_commands(command: str, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    captured = capsys.readouterr()
    assert captured.out or "wrote" in captured.err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_commands_are_run_by_ci(command: str):
    """CI runs them itself: a test that runs `make test` would never end."""
    assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(("make ", "alea "))])
def test_other_commands_name_what_exists(command: str):
    for word in shlex.split(command):
        if word.startswith("tests/"):
            assert (ROOT / word).exists()
    module = re.search(r"-m (model[\w.]*)", command)
    assert module is None or (ROOT / (module[1].replace(".", "/") + ".py")).is_file()


@pytest.mark.parametrize("code", fenced("python"))
def test_python(code: str):
    exec(compile(code, "docs", "exec"), {})


def test_tables_come_from_the_records():
    text = (ROOT / "README.md").read_text()
    assert report.with_tables(text) == text


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_file_names_in_the_pages_exist():
    for page in (ROOT / "README.md", ROOT / "docs/decoding.md"):
        for name in re.findall(r"`((?:samplers|model|bench|csrc|tests)/[\w./]*)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_functions_of_the_textbook_exist():
    for name in re.findall(r"`textbook\.(\w+)`", (ROOT / "docs/decoding.md").read_text()):
        assert callable(getattr(textbook, name))


def test_no_page_is_left_unread():
    assert {ROOT / path for path in tracked() if path.endswith(".md")} <= set(PAGES)
