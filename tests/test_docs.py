"""The docs are true: their commands run, their Python runs, their tables come from the records."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from model import Llama, Tokenizer, generate
from model.cli import main
from samplers import textbook
from tests.conftest import require
from tests.test_architecture import ROOT, tracked

DOCS = ("benchmarks", "commands", "decoding", "definition", "scale", "serving", "transformers")
ELSEWHERE = {  # pages that need packages of others: their tests run in environments of their own
    "docs/serving.md": "tests/serve_clients/test_page.py",
    "docs/scale.md": "tests/inside_vllm/v1/test_page.py",
}
NAMES = ("README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in DOCS), "model/storyteller/README.md")
PAGES = [ROOT / name for name in NAMES]


def chapters() -> dict[str, list[tuple[str, str]]]:
    """{page and heading: [(language, code)]}: the blocks of each chapter, in order."""
    found = {}
    for page in PAGES:
        if str(page.relative_to(ROOT)) in ELSEWHERE:
            continue
        for number, chapter in enumerate(re.split(r"^## ", page.read_text(), flags=re.MULTILINE)):
            blocks = re.findall(r"```(sh|python|text)\n(.*?)```", chapter, re.DOTALL)
            if any(language != "text" for language, _ in blocks):
                found[f"{page.relative_to(ROOT)}, {chapter.splitlines()[0] if number else 'top'}"] = blocks
    return found


CHAPTERS = chapters()
COMMANDS = [
    line
    for blocks in CHAPTERS.values()
    for language, code in blocks
    if language == "sh"
    for line in code.splitlines()
    if line and not line.startswith("#")
]


def runs_alea(command: str) -> bool:
    return command.startswith("alea ") or "| alea " in command


SLOW = {  # chapters that take seconds; the first runs every benchmark
    "docs/benchmarks.md, Measure it yourself",
    "docs/commands.md, Tell a story",
    "docs/decoding.md, Chat: a prompt with roles",
    "docs/decoding.md, Diversity",
    "docs/decoding.md, Many prompts",
}
MARKED = [pytest.param(name, marks=[pytest.mark.exhaustive] * (name in SLOW)) for name in CHAPTERS]


def test_slow_chapters_exist():
    assert set(CHAPTERS) >= SLOW


def test_pages_that_run_elsewhere_do():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize("chapter", MARKED)
def test_a_chapter_runs_from_top_to_bottom(chapter: str, capsys, monkeypatch, tmp_path):
    """A chapter runs in one folder, which links to the clone's `model/`; a later command may use an earlier one's file.
    Each line of a text block was printed above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    printed = ""
    (tmp_path / "model").symlink_to(ROOT / "model")
    for language, code in CHAPTERS[chapter]:
        if language == "python":
            for backend in re.findall('"(native|triton)"', code):
                require(backend)
            capsys.readouterr()
            exec(compile(code, chapter, "exec"), {})
            printed += capsys.readouterr().out
        elif language == "sh":
            for command in filter(runs_alea, code.splitlines()):
                out, err = ran(command, capsys)
                assert out or "wrote" in err, command
                printed += out
        elif printed:  # else `make` prints it, and CI runs that
            for line in code.splitlines():
                assert " ".join(line.split()) in " ".join(printed.split()), line


def ran(command: str, capsys) -> tuple[str, str]:
    """stdout and stderr of a command that must succeed; only a pipe starts another process."""
    if "|" in command:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        shell = ["bash", "-o", "pipefail", "-c", command]
        done = subprocess.run(shell, capture_output=True, text=True, check=True, env=os.environ | {"PATH": path})
        return done.stdout, done.stderr
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0, command
    return tuple(capsys.readouterr())


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_commands_are_run_by_ci(command: str):
    """CI runs them, because a test that runs `make test` would never end."""
    assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("command", [c for c in COMMANDS if not (runs_alea(c) or c.startswith("make "))])
def test_other_commands_name_what_exists(command: str):
    for word in shlex.split(command):
        if word.startswith("tests/"):
            assert (ROOT / word).exists()
    module = re.search(r"-m (model[\w.]*)", command)
    assert module is None or (ROOT / (module[1].replace(".", "/") + ".py")).is_file()


@pytest.mark.parametrize(("beams", "total"), [(1, "-53.0"), (5, "-41.1"), (20, "-40.0")])
def test_the_sums_in_the_chapter_of_beams(beams: int, total: str):
    chapter = next(text for text in (ROOT / "docs/decoding.md").read_text().split("## ") if text.startswith("Beams"))
    model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    ((best,),) = generate(model, tokenizer, "The dragon", num_beams=beams, do_sample=False, max_new_tokens=40)
    assert total in chapter
    assert sum(best.model_logprobs) == pytest.approx(float(total), abs=0.1)


def test_tables_come_from_the_records():
    pages = {page: page.read_text() for page in report.PAGES}
    assert report.with_tables(pages) == pages


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_file_names_in_the_pages_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:samplers|model|bench|csrc|tests|docs)/[\w./]*)`", page.read_text()):
            assert (ROOT / name).exists() or Path(name).stem == "NAME", f"{page}: {name}"


def test_files_that_comments_name_exist():
    named = re.compile(
        r"(?<![\w/.])(?:samplers|model|bench|csrc|tests|docs)/[\w./-]+\.(?:py|h|cpp|js|html|css|md|sh)\b"
    )
    for path in tracked():
        if path.endswith((".py", ".h", ".cpp", ".js", ".sh", ".toml")):
            for name in named.findall((ROOT / path).read_text(encoding="utf-8")):
                assert (ROOT / name).exists(), f"{path}: {name}"


def filter_recipe() -> list[str]:
    """The numbered steps of CONTRIBUTING's chapter on filters."""
    chapter = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a filter")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. (.*)$", chapter, re.MULTILINE)


def test_what_the_recipe_of_a_filter_names_exists():
    """Each name in a file of its step."""
    for step in filter_recipe():
        spans = re.findall(r"`([^`]+)`", step)
        files = [ROOT / span for span in spans if "/" in span and "NAME" not in span]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        for name in spans:
            is_name = not re.search("[/ ]|NAME|PARAMETER", name)
            assert not is_name or re.search(rf"\b{name}\b", text), name


TYPICAL = re.compile(r"typical[-_]p\b|TYPICAL_P|Typical[A-Z]")  # a filter that there is
FUNCTION = re.compile(r"^ *(?:def|inline \w+|bool|function) (\w+)\(.*[:{]", re.MULTILINE)


def test_the_recipe_of_a_filter_names_every_file():
    recipe = "".join(filter_recipe())
    for path in tracked():
        if path.startswith(("samplers/", "csrc/", "model/", "bench/")) and path.endswith((".py", ".js", ".h", ".cpp")):
            assert f"`{path}`" in recipe or not TYPICAL.search((ROOT / path).read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "path", ["csrc/params.h", "csrc/sampler.h", "samplers/kernels/sampler.py", "model/study/assets/engine.js"]
)
def test_the_recipe_of_a_filter_names_every_function(path: str):
    """Also those that choose a fast path."""
    step = next(step for step in filter_recipe() if f"`{path}`" in step)
    _, *parts = FUNCTION.split((ROOT / path).read_text(encoding="utf-8"))
    asking = {name for name, body in zip(parts[::2], parts[1::2], strict=True) if TYPICAL.search(body)}
    assert asking and asking - {"use_typical_p"} <= set(re.findall(r"`(\w+)`", step))


def test_functions_of_the_textbook_exist():
    for name in re.findall(r"`textbook\.(\w+)`", (ROOT / "docs/decoding.md").read_text()):
        assert callable(getattr(textbook, name))


def test_no_page_is_left_unread():
    assert {ROOT / path for path in tracked() if path.endswith(".md")} <= set(PAGES)
