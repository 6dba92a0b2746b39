"""The process: listens, serves, and ends without losing an answer."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from model.serve.api.service import Service
from model.serve.engine.engine import Engine
from model.serve.engine.request import Failure, Request
from model.serve.engine.thread import EngineThread
from model.serve.http.answer import Desk
from model.serve.http.app import application
from model.serve.http.metrics import Metrics
from model.serve.http.protocol import Connection

CLOSING_SECONDS = 2  # for connections, once all is answered
SHUT_DOWN = Failure(503, "shutting_down", "the server was shut down before the answer was complete")


@dataclass(frozen=True)
class Options:
    """max_queue, max_body: as in `Desk`. grace: seconds. keys, origins: as in `application`."""

    max_queue: int
    max_body: int
    grace: float
    keys: tuple[str, ...]
    origins: tuple[str, ...]


def run(
    service: Service,
    engine: Engine,
    metrics: Metrics,
    options: Options,
    listener: socket.socket,
    on_ready: Callable[[Server], None],
) -> None:
    """Serve until a signal ends it."""
    asyncio.run(serve(service, engine, metrics, options, listener, on_ready))


async def serve(
    service: Service,
    engine: Engine,
    metrics: Metrics,
    options: Options,
    listener: socket.socket,
    on_ready: Callable[[Server], None],
) -> None:
    loop = asyncio.get_running_loop()
    thread = EngineThread(engine, lambda requests: wake_in(loop, requests))
    desk = Desk(service, thread, options.max_queue, options.max_body)
    server = Server(application(desk, metrics, options.keys, options.origins), desk, options.grace, on_ready)
    thread.start()
    try:
        await server.serve([listener])
    finally:
        thread.stop()
        desk.worker.shutdown(wait=False)


def wake_in(loop: asyncio.AbstractEventLoop, requests: list[Request]) -> None:
    """The readers of these requests, in the loop's thread, at once for all."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(wake, requests)


def wake(requests: list[Request]) -> None:
    for request in requests:
        request.wake()


class Server(uvicorn.Server):
    """After SIGTERM or Ctrl-C new requests get a 503, and accepted ones their answers, for `grace` seconds at most.

    A second signal ends it at once.
    """

    def __init__(self, app: Starlette, desk: Desk, grace: float, on_ready: Callable[[Server], None]) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        super().__init__(config)
        self.desk, self.grace, self.on_ready = desk, grace, on_ready
        self.draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready(self)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.desk.is_draining:
            self.should_exit = self.force_exit = True
        self.desk.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        if self.desk.is_draining and self.draining is None:
            self.draining = asyncio.ensure_future(self.drain())
        return await super().on_tick(counter)

    async def drain(self) -> None:
        self.desk.drain()
        if open_requests := len(self.server_state.tasks):
            print(
                f"alea serve: answering {open_requests} requests; a second Ctrl-C ends at once",
                file=sys.stderr,
                flush=True,
            )
        until = time.monotonic() + self.grace
        while self.server_state.tasks and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.desk.engine.fail_all(SHUT_DOWN)
        until = time.monotonic() + CLOSING_SECONDS
        while self.server_state.tasks and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A socket; port 0 takes a free one. Raises: OSError naming host and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle's delay on
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise OSError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from None
    return found


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
