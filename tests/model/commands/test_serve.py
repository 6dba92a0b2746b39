"""Oracle: the command's help. What it serves is tested in tests/model/serve and tests/serve_clients."""

import subprocess
import sys

import pytest

from model.cli import main
from tests.conftest import ROOT

WRONG = [
    (["--port", "70000"], "--port must be in 0 .. 65535, got 70000"),
    (["--max-batch", "0"], "--max-batch must be an integer >= 1, got 0"),
    (["--max-queue", "0"], "--max-queue must be an integer >= 1, got 0"),
    (["--grace", "-1"], "--grace must be seconds >= 0, got -1.0"),
    (["--request-timeout", "nan"], "--request-timeout must be seconds >= 0, got nan"),
    (["--api-key", " "], "--api-key must not be empty"),
    (["--max-grammar-seconds", "0"], "--max-grammar-seconds must be above 0, got 0.0"),
    (["--host", ""], "--host must be an address"),
    (["--cache-tokens", "3"], "--cache-tokens must be an integer >= 16, got 3"),
    (["/no/such/folder"], "/no/such/folder: no such folder"),
    (["--host", "256.1.1.1"], "--host 256.1.1.1 --port 8000"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_option_ends_it_before_it_listens(capsys, words, message):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


WITHOUT = """
import sys
sys.modules["pydantic"] = None  # as if it were not installed
from model.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["generate", "-f", "requests.jsonl"]])
def test_without_the_extra_it_says_how_to_install_it(tmp_path, words):
    (tmp_path / "requests.jsonl").write_text('{"prompt": "A", "seed": 1}')
    command = [sys.executable, "-c", f"sys_path = {str(ROOT)!r}; import sys; sys.path.insert(0, sys_path)" + WITHOUT]
    done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'alea-sampling[serve]'" in done.stderr and done.stderr.count("\n") == 1
