"""A plain HTTP client on asyncio's streams, which notes when each piece of an answer arrives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LINE = 1 << 20  # bytes of a header's or chunk's first line at most
DATA, DONE = b"data:", b"[DONE]"


@dataclass
class Answer:
    """An answer, whole or as far as it was read; the times are those of `time.perf_counter`."""

    began: float  # when the request was sent
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    pieces: list[tuple[float, bytes]] = field(default_factory=list)  # when each one came
    ended: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def is_streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[float, Any]]:
        """The server-sent events but [DONE], and when each was complete."""
        found, line = [], b""
        for when, piece in self.pieces:
            *lines, line = (line + piece).split(b"\n")
            data = [each[len(DATA) :].strip() for each in lines if each.startswith(DATA)]
            found += [(when, json.loads(text)) for text in data if text != DONE]
        return found

    @property
    def is_done(self) -> bool:
        """Whether a stream of events came to its end."""
        return self.body.rstrip().endswith(DATA + b" " + DONE)


class Client:
    """One connection, kept alive, that asks one thing at a time."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        address = urlsplit(url)
        self.host, self.port = address.hostname or "127.0.0.1", address.port or 80
        self.headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.vanish()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=LINE)
        return self.reader, self.writer

    def vanish(self) -> None:
        """Drops the connection without a word, in the middle of an answer too."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path, b"")

    async def post(self, path: str, body: Any) -> Answer:
        """A body that is not bytes is sent as JSON."""
        return await self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    async def ask(self, method: str, path: str, body: bytes) -> Answer:
        """Raises: ConnectionError or asyncio.IncompleteReadError where the server drops the connection."""
        answer = await self.begin(method, path, body)
        async for _ in self.pieces(answer):
            pass
        return answer

    async def begin(self, method: str, path: str, body: bytes) -> Answer:
        """Sends a request and reads the head of its answer; `pieces` reads the rest."""
        reader, writer = await self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.headers}"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = Answer(began=time.perf_counter())
        writer.write(head.encode() + body)
        await writer.drain()
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.status = int(status.split()[1])
        pairs = (line.partition(":") for line in lines if line)
        answer.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return answer

    async def pieces(self, answer: Answer) -> AsyncIterator[bytes]:
        """The body as it comes, which is kept in the answer as well."""
        reader, _ = await self.connect()
        chunked = answer.headers.get("transfer-encoding") == "chunked"
        left = int(answer.headers.get("content-length", 0))
        while chunked or left:
            size = int(await reader.readline(), 16) if chunked else left
            piece = await reader.readexactly(size)
            left = 0
            if chunked:
                await reader.readexactly(2)  # the end of its line
                chunked = size > 0
            if size:
                answer.pieces.append((time.perf_counter(), piece))
                yield piece
        answer.ended = time.perf_counter()
        if answer.headers.get("connection") == "close":
            self.vanish()
