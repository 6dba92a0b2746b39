"""A connection that must send its head in time: half a request may not hold a connection forever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
HEAD_BYTES = 1 << 16


class Connection(HttpToolsProtocol):
    """uvicorn's, with limits for the time and the size of the head of each request."""

    head_timer: asyncio.TimerHandle | None = None
    head_bytes = head_size = 0  # received, and parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.expect_head()
        self.scope["state"]["transport"] = self.transport  # for who must end the connection

    def expect_head(self) -> None:
        self.stop_timer()
        self.head_bytes = self.head_size = 0
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.head_timer is not None:  # the parser keeps a header until it is whole
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_size += len(name) + len(value)
        if self.head_size > HEAD_BYTES:
            raise ValueError("the head is too long")  # uvicorn answers 400
        super().on_header(name, value)

    def on_response_complete(self) -> None:
        """A refused body may never end: nobody waits for the rest."""
        is_half = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if is_half:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self.stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
