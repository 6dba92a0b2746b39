"""docs/definition.md: its Python gives the golden integers, and whoever cites a step of it cites one that is there.

Oracles: the golden rows; the reference; the page's own headings.
"""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from samplers import DEFINITION
from samplers.reference import fixed_point
from tests.samplers.golden import read, read_weights
from tests.test_architecture import ROOT, tracked

PAGE = (ROOT / "docs/definition.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TEXTS = (".md", ".py", ".h", ".cpp", ".js", ".html", ".css", ".sh", ".toml", ".txt")


@pytest.fixture(scope="module")
def page() -> dict:
    """What the page's Python defines, all blocks in one place."""
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in BLOCKS:
            exec(block, names)
    return names


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_printed_is_what_the_page_says(block: str, capsys):
    exec(block, {})
    assert capsys.readouterr().out.split() == re.findall(r"# (.*)", block)[-1].split()


def test_weights(page: dict):
    d, w = read_weights()
    np.testing.assert_array_equal(page["weights"](d), w)


def test_random_bits(page: dict):
    for row in read("rows"):
        assert page["random_bits"](*row.seeds.values()) == row.bits
    vector = page["philox"]((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
    assert " ".join(f"{word:08x}" for word in vector) in PAGE


def test_bound(page: dict):
    rng = np.random.default_rng(0)
    for mass, q in zip(rng.integers(1, 2**60, 1000).tolist(), rng.random(1000).tolist(), strict=True):
        assert page["bound"](mass, q) == fixed_point.bound(mass, q)


def test_constants():
    of_a_draw = PAGE[: PAGE.index("## Part two")]
    for name, value in re.findall(r"\| (\w+) \| (0x[\w.+-]+) ", of_a_draw):
        assert getattr(fixed_point, name) == np.float32(float.fromhex(value)), name


def test_version():
    assert f"This is **version {DEFINITION}**" in PAGE


def texts() -> list[Path]:
    return [ROOT / path for path in tracked() if path.endswith(TEXTS)]


def test_each_cited_step_is_there():
    steps = set(re.findall(r"^## (\d)\. ", PAGE, re.MULTILINE))
    assert steps == set("01234567")
    citation = re.compile(r"definition\.md,? steps? (\d)(?: (?:and|to) (\d))?")
    cited = {file: citation.findall(file.read_text()) for file in texts()}
    assert sum(map(bool, cited.values())) > 8
    for file, numbers in cited.items():
        assert {number for pair in numbers for number in pair if number} <= steps, file


def test_no_file_names_a_document_that_is_not_there():
    """README.md, docs/decoding.md: from the root, from the file that names it, or from its package."""
    for file in texts():
        if file.is_relative_to(ROOT / "tests"):
            continue  # which make files of their own
        for name in re.findall(r"[\w/.-]*\w\.md\b", file.read_text()):
            places = (ROOT, file.parent, ROOT / "model")
            assert any((place / name).exists() for place in places), f"{file.relative_to(ROOT)} names {name}"
