"""Oracle: the command's help. What it serves is tested in tests/model/serve and tests/serve_clients."""

import subprocess
import sys

import pytest

from model.cli import main
from model.serve.http import server
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


def test_options_reach_the_server(monkeypatch):
    called = []
    monkeypatch.setattr(server, "run", lambda *given, on_ready: called.append(given))
    words = "--port 0 --max-batch 2 --max-queue 5 --max-body 9 --grace 3 --request-timeout 7 --api-key a"
    assert main(["serve", *words.split(), "--allowed-origins", "http://b"]) == 0
    ((service, engine, _, options, listener),) = called
    listener.close()
    assert options == server.Options(max_queue=5, max_body=9, grace=3, keys=("a",), origins=("http://b",))
    assert service.seconds == 7 and len(engine.free_rows) == 2


WITHOUT = """
import sys
sys.modules["pydantic"] = None  # as if it were not installed
from model.cli import main
print(main(["serve", "--port", "0"]), main(["generate", "-f", "requests.jsonl"]))
"""


def test_without_the_extra_it_says_how_to_install_it(tmp_path):
    (tmp_path / "requests.jsonl").write_text('{"prompt": "A", "seed": 1}')
    command = [sys.executable, "-c", f"sys_path = {str(ROOT)!r}; import sys; sys.path.insert(0, sys_path)" + WITHOUT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 2\n"
    for name, line in zip(("serve", "generate"), done.stderr.splitlines(), strict=True):
        assert line.startswith(f"alea {name}: ") and "pip install 'alea-sampling[serve]'" in line
