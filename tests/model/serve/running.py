"""`alea serve` in a process of its own, and what it holds: requests, blocks, threads, descriptors, memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.speed import servers
from bench.speed.client import Answer, Client
from bench.speed.servers import Place, Server
from model.config import BUILT_IN

PATIENCE = 20.0  # seconds until a server must be at rest


@contextlib.contextmanager
def serving(home: Path, *words: object, threads: int = 1) -> Iterator[Server]:
    """The built-in model; words: options."""
    with servers.alea(Place(BUILT_IN, home, threads=threads), *words) as server:
        yield server


def posted(url: str, *requests: tuple[str, Any]) -> list[Answer]:
    """The answers to (path, body), one after the other on one connection."""

    async def post() -> list[Answer]:
        async with Client(url) as client:
            return [await client.post(path, body) for path, body in requests]

    return asyncio.run(post())


def metrics(url: str) -> dict[str, float]:
    """Values by name; those of several labels are added."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line.startswith("alea:"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].removeprefix("alea:")
            found[name] = found.get(name, 0.0) + float(value)
    return found


@dataclass(frozen=True)
class Held:
    """By a server at rest."""

    threads: int
    descriptors: int
    memory: int  # resident bytes

    @classmethod
    def of(cls, server: Server) -> Held:
        process = Path(f"/proc/{server.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        descriptors = len(list((process / "fd").iterdir()))
        return cls(int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0]) * 1024)


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within the patience."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_at_rest(server: Server) -> bool:
    """No request is running or waiting, and none has blocks."""
    now = metrics(server.url)
    return not (now["num_requests_running"] or now["num_requests_waiting"] or now["kv_cache_usage_perc"])
