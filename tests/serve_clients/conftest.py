"""What the clients' tests share: servers to talk to, and what the package answers without one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import DefaultHttpxClient, OpenAI
from replies import check_reply

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("ALEA_PYTHON", str(ROOT / ".venv/bin/python"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SECONDS_TO_START = 60
KEY, ORIGIN = "sesame", "https://web.mydomain.fr"

Serve = Callable[..., str]
Tokenize = Callable[..., list[int]]
Ask = Callable[..., list[Any]]


@contextmanager
def running_server(log: Path, *options: str) -> Iterator[str]:
    """`alea serve --port 0` with these options, and its URL. What it prints is in `log`."""
    command = [PYTHON, "-m", "model.cli", "serve", "--port", "0", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield url_of(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"the server did not end within 30 seconds of SIGTERM:\n{log.read_text()}")


def url_of(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"http://[\w.:]+\d", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(f"the server printed no URL:\n{log.read_text()}")


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts a server with the given options, and returns its URL; all of them end with the session."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(running_server(tmp_path_factory.mktemp("log") / "log", *options))


@pytest.fixture(scope="session")
def url(serve: Serve) -> str:
    """The server that most tests share."""
    return serve()


@pytest.fixture(scope="session")
def locked(serve: Serve) -> str:
    """A server with a key, for the pages of one origin."""
    return serve("--api-key", KEY, "--allowed-origins", ORIGIN)


@pytest.fixture(scope="session")
def narrow(serve: Serve) -> str:
    """A server that generates one text at a time, lets one wait, and reads short bodies."""
    return serve("--max-batch", "1", "--max-queue", "1", "--max-body", "2000")


@pytest.fixture(scope="session")
def client(url: str) -> OpenAI:
    """openai's client. Every reply that it gets is validated by openai's own types."""
    return openai_client(url, check=True)


@pytest.fixture(scope="session")
def extended(url: str) -> OpenAI:
    """The same for requests whose replies have more fields, because they ask for them."""
    return openai_client(url)


def openai_client(url: str, api_key: str = "none", check: bool = False) -> OpenAI:
    http_client = DefaultHttpxClient(event_hooks={"response": [check_reply]} if check else {})
    return OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0, timeout=60, http_client=http_client)


@pytest.fixture(scope="session")
def tokenize(url: str) -> Tokenize:
    """Token ids of a text; fields: others of /tokenize."""

    def ids(text: str, **fields: Any) -> list[int]:
        with DefaultHttpxClient() as http:
            return http.post(f"{url}/tokenize", json={"prompt": text, **fields}).json()["tokens"]

    return ids


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Asks the package itself, see answers.py."""
    command = [PYTHON, "-m", "tests.serve_clients.answers"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes) as package:

        def answer(call: str, **keywords: Any) -> list[Any]:
            package.stdin.write(json.dumps({"call": call, **keywords}) + "\n")
            package.stdin.flush()
            return json.loads(package.stdout.readline())

        yield answer
