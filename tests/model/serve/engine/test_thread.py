"""Oracle: the same requests through the engine itself."""

import threading

from model import Llama, Tokenizer
from model.serve.engine.engine import Engine
from model.serve.engine.request import Choice, Failure, Request, Settings
from model.serve.engine.thread import BROKEN, EngineThread
from samplers import SamplingParams

TOKENIZER = Tokenizer.from_pretrained()


class Reader:
    """Waits for requests; its thread's news come here."""

    def __init__(self, engine: Engine) -> None:
        self.over = threading.Event()
        self.thread = EngineThread(engine, self.hear)
        self.thread.start()

    def hear(self, requests: list[Request]) -> None:
        if any(request.is_over for request in requests):
            self.over.set()

    def ask(self, request: Request) -> Request:
        self.over.clear()
        self.thread.submit(request)
        assert self.over.wait(30)
        return request


def request(new: int = 5) -> Request:
    settings = Settings(SamplingParams(top_p=0.9), 7, new, 4096)
    return Request([Choice(0, TOKENIZER.encode("The fox"), settings, 0, TOKENIZER)])


def test_requests_from_another_thread():
    engine = Engine(Llama.from_pretrained())
    reader = Reader(engine)
    asked = [reader.ask(request()) for _ in range(3)]
    reader.thread.stop()
    assert not reader.thread.thread.is_alive() and not reader.thread.requests
    alone = request()
    engine.submit(alone)
    while engine.is_busy:
        engine.step()
    assert [one.choices[0].generation for one in asked] == [alone.choices[0].generation] * 3


def test_all_end_with_a_reason():
    reader = Reader(Engine(Llama.from_pretrained(), 1))
    endless = [request(400) for _ in range(3)]
    for one in endless:
        reader.thread.submit(one)
    reader.thread.fail_all(Failure(503, "shutting_down", "..."))
    assert reader.over.wait(30)
    reader.thread.stop()
    assert [one.failure.code for one in endless] == ["shutting_down"] * 3


def test_a_step_that_fails_ends_its_requests_and_not_the_thread(monkeypatch):
    engine = Engine(Llama.from_pretrained())
    reader, read = Reader(engine), engine.rows.read
    monkeypatch.setattr(engine.rows, "read", lambda parts: 1 / 0)
    assert reader.ask(request()).failure is BROKEN
    monkeypatch.setattr(engine.rows, "read", read)
    assert len(reader.ask(request()).choices[0].generation.ids) == 5
    reader.thread.stop()
