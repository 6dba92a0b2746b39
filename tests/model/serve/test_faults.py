"""`alea serve` among clients that misbehave.

Oracles: the answer of a client that is alone, which others still get, to the byte; what the server holds at rest.
"""

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from bench.exactness import promise
from bench.speed.client import Answer, Client
from bench.speed.requests import COMPLETIONS, Request, timed
from bench.speed.servers import Server
from tests.model.serve.malformed import malformed
from tests.model.serve.running import Held, eventually, is_at_rest, metrics, posted, serving

LONG = Request(
    COMPLETIONS, {"prompt": "Once upon a time", "max_tokens": 400, "seed": 7, "ignore_eos": True, "stream": True}
)
SOUND = [timed(number).streamed(False) for number in range(4)]
BATCH, QUEUE = 2, 8
MEMORY = 48 << 20  # bytes that a server may have grown by; a leak of every request's answer takes more


def counts(fast: int, all_of_them: int) -> list[object]:
    return [fast, pytest.param(all_of_them, marks=pytest.mark.exhaustive)]


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve"), "--max-batch", BATCH, "--max-queue", QUEUE) as server:
        yield server


POOLED = 8  # threads of pools, which grow once: asyncio's, for slow work on a body, and two for grammars


@pytest.fixture(scope="module")
def expected(started) -> list[bytes]:
    """The answers to SOUND."""
    return sound_answers(started)


def sound_answers(server: Server) -> list[bytes]:
    return [promise.canonical(a) for a in posted(server.url, *((request.path, request.body) for request in SOUND))]


@pytest.fixture
def server(started, expected) -> Iterator[Server]:
    """After the test it must be at rest, hold nothing more than before, and give the same answers."""
    before = Held.of(started)
    yield started
    assert eventually(lambda: is_at_rest(started))
    assert eventually(lambda: Held.of(started).threads <= before.threads + POOLED)
    assert eventually(lambda: Held.of(started).descriptors <= before.descriptors + 1)  # that of /metrics itself
    assert Held.of(started).memory < before.memory + MEMORY
    assert sound_answers(started) == expected


def connected(url: str, **options: int) -> socket.socket:
    """A bare connection; options: of the socket."""
    address = urlsplit(url)
    connection = socket.socket()
    for name, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    connection.connect((address.hostname, address.port))
    connection.settimeout(20)
    return connection


def as_bytes(request: Request) -> bytes:
    body = json.dumps(request.body).encode()
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (request.path.encode(), len(body), body)


@pytest.mark.parametrize("count", counts(8, 400))
@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_vanish(server, count, stream):
    """At any time: before the first token and in the middle, with an answer that comes in pieces or at once."""
    moments = random.Random(count)

    async def vanish() -> None:
        async with Client(server.url) as client:
            answering = asyncio.ensure_future(client.post(LONG.path, LONG.streamed(stream).body))
            await asyncio.wait([answering], timeout=moments.random() * 0.1)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def all_of_them() -> None:
        for _ in range(count // 4):
            await asyncio.gather(*(vanish() for _ in range(4)))

    asyncio.run(all_of_them())


def test_clients_that_vanish_from_the_queue(server):
    """More than the batch holds, all at once."""
    waiting = [connected(server.url) for _ in range(BATCH + QUEUE)]
    for connection in waiting:
        connection.sendall(as_bytes(LONG))
    assert eventually(lambda: metrics(server.url)["num_requests_waiting"] == QUEUE)
    for connection in waiting:
        connection.close()


def test_clients_that_read_slowly(server, expected):
    """They hold up nobody, and get their whole answer once they read it."""
    alone = promise.canonical(*posted(server.url, (LONG.path, LONG.body)))
    slow = [connected(server.url, SO_RCVBUF=4096) for _ in range(BATCH)]
    for connection in slow:
        connection.sendall(as_bytes(LONG))
    assert sound_answers(server) == expected
    assert eventually(lambda: is_at_rest(server))  # generated, though nobody has read
    for connection in slow:
        assert promise.canonical(read_slowly(connection)) == alone


def read_slowly(connection: socket.socket) -> Answer:
    """A streamed answer, some bytes at a time."""
    with closing(connection):
        data = b""
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += connection.recv(700)
    head, _, rest = data.partition(b"\r\n\r\n")
    pieces = []
    while (size := int(rest[: rest.index(b"\r\n")], 16)) > 0:
        start = rest.index(b"\r\n") + 2
        pieces.append((0.0, rest[start : start + size]))
        rest = rest[start + size + 2 :]
    return Answer(0.0, int(head.split()[1]), {"content-type": "text/event-stream"}, pieces)


@pytest.mark.parametrize("count", counts(8, 100))
def test_requests_that_are_never_whole(server, expected, count):
    """Of every kind: nothing, half a line, half a header, no body, half a body, less than a chunk."""
    whole = as_bytes(LONG)
    chunked = whole.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ").partition(b"{")[0] + b"ff\r\n{"
    halves = [b"", whole[:7], whole[:40], whole[: whole.index(b"{")], whole[:-10], chunked]
    open_ones = [connected(server.url) for _ in range(count) for _ in halves]
    for number, connection in enumerate(open_ones):
        connection.sendall(halves[number % len(halves)])
    assert sound_answers(server) == expected
    for connection in open_ones:
        connection.close()


NO_HTTP = {
    "word": b"hello\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n",
    "negative": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n{}",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "chunk": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "long header": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %s\r\n" % (b"a" * 200_000) + b"\r\n",
    "long path": b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 200_000),
}


def test_what_is_no_http_is_refused(server):
    """A status of 400 and above, or a closed connection; never an answer, never a wait."""
    for name, data in NO_HTTP.items():
        with closing(connected(server.url)) as connection:
            try:
                connection.sendall(data)
                reply = connection.recv(1000)
            except (ConnectionResetError, BrokenPipeError):
                reply = b""
        assert not reply or 400 <= int(reply.split()[1]) < 500, name


@pytest.mark.parametrize("count", counts(100, 10_000))
def test_malformed_bodies(server, count):
    """Every one is answered; where it is refused, then in OpenAI's shape and with a reason."""
    statuses: dict[int, int] = {}

    async def ask(numbers: Iterator[int]) -> None:
        async with Client(server.url) as client:
            for number in numbers:
                path, body = malformed(number)
                answer = await client.post(path, body)
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                assert answer.status == 200 or is_refusal(answer), (
                    number,
                    path,
                    body[:300],
                    answer.status,
                    answer.body,
                )

    async def all_of_them() -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(ask(numbers) for _ in range(4)))

    asyncio.run(all_of_them())
    assert sum(statuses.values()) == count and statuses[400] > count // 2 and statuses.keys() <= {200, 400, 404}


def is_refusal(answer: Answer) -> bool:
    error = answer.json()["error"]
    named = error["param"] is None or isinstance(error["param"], str)
    return error.keys() == {"message", "type", "param", "code"} and bool(error["message"]) and named


def test_a_queue_that_is_ten_times_full(server, expected):
    """Each request has its right answer, or is told to come again later."""
    count = 10 * (BATCH + QUEUE)

    async def ask(number: int) -> Answer:
        async with Client(server.url) as client:
            return await client.post(COMPLETIONS, SOUND[number % len(SOUND)].streamed(number % 3 == 0).body)

    async def at_once() -> list[Answer]:
        return await asyncio.gather(*map(ask, range(count)))

    answers = asyncio.run(at_once())
    refused = [answer for answer in answers if answer.status != 200]
    for number, answer in enumerate(answers):
        if answer.status == 200:
            assert promise.canonical(answer) == expected[number % len(SOUND)]
    assert all(answer.status == 429 and is_refusal(answer) for answer in refused)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert QUEUE <= len(answers) - len(refused) < count


def in_mid_stream(server: Server, requests: int, then: Callable[[], None]) -> tuple[list[Answer], Answer | None]:
    """Long streams, `then` called when each has begun; returns their answers, and that to a request after it.

    The late one comes on a connection that is open, and is None where the server has closed that.
    """

    async def talk() -> tuple[list[Answer], Answer | None]:
        clients, late = [Client(server.url) for _ in range(requests)], Client(server.url)
        await late.get("/health")
        answers = [await client.begin("POST", LONG.path, json.dumps(LONG.body).encode()) for client in clients]
        pieces = [client.pieces(answer) for client, answer in zip(clients, answers, strict=True)]
        for each in pieces:
            await anext(each)
        then()
        await asyncio.sleep(0.1)
        try:
            after = await late.post(SOUND[0].path, SOUND[0].body)
        except (ConnectionError, asyncio.IncompleteReadError):
            after = None
        await asyncio.gather(*(rest(each) for each in pieces))
        return answers, after

    async def rest(pieces) -> None:
        async for _ in pieces:
            pass

    return asyncio.run(talk())


def test_sigterm_in_mid_stream(tmp_path):
    """Streams come to their end, new requests are refused, and the exit status is 0."""
    with serving(tmp_path) as server:
        (alone,) = posted(server.url, (LONG.path, LONG.body))
        answers, after = in_mid_stream(server, 3, server.process.terminate)
        assert [promise.canonical(answer) for answer in answers] == [promise.canonical(alone)] * 3
        assert after is None or (after.status == 503 and is_refusal(after))
        assert server.process.wait(20) == 0


@pytest.mark.exhaustive  # in a thread of this process: http/test_app.py
def test_sigterm_with_little_grace(tmp_path):
    """Whoever is cut off is told so, after a right beginning; half a request holds up nothing."""
    with serving(tmp_path, "--grace", 0.2) as server, closing(connected(server.url)) as half:
        half.sendall(as_bytes(LONG)[:-10])
        (alone,) = posted(server.url, (LONG.path, LONG.body))
        began = time.monotonic()
        answers, _ = in_mid_stream(server, 3, server.process.terminate)
        assert server.process.wait(20) == 0 and time.monotonic() - began < 10
    for answer in answers:
        *begun, last = [event for _, event in answer.events()]
        assert last["error"]["message"] and begun
        assert text_of(alone).startswith("".join(event["choices"][0]["text"] for event in begun if event["choices"]))


def text_of(answer: Answer) -> str:
    return json.loads(promise.canonical(answer))[0]["text"]
