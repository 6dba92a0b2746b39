"""One request over HTTP: read, checked, submitted, and answered whole or as it grows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from model.serve.api.asking import asked
from model.serve.api.errors import Refusal
from model.serve.api.grammars import IN_BODIES
from model.serve.api.reply import Reply, as_json
from model.serve.api.service import Service
from model.serve.engine import request as engine
from model.serve.engine.thread import EngineThread

GONE = engine.Failure(499, "client_disconnected", "the client has closed the connection")
READ_SECONDS = 30.0  # for a body to arrive, and for a finished answer to be taken
LONG = 1 << 14  # bytes of a body whose text takes a while to tokenize
T = TypeVar("T")
RETRY_SECONDS = 1

log = logging.getLogger("alea.serve")


class Desk:
    """Takes requests for the engine.

    max_queue: choices that may wait; with more, a request is refused. max_body: bytes.
    """

    def __init__(self, service: Service, engine: EngineThread, max_queue: int, max_body: int) -> None:
        self.service, self.engine, self.max_queue, self.max_body = service, engine, max_queue, max_body
        self.is_draining, self.reading = False, set[anyio.CancelScope]()
        self.worker = ThreadPoolExecutor(1, "worker")

    async def ask(self, http: Request, kind: type[BaseModel]) -> Response:
        """A text: the reply to a body of this kind."""
        if self.is_draining:
            raise closed()
        self.check_queue(1)
        raw, key = await self.body(http), http.scope.get("key", "")
        may_compile = any(name in raw for name in IN_BODIES)
        asking, request = await self.away(raw, lambda: asked(self.service, kind, raw, key), may_compile)
        self.check_queue(len(request.choices))
        return Answer(self, asking.reply(self.service, request), bool(asking.stream), http.url.path, raw)

    def check_queue(self, more: int) -> None:
        """Whether so many more texts may wait. A request of any size may where nobody else does."""
        waiting = self.engine.waiting
        if waiting and waiting + more > self.max_queue:
            raise Refusal(429, f"the queue is full: {waiting} of {self.max_queue} texts are waiting", code="queue_full")

    async def body(self, http: Request) -> bytes:
        """Raises: Refusal for a body that is too long or too slow, and where the server begins to shut down."""
        raw = bytearray()
        with anyio.move_on_after(READ_SECONDS) as scope:
            self.reading.add(scope)
            try:
                async for part in http.stream():
                    raw += part
                    if len(raw) > self.max_body:
                        raise Refusal(413, f"the body must have at most {self.max_body} bytes")
            except ClientDisconnect:
                raise Refusal(400, "the body must be whole, and the client has left") from None
            finally:
                self.reading.remove(scope)
        if scope.cancelled_caught:
            raise closed() if self.is_draining else too_slow()
        return bytes(raw)

    def drain(self) -> None:
        """Take nothing more, not even what is half here."""
        self.is_draining = True
        for scope in self.reading:
            scope.cancel()

    async def away(self, raw: bytes, work: Callable[[], T], is_slow: bool = False) -> T:
        """Work on a body: in another thread if it is long or slow to work on, so that nobody's stream stalls."""
        return await asyncio.to_thread(work) if is_slow or len(raw) > LONG else work()

    async def apart(self, work: Callable[[], T]) -> T:
        """A part of an answer that takes long, in a thread that does one at a time: more would hold up the engine's."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, work)


class Answer(Response):
    """Waits for the engine and writes; ends the request if its reader leaves or never takes the answer."""

    def __init__(self, desk: Desk, reply: Reply, is_streamed: bool, path: str, raw: bytes) -> None:
        self.desk, self.reply, self.request, self.is_streamed = desk, reply, reply.request, is_streamed
        self.path, self.raw, self.status_code = path, raw, 200
        self.news = asyncio.Event()
        self.request.wake = self.news.set
        seed = self.request.choices[0].settings.seed
        self.headers_to_send = {"x-alea-seed": str(seed), "x-request-id": reply.id}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, seconds = time.monotonic(), self.desk.service.seconds
        self.desk.engine.submit(self.request)
        writing = asyncio.ensure_future(self.write(scope, receive, send))
        leaving = asyncio.ensure_future(disconnected(receive))
        try:
            limit = None if seconds is None else seconds + READ_SECONDS
            await asyncio.wait({writing, leaving}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done() and "transport" in scope.get("state", {}):
                scope["state"]["transport"].abort()  # it may hold what nobody reads
        finally:
            writing.cancel()
            leaving.cancel()
            await asyncio.wait({writing, leaving})
            self.desk.engine.fail(self.request, GONE)
            if log.isEnabledFor(logging.INFO):
                log.info("%s", self.summary(time.monotonic() - began))
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s", self.raw.decode(errors="replace"))
        if not writing.cancelled():
            writing.result()

    async def write(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.wait()
        failure = self.request.failure
        if failure is not None:
            self.status_code = failure.status
            refusal = Refusal(failure.status, failure.message, code=failure.code)
            await refused(refusal, {"x-should-retry": "false"})(scope, receive, send)  # else OpenAI's clients ask again
        elif self.is_streamed:
            await self.write_events(send)
        else:
            while await self.has_worked():
                pass
            content = await self.desk.apart(self.whole) if self.is_long else self.whole()
            await Response(content, 200, self.headers_to_send, "application/json")(scope, receive, send)

    async def wait(self) -> None:
        """For the end of the request, or if it is streamed for any news."""
        while True:
            await self.news.wait()
            self.news.clear()
            if self.is_streamed or self.request.is_over:
                return

    async def has_worked(self) -> bool:
        """Whether there was a part of what takes long to do."""
        return self.reply.takes_long and await self.desk.apart(self.reply.work)

    @property
    def is_long(self) -> bool:
        """Whether writing the reply takes a while."""
        choices = self.request.choices
        return (
            self.reply.takes_long
            or sum(len(choice.logprobs) + len(choice.prompt_logprobs) for choice in choices) > 1000
        )

    def whole(self) -> bytes:
        return as_json(self.reply.whole()).encode()

    async def write_events(self, send: Send) -> None:
        reply, frame = self.reply, self.reply.frame
        headers = {**self.headers_to_send, "content-type": reply.media_type, "cache-control": "no-cache"}
        raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw_headers})
        events = b"".join(map(frame, reply.begin()))
        while True:
            is_over = self.request.is_over  # first: what is read after it is complete
            while await self.has_worked():
                worked = b"".join(map(frame, reply.news()))
                await send({"type": "http.response.body", "body": events + worked, "more_body": True})
                events = b""
            events += b"".join(map(frame, reply.news()))
            if is_over:
                break
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            events = b""
            await self.wait()
        failure = self.request.failure
        if failure is None:
            events += b"".join(map(frame, reply.end()))
        else:
            events += frame(as_json(Refusal(failure.status, failure.message, code=failure.code).body))
        await send({"type": "http.response.body", "body": events, "more_body": False})

    def summary(self, seconds: float) -> str:
        usage, failure = self.reply.usage(), self.request.failure
        end = "" if failure is None else f", {failure.code}"
        tokens = f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        return f"{self.reply.id} {self.path} {self.status_code}{end}: {tokens} in {seconds:.3f} s"


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def closed() -> Refusal:
    return Refusal(503, "the server is shutting down", code="shutting_down")


def too_slow() -> Refusal:
    return Refusal(408, f"the body must arrive within {READ_SECONDS:.0f} seconds", code="timeout")


def refused(refusal: Refusal, headers: Mapping[str, str] | None = None) -> JSONResponse:
    more = {"retry-after": str(RETRY_SECONDS)} if refusal.status in (429, 503) else {}
    more |= {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    return JSONResponse(refusal.body, refusal.status, {**more, **(headers or {})})
