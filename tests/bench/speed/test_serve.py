"""The load of `alea bench serve`. Oracles: a toy server of the standard library, whose answers and times are known."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.exactness import promise
from bench.peers.base import Unavailable
from bench.speed import goals, load, serve, servers
from bench.speed.client import Answer, Client
from bench.speed.requests import FIELDS, LENGTHS, Request, timed, varied
from bench.speed.servers import Server
from model.config import BUILT_IN
from tests.bench.command import run, saved


class Toy(BaseHTTPRequestHandler):
    """Repeats the prompt, streamed or at once; `reply` of the server makes the answer to a body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = self.server.reply(body)
        if text is None:
            return self.whole(400, {"error": {"message": "no"}})
        choice = {"index": 0, "finish_reason": "length", "logprobs": {"tokens": list(text)}}
        if not body.get("stream"):
            return self.whole(200, {"choices": [choice | {"text": text}]})
        parts = [{"index": 0, "text": c, "logprobs": {"tokens": [c]}, "finish_reason": None} for c in text]
        ends = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
        return self.stream([*({"choices": [part]} for part in [*parts, ends]), {"choices": []}])

    def whole(self, status: int, reply: Any) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events: list[Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        data = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
        for start in range(0, len(data), 50):  # an event is in several pieces
            piece = data[start : start + 50]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def toy():
    """Starts a server for a reply; returns its URL."""
    running = []

    def start(reply: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Toy)
        server.reply = reply
        server.handle_error = lambda *_: None  # clients that vanish
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown(), server.server_close()


def echo(body: dict[str, Any]) -> str:
    return str(body.get("prompt", body.get("messages")))


def server_of(url: str, **fields: Any) -> Server:
    return Server(process=None, url=url, version="toy 1", fields=fields)


def test_a_connection_serves_several_requests(toy):
    async def talk() -> list[Answer]:
        async with Client(toy(echo)) as client:
            bodies = [{"prompt": "abc", "stream": True}, {"prompt": "d"}, {"prompt": "e", "stream": True}]
            return [await client.post("/v1/completions", body) for body in bodies]

    one, two, three = asyncio.run(talk())
    assert one.is_streamed and one.is_done and not two.is_streamed
    assert [event["choices"][0]["text"] for _, event in one.events() if event["choices"]] == ["a", "b", "c", ""]
    assert two.json()["choices"][0]["text"] == "d" and three.events()[0][1]["choices"][0]["text"] == "e"
    times = [when for when, _ in one.events()]
    assert one.began < times[0] and times == sorted(times) and times[-1] <= one.ended


def test_an_event_comes_with_its_last_piece():
    pieces = [(1.0, b"data: [1"), (2.0, b"]\n\ndata: [2]\n"), (3.0, b"\ndata: [DONE]\n\n")]
    assert Answer(0.0, 200, pieces=pieces).events() == [(2.0, [1]), (2.0, [2])]


def answered(began: float, times: list[float], tokens: int) -> tuple[Request, Answer]:
    """A request for so many tokens, whose text came at these times."""
    parts = [{"text": "a", "finish_reason": None} for _ in times[:-1]] + [{"text": "b", "finish_reason": "length"}]
    pieces = [(t, f"data: {json.dumps({'choices': [p]})}\n\n".encode()) for t, p in zip(times, parts, strict=True)]
    answer = Answer(began, 200, pieces=[*pieces, (times[-1], b"data: [DONE]\n\n")])
    return Request("/", {"max_tokens": tokens}), answer


def test_figures_count_what_happens_in_time():
    """By hand, between 1 and 3: the second text of the first request, all of the second, the first of the third."""
    exchanges = [answered(0.0, [0.5, 1.5], 2), answered(1.5, [2.0, 2.25, 2.75], 6), answered(2.5, [2.9, 3.5], 2)]
    found = load.figures(exchanges, 1.0, 3.0)
    assert found["tokens_a_second"] == (1 + 6 + 1) / 2 and found["requests_a_second"] == 1
    assert found["first_token_milliseconds"] == pytest.approx(450)  # of 500 and 400
    assert found["gap_milliseconds"] == pytest.approx(500) and found["gap_p99_milliseconds"] == pytest.approx(1000)


@pytest.mark.parametrize("fault", ["status", "stop", "cut"])
def test_an_answer_that_is_not_whole_is_not_timed(fault):
    request, answer = answered(0.0, [1.0], 1)
    if fault == "status":
        answer.status = 500
    when, piece = answer.pieces[0]
    answer.pieces = answer.pieces[:-1] if fault == "cut" else answer.pieces
    answer.pieces[0] = (when, piece.replace(b"length", b"stop") if fault == "stop" else piece)
    with pytest.raises(RuntimeError, match="must be answered by all its tokens, got"):
        load.figures([(request, answer)], 0.0, 2.0)


def test_a_closed_loop(toy):
    """Each client has one request under way, and all get the server's fields."""
    bodies: list[dict[str, Any]] = []
    figures = load.of_server(server_of(toy(lambda body: bodies.append(body) or echo(body)), extra=1), 3, 0.4, 100)
    assert figures.keys() >= {"tokens_a_second", "first_token_p99_milliseconds", "gap_milliseconds"}
    assert [body["seed"] for body in sorted(bodies, key=lambda body: body["seed"])] == [*range(100, 100 + len(bodies))]
    assert len(bodies) > 3 and all(body["extra"] == 1 and body["stream"] for body in bodies)


def test_batches_hold_the_same_requests_as_a_load():
    batches = load.batches(100, 3)
    assert [[request.body["max_tokens"] for request in batch] for batch in batches] == [[n] * 3 for n in LENGTHS]
    assert all(request == timed(request.body["seed"]) and request.body["seed"] >= 100 for b in batches for request in b)


def test_requests_are_functions_of_their_numbers():
    requests = list(map(varied, range(500)))
    assert requests == list(map(varied, range(500)))
    assert {name for request in requests for name in request.body} >= {*FIELDS, "echo", "logprobs", "messages", "seed"}


def test_streamed_or_at_once_the_choices_are_the_same(toy):
    async def both() -> list[Answer]:
        async with Client(toy(echo)) as client:
            return [await client.post("/v1/completions", {"prompt": "abc", "stream": s}) for s in (True, False)]

    streamed, whole = map(promise.canonical, asyncio.run(both()))
    assert streamed == whole
    assert json.loads(whole) == [{"text": "abc", "logprobs": {"tokens": ["a", "b", "c"]}, "finish_reason": "length"}]


def test_chat_choices_in_their_order():
    parts = [(1, {"role": "assistant"}, None), (0, {"content": "a"}, None), (1, {"content": "b"}, None)]
    parts += [(0, {"content": "c"}, "stop"), (1, {}, "length")]
    events = [{"choices": [{"index": i, "delta": delta, "finish_reason": end}]} for i, delta, end in parts]
    data = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    answer = Answer(0.0, 200, {"content-type": "text/event-stream"}, [(1.0, data)])
    assert [(c["text"], c["finish_reason"]) for c in json.loads(promise.canonical(answer))] == [
        ("ac", "stop"),
        ("b", "length"),
    ]


def test_the_promise_holds(toy):
    promise.check(toy(echo), 40, clients=8)


def test_one_answer_that_differs_under_load_breaks_the_promise(toy):
    asked: list[Any] = []

    number = next(i for i in range(20) if "prompt" in varied(i).body)

    def forgetful(body: dict[str, Any]) -> str:
        asked.append(body)
        return echo(body) + "!" * (len(asked) > 20 and body.get("prompt") == varied(number).body["prompt"])

    with pytest.raises(RuntimeError, match=f"1 of 20 answers differ under load, the first: request {number}, "):
        promise.check(toy(forgetful), 20, clients=4)


def test_errors_are_no_answers(toy):
    with pytest.raises(RuntimeError, match="status 200 was expected, got 400"):
        promise.check(toy(lambda body: None), 1, clients=1)
    failing = Answer(
        0.0, 200, {"content-type": "text/event-stream"}, [(1.0, b'data: {"error": "x"}\n\ndata: [DONE]\n')]
    )
    with pytest.raises(RuntimeError, match="ends with an error: x"):
        promise.canonical(failing)


def test_a_peer_with_another_text_is_not_timed(toy):
    running = {"alea": server_of(toy(echo)), "same": server_of(toy(echo)), "other": server_of(toy(lambda body: "?"))}
    failed = serve.verify(running)
    assert list(failed) == ["other"] and failed["other"].startswith("its greedy texts are ['?', '?', '?', '?'], ours")


def test_prompts_hardly_ever_begin_alike():
    """Blocks of 16 tokens, some three clauses."""
    prompts = [timed(number).body["prompt"][:60] for number in range(500) if len(timed(number).body["prompt"]) > 150]
    assert len({*prompts}) > 0.95 * len(prompts)


def test_a_record(results, capsys):
    """Without peers: ours, verified and loaded, beside generate."""
    words = "--clients 1 --rounds 1 --seconds 0.5 --verify 2 --peers --save --check"
    run(serve, *words.split())
    (record,) = saved(results, "serve")
    assert (record["clients"], record["verified"], record["failed"]) == (1, 2, {})
    assert record["skipped"] == dict.fromkeys(("llama.cpp", "vllm"), "not asked for")
    assert list(record["tokens_a_second"]) == list(record["gap_milliseconds"]) == ["alea", "generate"]
    assert list(record["requests_a_second"]) == ["alea"] and "alea-sampling" in record["servers"]
    assert "gap_milliseconds: alea - generate <= 1 (clients 1)" in capsys.readouterr().out


def test_goals():
    speeds = {name: {"p50": value} for name, value in {"alea": 80.0, "generate": 100.0, "llama.cpp": 20.0}.items()}
    waits = {name: {"p50": value} for name, value in {"alea": 3.0, "generate": 1.5, "llama.cpp": 30.0}.items()}
    record = dict(clients=32, tokens_a_second=speeds, gap_milliseconds=waits, first_token_milliseconds=waits)
    found = list(goals.verdicts(goals.of_serving(), [record, record | {"clients": 1}]))
    states = [line.partition(":")[0] for line in found]
    assert states == ["missed", "missed", *(["holds", "not measured"] * 2)]  # llama.cpp, vllm
    assert found[0].endswith("got 0.8 in one case") and found[1].endswith("got 1.5 in one case")


def test_the_table_shows_who_was_measured():
    one = {"p20": 1.0, "p50": 2.0, "p80": 3.0}
    figures = {f"{what}_milliseconds": {"alea": one} for what in ("first_token", "first_token_p99", "gap_p99")}
    record = {"clients": 8, "tokens_a_second": {"alea": one, "generate": one}, "requests_a_second": {"alea": one}}
    _, lines = serve.table([record | figures | {"gap_milliseconds": {"alea": one, "generate": one}}])
    assert lines == [["8", "alea", "2", "2", "2 / 2", "2 / 2"], ["8", "generate", "2", "–", "– / –", "2 / –"]]


def test_frozen_servers_take_no_time():
    """Oracle: the processor time of a child that spins."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    spinning = Server(process, "", "")
    with servers.frozen([spinning]):
        before = seconds_of(process.pid)
        time.sleep(0.3)
        assert seconds_of(process.pid) - before < 0.1
    assert spinning.stop() == -signal.SIGTERM


def seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_server_that_does_not_start(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho nothing works >&2; exit 2\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"alea serve did not start: nothing works"):
        servers.alea(servers.Place(BUILT_IN, tmp_path, str(python))).__enter__()


def test_a_peer_that_is_not_installed(tmp_path):
    place = servers.Place(BUILT_IN, tmp_path)
    with pytest.raises(Unavailable, match="No module named 'not_here'"):
        place.version("not_here", "not-here")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clients", "0"], "--clients must be >= 1, got 0"),
        (["--peers", "tgi"], "--peers must be among llama.cpp, vllm, got 'tgi'"),
        (["--rounds", "0"], "--rounds must be >= 1, got 0"),
        (["--verify", "0"], "--verify must be >= 1, got 0"),
    ],
)
def test_refused_options(words, message):
    with pytest.raises(ValueError, match=message):
        run(serve, *words)
