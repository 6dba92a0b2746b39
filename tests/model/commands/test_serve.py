"""Oracle: the command's help. What it serves is tested in tests/model/serve and tests/serve_clients."""

import pytest

from model.cli import main

WRONG = [
    (["--port", "70000"], "--port must be in 0 .. 65535, got 70000"),
    (["--max-batch", "0"], "--max-batch must be an integer >= 1, got 0"),
    (["--max-queue", "-1"], "--max-queue must be an integer >= 0, got -1"),
    (["--grace", "-1"], "--grace must be seconds >= 0, got -1.0"),
    (["--request-timeout", "nan"], "--request-timeout must be seconds >= 0, got nan"),
    (["--api-key", " "], "--api-key must not be empty"),
    (["--cache-tokens", "3"], "--cache-tokens must be an integer >= 16, got 3"),
    (["/no/such/folder"], "/no/such/folder: no such folder"),
    (["--host", "256.1.1.1"], "--host 256.1.1.1 --port 8000"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_option_ends_it_before_it_listens(capsys, words, message):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err
