"""Oracle: docs/scale.md, which shows what the example prints, and `samplers.sample`, which the example asks."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

EXAMPLE = ROOT / "docs/examples/sharded_draw.py"
PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")


@pytest.mark.exhaustive
def test_two_processes_print_what_the_page_shows():
    words = re.search(r"^torchrun (.*)$", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", *words[1].split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    shown = re.search(r"^process 0: (.*)$", PAGE, re.MULTILINE)
    assert sorted(done.stdout.split("\n"))[1:] == [f"process {rank}: {shown[1]}" for rank in (0, 1)]


def test_the_page_shows_the_call_of_the_example():
    (call,) = re.findall(r"^out = samplers\.sharded\..*$", PAGE, re.MULTILINE)
    assert call in EXAMPLE.read_text(encoding="utf-8")
