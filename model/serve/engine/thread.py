"""An engine in a thread of its own. Other threads leave it notes; it never waits for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from model.serve.engine.engine import Engine
from model.serve.engine.request import Failure, Request

BROKEN = Failure(500, "internal_error", "the engine failed; its log says why")
log = logging.getLogger("alea.serve")


class EngineThread:
    """Runs until `stop`. Its methods may be called from any thread, unless they say otherwise.

    on_news: called in the engine's thread after each step, with the requests whose readers want to hear of it.
    """

    def __init__(self, engine: Engine, on_news: Callable[[list[Request]], None]) -> None:
        self.engine, self.on_news = engine, on_news
        self.notes: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.requests: set[Request] = set()  # not over yet; of the engine's thread
        self.given = self.taken = 0  # choices, counted by who gives and by the engine's thread
        self.is_stopping = False
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def submit(self, request: Request) -> None:
        """From one thread alone."""
        self.given += len(request.choices)
        self.notes.put(lambda: self.take(request))

    def fail(self, request: Request, failure: Failure) -> None:
        self.notes.put(lambda: self.end(request, failure))

    def fail_all(self, failure: Failure) -> None:
        self.notes.put(lambda: self.end_all(failure))

    def stop(self) -> None:
        """End the thread after its present step."""

        def stopping() -> None:
            self.is_stopping = True

        self.notes.put(stopping)
        self.thread.join()

    @property
    def waiting(self) -> int:
        """Choices without a row, beyond those that find one at the next step."""
        return max(0, len(self.engine.waiting) + self.given - self.taken - len(self.engine.free_rows))

    @property
    def is_alive(self) -> bool:
        return self.thread.is_alive()

    def run(self) -> None:
        while not self.is_stopping:
            try:
                self.read_notes()
                self.tell(self.engine.step())
            except Exception:
                log.exception("a step failed, and with it all requests")
                self.end_all(BROKEN)

    def read_notes(self) -> None:
        """All that there are; without work, wait for one."""
        try:
            while True:
                self.notes.get(block=not self.engine.is_busy and not self.is_stopping)()
        except Empty:
            pass

    def take(self, request: Request) -> None:
        self.requests.add(request)
        self.engine.submit(request)
        self.taken += len(request.choices)

    def end(self, request: Request, failure: Failure) -> None:
        self.engine.fail(request, failure)
        self.tell([request])

    def end_all(self, failure: Failure) -> None:
        for request in list(self.requests):
            self.end(request, failure)

    def tell(self, requests: list[Request]) -> None:
        self.requests.difference_update(request for request in requests if request.is_over)
        if requests:
            self.on_news(requests)
