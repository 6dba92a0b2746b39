"""Oracle: the shapes that OpenAI's clients read, and HTTP's own statuses. Served by a thread of this process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from model import Llama, Tokenizer
from model.serve.api.service import Service
from model.serve.engine.engine import Engine
from model.serve.http import protocol
from model.serve.http.access import is_own
from model.serve.http.metrics import Metrics
from model.serve.http.server import Options, listening, serve
from samplers import SamplingParams


class SlowEngine(Engine):
    """A hundred steps a second at most."""

    def step(self) -> Any:
        time.sleep(0.01)
        return super().step()


class Running:
    """A server, and one request at a time to it; seconds: that a request may take."""

    def __init__(
        self, *keys: str, engine: type[Engine] = Engine, grace: float = 5, seconds: float | None = None
    ) -> None:
        llama = Llama.from_pretrained()
        self.metrics = Metrics("storyteller")
        self.engine = engine(llama, 8, observer=self.metrics)
        self.metrics.watch(self.engine)
        service = Service(llama, Tokenizer.from_pretrained(), ("storyteller",), "print", "plain", True, 512, seconds)
        self.listener = listening("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        ready = threading.Event()
        options = Options(max_queue=4, max_body=5000, grace=grace, keys=keys, origins=())

        def stop_when(server: Any) -> None:
            self.server = server
            ready.set()

        self.thread = threading.Thread(
            target=lambda: asyncio.run(
                serve(service, self.engine, self.metrics, options, self.listener, on_ready=stop_when)
            )
        )
        self.thread.start()
        assert ready.wait(30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, raw, headers)
        reply = connection.getresponse()
        data = reply.read()
        found = dict(reply.getheaders())
        connection.close()
        return reply.status, json.loads(data) if "json" in found.get("content-type", "") else data, found

    def stop(self) -> None:
        self.server.handle_exit(15, None)
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    one = Running()
    yield one
    one.stop()


ASK = {"prompt": "Once upon a time", "max_tokens": 5, "seed": 7}


def test_an_answer(running):
    status, reply, headers = running.ask("POST", "/v1/completions", ASK)
    assert (status, reply["choices"][0]["text"], headers["x-alea-seed"]) == (200, " there lived a man,", "7")
    without = {name: value for name, value in ASK.items() if name != "seed"}
    _, reply, headers = running.ask("POST", "/v1/completions", without)
    again = running.ask("POST", "/v1/completions", {**ASK, "seed": int(headers["x-alea-seed"])})[1]
    assert again["choices"] == reply["choices"]


def test_a_stream(running):
    status, data, headers = running.ask("POST", "/v1/completions", {**ASK, "stream": True})
    assert status == 200 and headers["content-type"] == "text/event-stream"
    texts = [event["choices"][0]["text"] for event in events(data)]
    assert "".join(texts) == " there lived a man," and data.endswith(b"data: [DONE]\n\n")


def events(data: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n")]
    return [json.loads(line) for line in lines if line not in (b"", b"[DONE]")]


LONG = {**ASK, "max_tokens": 400, "ignore_eos": True}


def test_a_request_that_takes_too_long():
    """408, or after the first piece an event that says so."""
    slow = Running(engine=SlowEngine, seconds=1)
    status, reply, _ = slow.ask("POST", "/v1/completions", LONG)
    assert status == 408 and "--request-timeout" in reply["error"]["message"]
    status, data, _ = slow.ask("POST", "/v1/completions", {**LONG, "stream": True})
    assert status == 200 and "--request-timeout" in events(data)[-1]["error"]["message"]
    assert not slow.engine.is_busy
    slow.stop()


def test_who_is_cut_off_is_told_so(running):
    """When the grace is over, after a right beginning."""
    slow = Running(engine=SlowEngine, grace=0.1)
    connection = http.client.HTTPConnection("127.0.0.1", slow.port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps({**LONG, "stream": True}))
    reply = connection.getresponse()  # with the first piece
    slow.stop()
    *begun, last = events(reply.read())
    assert "shut down" in last["error"]["message"]
    text = "".join(event["choices"][0]["text"] for event in begun)
    assert text and running.ask("POST", "/v1/completions", LONG)[1]["choices"][0]["text"].startswith(text)


def test_a_trace_is_that_of_the_text(running):
    """At once and in events; the tokens are those of the completion, while others are served."""
    tracing = {**ASK, "max_tokens": 12, "top": 3, "temperature": 0.9}
    load = [
        threading.Thread(target=running.ask, args=("POST", "/v1/completions", {**ASK, "max_tokens": 60, "seed": i}))
        for i in range(4)
    ]
    for thread in load:
        thread.start()
    whole = running.ask("POST", "/v1/alea/trace", tracing)[1]
    data = running.ask("POST", "/v1/alea/trace", {**tracing, "stream": True})[1]
    for thread in load:
        thread.join()
    events = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
    first, *steps, last = map(json.loads, events[:-1])
    assert first["prompt_tokens"] == whole["prompt_tokens"] and [one["step"] for one in steps] == whole["steps"]
    assert (last["text"], last["usage"]) == (whole["text"], whole["usage"]) and events[-1] == b"[DONE]"
    del tracing["top"]
    text = running.ask("POST", "/v1/completions", tracing)[1]["choices"][0]["text"]
    assert whole["text"] == ASK["prompt"] + text and whole["seed"] == 7


REFUSED = [
    ("POST", "/v1/completions", {"prompt": "A", "top_p": 2}, 400, "top_p"),
    ("POST", "/v1/completions", b"{", 400, None),
    ("POST", "/v1/completions", b'{"prompt": "A", "temperature": NaN}', 400, "temperature"),
    ("POST", "/v1/completions", {**ASK, "model": "gpt"}, 404, "model"),
    ("POST", "/v1/completions", b" " * 5001, 413, None),
    ("POST", "/v1/embeddings", {}, 404, None),
    ("GET", "/v1/models/gpt", None, 404, "model"),
    ("PUT", "/v1/completions", {}, 405, None),
    ("POST", "/v1/alea/trace", {**ASK, "n": 2}, 400, "n"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "param"), REFUSED)
def test_refusals_have_one_shape(running, method, path, body, status, param):
    found, reply, _ = running.ask(method, path, body)
    assert (found, reply["error"]["param"]) == (status, param)
    assert set(reply["error"]) == {"message", "type", "param", "code"} and reply["error"]["message"]


def test_what_can_be_looked_at(running):
    assert running.ask("GET", "/health")[:2] == (200, {"status": "ok"})
    assert running.ask("GET", "/v1/models")[1]["data"][0]["id"] == "storyteller"
    assert running.ask("GET", "/version")[1]["definition"] == 2
    document = running.ask("GET", "/openapi.json")[1]
    assert {"/v1/completions", "/v1/models/{name}", "/generate_stream", "/v1/alea/trace"} <= set(document["paths"])


def test_metrics_count(running):
    def value(name: str) -> float:
        lines = running.ask("GET", "/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"alea:{name}{{"))

    names = (
        "generation_tokens_total",
        "prompt_tokens_total",
        "request_success_total",
        "inter_token_latency_seconds_count",
    )
    before = [value(name) for name in names]
    running.ask("POST", "/v1/completions", {**ASK, "n": 2})
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [10, 10, 2, 8]
    assert value("num_requests_running") == value("kv_cache_usage_perc") == 0


def test_a_full_queue_says_when_to_come_again(running):
    """8 texts grow and some 4 wait; nobody's answer is lost."""

    def ask(found: list) -> None:
        found.append(running.ask("POST", "/v1/completions", {**ASK, "max_tokens": 200, "n": 2, "ignore_eos": True}))

    found: list[Any] = []
    threads = [threading.Thread(target=ask, args=[found]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(status for status, *_ in found)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    for status, reply, headers in found:
        if status == 429:
            assert headers["retry-after"] and reply["error"]["code"] == "queue_full"
        else:
            assert [choice["index"] for choice in reply["choices"]] == [0, 1]


def test_keys():
    locked = Running("sesame", "open")
    assert locked.ask("GET", "/health")[0] == locked.ask("GET", "/")[0] == 200
    assert locked.ask("GET", "/v1/alea/model")[0] == locked.ask("POST", "/v1/alea/trace", ASK)[0] == 401
    status, reply, headers = locked.ask("GET", "/v1/models")
    assert (status, reply["error"]["code"]) == (401, "invalid_api_key") and headers["www-authenticate"] == "Bearer"
    assert locked.ask("GET", "/v1/models", Authorization="Bearer sesam")[0] == 401
    assert locked.ask("POST", "/v1/completions", ASK, Authorization="Bearer open")[0] == 200
    locked.stop()


def test_half_a_head_does_not_hold_a_connection(running, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    for sent in (b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b""


def test_a_long_head_is_refused(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        head = b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(100))
        connection.sendall(head + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_who_leaves_stops_its_text(running):
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        body = json.dumps({**ASK, "max_tokens": 500, "ignore_eos": True, "stream": True}).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        connection.recv(1000)
    until = time.monotonic() + 20
    while running.engine.running and time.monotonic() < until:
        time.sleep(0.01)
    assert not running.engine.running and running.engine.rows.usage == 0


def test_tokens_are_not_held_back():
    """asyncio switches Nagle's delay off only for sockets that say they are TCP."""
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken():
    with listening("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="--host"):
            listening("127.0.0.1", first.getsockname()[1])


def test_a_header_without_end_is_refused(running):
    """The parser shows a header only when it is whole."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"x" * 10000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_a_refused_body_that_never_ends_ends_its_connection(running):
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b" " * 6000)
        data = b""
        while part := connection.recv(1000):
            data += part
        assert data.startswith(b"HTTP/1.1 413")


def test_the_page_is_open_and_may_ask(running):
    """It needs no key, and nothing but what it holds: scripts and styles by their hashes, and this server."""
    status, page, headers = running.ask("GET", "/")
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert status == 200 and headers["content-type"].startswith("text/html") and headers["referrer-policy"]
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'") and "unsafe" not in str(policy)
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.decode(), re.DOTALL)
        assert policy[name] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
    assert not re.search(rb"@import|url\((?!#)|\bsrc=|innerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert set(re.findall(rb"https?://[^\"' ]*", page)) == {b"http://www.w3.org/2000/svg"}  # a name, never fetched
    host = f"127.0.0.1:{running.port}"
    assert running.ask("POST", "/v1/completions", ASK, Host=host, Origin=f"http://{host}")[0] == 200


def test_what_the_page_asks_of_the_model(running):
    facts = running.ask("GET", "/v1/alea/model")[1]
    tokenizer = Tokenizer.from_pretrained()
    assert facts["pieces"] == tokenizer.pieces(range(4096)) and facts["most_steps"] == 4096 and facts["has_chat"]
    assert (facts["model"], facts["window"]) == ("storyteller", 512)
    trace = running.ask("POST", "/v1/alea/trace", {"prompt": "A", "max_tokens": 1})[1]["steps"][0]["params"]
    off = SamplingParams()
    assert trace == {name: value for name, value in facts["defaults"].items() if value != getattr(off, name)}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_a_page_of_this_server_may_ask_by_every_name_of_this_machine(running, host):
    """Also on another port, as behind a tunnel."""
    for address in (f"{host}:{running.port}", f"{host}:9", host):
        assert running.ask("POST", "/v1/completions", ASK, Host=address, Origin=f"http://{address}")[0] == 200


FOREIGN = [  # Host, Origin
    ("evil.example", "http://evil.example"),  # rebound: the name points here now
    ("evil.example:8000", "http://evil.example:8000"),
    ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example"),
    ("10.1.2.3", "http://10.1.2.3"),  # an address, but none of this machine
    ("127.0.0.1:8000", "http://127.0.0.1:8001"),
    ("127.0.0.1:8000", "http://localhost:8000"),
    ("127.0.0.1:8000", "https://127.0.0.1:8000"),
    ("127.0.0.1:8000", "null"),
    ("127.0.0.1:8000", ""),
    ("localhost@evil.example", "http://localhost@evil.example"),
    ("[::1", "http://[::1"),
    ("", "http://"),
]


@pytest.mark.parametrize(("host", "origin"), FOREIGN)
def test_a_page_from_elsewhere_may_not_ask(running, host, origin):
    assert running.ask("POST", "/v1/completions", ASK, Host=host, Origin=origin)[0] == 403


def test_an_address_that_the_server_is_bound_to():
    """The one by which the connection came, where the server listens on all."""
    scope = {"scheme": "http", "server": ("10.1.2.3", 8000)}
    for host, is_allowed in (("10.1.2.3:8000", True), ("10.1.2.4:8000", False), ("evil.example:8000", False)):
        assert is_own(scope, f"http://{host}", {b"host": host}) == is_allowed
    assert not is_own({**scope, "server": None}, "http://10.1.2.3", {b"host": "10.1.2.3"})


def test_a_web_page_may_not_ask(running):
    status, reply, _ = running.ask("POST", "/v1/completions", ASK, Origin="http://evil.example")
    assert status == 403 and "--allowed-origins" in reply["error"]["message"]
