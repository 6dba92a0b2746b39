"""The page at /, in a real browser. Oracles: `trace_decoding` of the same request, and `samplers.sample`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from bench.speed.servers import Server
from model import Llama, Tokenizer
from model.chat.conversation import encode_chat
from model.study.decoding_trace import DecodingTrace, trace_decoding
from samplers import SamplingParams
from samplers.grammar import Grammar
from tests.model import pictures
from tests.model.browser import Browser
from tests.model.serve.running import eventually, is_at_rest, metrics, serving
from tests.model.study.shown import assert_shown, moved

READY = "!document.getElementById('generate').disabled"
CHECKED = "document.getElementById('check').textContent !== ''"
FAILED = "!document.getElementById('failure').hidden"
SETTINGS = {"temperature": 0.9, "top_k": 50, "top_p": 0.9}
ASKED = {"prompt": "The old king", "max_tokens": 12, "seed": 7, **SETTINGS}
LONG = {"prompt": "Once upon a time", "max_tokens": 500, "seed": 3, "temperature": 1}
KEY = "sesame"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve")) as server:
        yield server


def decoded(
    prompt: Any = "The old king", steps: int = 12, seed: int = 7, grammar: Grammar | None = None, **params: Any
) -> DecodingTrace:
    values = SamplingParams(**(SETTINGS | params))
    limits = dict(seed=seed, max_new_tokens=steps, top=12, grammar=grammar)
    return trace_decoding(Llama.from_pretrained(), Tokenizer.from_pretrained(), prompt, values, **limits)


def link(url: str, asked: dict[str, Any] = ASKED, **more: Any) -> str:
    return f"{url}/#{urlencode(asked | more)}"


def ids(browser: Browser, lane: int = 0) -> list[int]:
    """The tokens of a lane, from the names of its buttons."""
    buttons = f"[...document.querySelectorAll('.lane:nth-child({lane + 1}) > button')]"
    return browser.run(f"{buttons}.map((one) => Number(one.title.match(/, id (\\d+),/)[1]))")


def text_of(browser: Browser, name: str) -> str:
    return browser.run(f"document.getElementById({json.dumps(name)}).textContent")


def typed(browser: Browser, values: dict[str, Any]) -> None:
    for name, value in values.items():
        browser.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(str(value))}")


def click(browser: Browser, selector: str, nth: int = 0) -> None:
    browser.run(f"document.querySelectorAll({json.dumps(selector)})[{nth}].click()")


def test_stream_click_slide_share(browser: Browser, server: Server):
    """A prompt is typed; a token is clicked; sliders are moved; the link then tells all of it, and gives it again."""
    expected = decoded()
    browser.open(f"{server.url}/", READY)
    typed(browser, {"prompt": "The old king", "max_tokens": 12, "seed": 7})
    typed(browser, {f"a-{name}": value for name, value in SETTINGS.items()})
    click(browser, "#generate")
    browser.wait_for(CHECKED)
    assert ids(browser) == expected.ids
    assert "all 12 draws equal the engine’s, integer for integer" in text_of(browser, "check")
    click(browser, ".cell button", nth=2)
    assert text_of(browser, "step-heading") == f"Step 3 of 12: {expected.piece(expected.ids[2])}"
    for result in moved(browser, [{}, {"temperature-slider": 700}, {"top_p": "0.3"}, {"epsilon_cutoff-slider": 600}]):
        assert_shown(result, expected.steps[2])
    shared = browser.run("location.href")
    told = dict(parse_qsl(urlsplit(shared).fragment))
    assert told.pop("from").startswith("alea-") and told == {name: str(value) for name, value in ASKED.items()}
    browser.open(shared, CHECKED)
    assert ids(browser) == expected.ids and text_of(browser, "status").startswith("12 tokens")
    assert browser.problems == []


def test_a_hostile_link_is_text(browser: Browser, server: Server):
    """Markup in every place stays text, and a name that is no field asks for nothing."""
    markup = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    browser.open(link(server.url, prompt=markup, stop=markup, max_tokens=4), CHECKED)
    assert browser.run("document.getElementById('prompt').value") == markup and browser.problems == []
    browser.open(link(server.url, prompt=markup, seed=markup), FAILED)
    assert markup in text_of(browser, "failure-text")
    assert browser.run("document.images.length") == 0 and browser.run("document.scripts.length") == 1
    assert not any("dialog" in problem for problem in browser.problems)
    before = metrics(server.url)["generation_tokens_total"]
    for wrong in ({"onload": markup}, {"b.constructor": "1"}, {"messages": "[]"}, {"messages": '[{"role":"root"}]'}):
        browser.open(link(server.url, **wrong), "document.getElementById('status').textContent.startsWith('The link')")
    assert metrics(server.url)["generation_tokens_total"] == before and browser.problems == []


@pytest.mark.exhaustive
def test_the_drawn_seed_is_in_the_link(browser: Browser, server: Server):
    browser.open(f"{server.url}/", READY)
    typed(browser, {"prompt": "The king", "max_tokens": 5})
    seeds = []
    for button in ("#generate", "#another"):
        click(browser, button)
        browser.wait_for(CHECKED)
        shared, first = browser.run("location.href"), ids(browser)
        seeds.append(dict(parse_qsl(urlsplit(shared).fragment))["seed"])
        browser.open(shared, CHECKED)
        assert ids(browser) == first == decoded("The king", 5, int(seeds[-1]), temperature=0.8, top_k=0, top_p=0.95).ids
    assert seeds[0] != seeds[1] and browser.problems == []


@pytest.mark.exhaustive
def test_a_link_without_a_seed_asks_for_nothing(browser: Browser, server: Server):
    before = metrics(server.url)["generation_tokens_total"]
    browser.open(f"{server.url}/#prompt=The+king&top_k=3", READY)
    assert browser.run("document.getElementById('a-top_k').value") == "3"
    assert metrics(server.url)["generation_tokens_total"] == before and browser.problems == []


@pytest.mark.exhaustive
def test_a_link_from_another_model(browser: Browser, server: Server):
    """Its fingerprint is another: the page asks, and warns."""
    browser.open(link(server.url, {**ASKED, "from": "alea-2-0123"}), CHECKED)
    assert "another model" in text_of(browser, "warning") and ids(browser) == decoded().ids
    browser.open(browser.run("location.href"), CHECKED)  # now the page's own
    assert text_of(browser, "warning") == "" and browser.problems == []


@pytest.mark.exhaustive
def test_another_link_in_the_same_tab(browser: Browser, server: Server):
    browser.open(link(server.url), CHECKED)
    browser.run(f"location.hash = {json.dumps(urlsplit(link(server.url, seed=8)).fragment)}")
    browser.wait_for(f"document.getElementById('seed').value === '8' && {CHECKED}")
    assert ids(browser) == decoded(seed=8).ids and browser.problems == []


@pytest.mark.exhaustive
def test_compare(browser: Browser, server: Server):
    """Two settings, the same bits: both texts, their first difference, and each one's steps."""
    lanes = [decoded(), decoded(temperature=0.5)]
    at = next(i for i, (a, b) in enumerate(zip(lanes[0].ids, lanes[1].ids, strict=True)) if a != b)
    other = {"compare": "yes", "b.temperature": 0.5, "b.top_k": 50, "b.top_p": 0.9}
    browser.open(link(server.url, **other), CHECKED)
    assert [ids(browser, lane) for lane in (0, 1)] == [lane.ids for lane in lanes]
    pieces = [lane.piece(lane.ids[at]) for lane in lanes]
    assert text_of(browser, "difference") == (
        f"The first difference is at step {at + 1}: A draws {pieces[0]}, B draws {pieces[1]}."
    )
    marked = "[...document.querySelectorAll('.cell')].map((one) => one.classList.contains('differs'))"
    assert [i for i, is_marked in enumerate(browser.run(marked)) if is_marked] == [at]
    for lane in (1, 0):
        click(browser, f".cell.differs .lane:nth-child({lane + 1}) button")
        assert text_of(browser, "step-heading") == f"{'AB'[lane]}, step {at + 1} of 12: {pieces[lane]}"
        assert_shown(moved(browser, [{}])[0], lanes[lane].steps[at])
    browser.press("ArrowDown")
    assert text_of(browser, "step-heading").startswith(f"B, step {at + 1} ")
    dots = "document.querySelectorAll('#entropy-chart .dot%s').length"
    assert [browser.run(dots % name) for name in ("", ".b")] == [24, 12]
    assert "all 24 draws equal" in text_of(browser, "check") and browser.problems == []


@pytest.mark.exhaustive
def test_compare_with_a_seed_that_is_drawn(browser: Browser, server: Server):
    """B waits for the seed that A draws."""
    browser.open(f"{server.url}/", READY)
    typed(browser, {"prompt": "The king", "max_tokens": 6})
    click(browser, "#compare")
    click(browser, "#generate")
    browser.wait_for(CHECKED)
    assert ids(browser, 0) == ids(browser, 1) and text_of(browser, "difference") == "A and B are the same."
    assert browser.run("document.getElementById('seed').value") != "" and browser.problems == []


@pytest.mark.exhaustive
def test_chat(browser: Browser, server: Server):
    messages = [{"role": "system", "content": "You tell tales."}, {"role": "user", "content": "Who are you?"}]
    asked = {**ASKED, "messages": json.dumps(messages)}
    del asked["prompt"]
    browser.open(link(server.url, asked), CHECKED)
    prompt = encode_chat(Tokenizer.from_pretrained(), messages, "llama-2")  # of a folder that does not say
    found = ids(browser)
    assert found and found == decoded(prompt, 12).ids[: len(found)]
    assert browser.run("document.querySelectorAll('.message').length") == 2
    assert browser.run("document.querySelectorAll('.token.prompt').length") == len(prompt)
    click(browser, "#add-message")
    assert browser.run("document.querySelectorAll('.message select')[2].value") == "assistant"
    assert browser.problems == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "rule", "grammar"),
    [
        ("choice", " good\n bad\n", Grammar.choice([" good", " bad"])),
        ("regex", " [a-z]{2,5}!", Grammar.regex(" [a-z]{2,5}!")),
        ("json", '{"enum": ["red", 7]}', Grammar.json_schema({"enum": ["red", 7]})),
        ("grammar", 'root ::= " x" | " y"', Grammar.lark('root ::= " x" | " y"')),
    ],
)
def test_a_grammar(browser: Browser, server: Server, kind: str, rule: str, grammar: Grammar):
    """It is in the link; the trace shows its mask, and the tokens that it allows."""
    browser.open(link(server.url, grammar=kind, rule=rule), CHECKED)
    expected = decoded(grammar=grammar)
    assert ids(browser) == expected.ids
    assert browser.run("[document.getElementById('grammar').value, document.getElementById('rule').value]") == [
        kind,
        rule,
    ]
    assert browser.run("document.querySelector('#stages').textContent.includes('allowed')")
    shown = browser.run("document.querySelectorAll('#candidates tbody tr').length")
    assert shown >= len(expected.steps[0].candidates)
    assert browser.problems == []


@pytest.mark.exhaustive
def test_an_unknown_kind_of_grammar(browser: Browser, server: Server):
    browser.open(link(server.url, grammar="poem", rule="x"), "document.body.textContent.includes('names no grammar')")
    assert ids(browser) == []


@pytest.mark.exhaustive
def test_keys(browser: Browser, server: Server):
    browser.open(link(server.url), CHECKED)
    for key, step in (("End", 12), ("ArrowLeft", 11), ("Home", 1), ("ArrowRight", 2), ("ArrowDown", 2)):
        browser.press(key)
        assert text_of(browser, "step-heading").startswith(f"Step {step} of 12: ")
        assert browser.run("document.querySelectorAll('[aria-current]').length") == 1
    browser.run("document.getElementById('prompt').focus()")
    browser.press("End")  # the text's own, now
    assert text_of(browser, "step-heading").startswith("Step 2 ") and browser.problems == []


# ---- what goes wrong ----


class Cable:
    """Carries connections to a server. Once answers have had `left` bytes it holds the rest, until all is torn."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).hostname, urlsplit(url).port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.left: float = math.inf
        self.ends: list[socket.socket] = []
        self.torn = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, far = self.listener.accept()[0], socket.create_connection(self.address)
                self.ends += [near, far]
                threading.Thread(target=self.ask, args=(near, far), daemon=True).start()
                threading.Thread(target=self.answer, args=(far, near), daemon=True).start()

    def ask(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 12):
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def answer(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 12):
                near.sendall(data)
                self.left -= len(data)
                if self.left < 0:
                    self.torn.wait()
            near.shutdown(socket.SHUT_RDWR)

    def tear(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.ends, self.left = [], math.inf
        self.torn.set()

    def close(self) -> None:
        """And take no more."""
        self.listener.shutdown(socket.SHUT_RDWR)  # else a waiting `accept` takes one
        self.listener.close()
        self.tear()


@pytest.mark.exhaustive
def test_a_lost_connection(browser: Browser, server: Server):
    """What came stays and can be looked at; the button asks again, and the text is the whole one."""
    cable, expected = Cable(server.url), decoded()
    browser.open(f"{cable.url}/", READY)
    cable.left = 200_000  # a step has some 50,000
    browser.run(f"location.hash = {json.dumps(urlsplit(link(cable.url)).fragment)}")
    browser.wait_for("document.querySelectorAll('.cell').length > 1")
    cable.tear()
    browser.wait_for(FAILED)
    found = ids(browser)
    assert 0 < len(found) < 12 and found == expected.ids[: len(found)]
    assert text_of(browser, "failure-text") == "The connection to the server was lost. What came is below."
    browser.press("End")
    assert_shown(moved(browser, [{"temperature-slider": 700}])[0], expected.steps[len(found) - 1])
    click(browser, "#again")
    browser.wait_for("document.getElementById('check').textContent.includes('all 12 draws')")
    assert ids(browser) == expected.ids and not browser.run(FAILED)
    cable.close()


@pytest.mark.exhaustive
def test_no_connection(browser: Browser, server: Server):
    """The page is there, the server is not: it says so, and asks again."""
    cable = Cable(server.url)
    browser.open(f"{cable.url}/", READY)
    cable.close()
    typed(browser, {"prompt": "The king"})
    click(browser, "#generate")
    browser.wait_for(FAILED)
    assert text_of(browser, "failure-text") == "The connection to the server was lost."
    assert text_of(browser, "again") == "Try again"


@pytest.mark.exhaustive
@pytest.mark.parametrize("leaves", [False, True])
def test_stopping_or_leaving_ends_the_text(browser: Browser, server: Server, leaves: bool):
    cable = Cable(server.url)
    browser.open(f"{cable.url}/", READY)
    cable.left = 200_000
    browser.run(f"location.hash = {json.dumps(urlsplit(link(cable.url, LONG)).fragment)}")
    browser.wait_for("document.querySelectorAll('.cell').length > 1")
    assert not is_at_rest(server)
    if leaves:
        browser.load("about:blank")
    else:
        click(browser, "#stop-now")
        browser.wait_for("document.getElementById('status').textContent.startsWith('Stopped after ')")
        assert 0 < len(ids(browser)) < 400 and not browser.run(FAILED)
        assert browser.run("document.getElementById('stop-now').disabled")
    assert eventually(lambda: is_at_rest(server))
    cable.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        ({"top_p": 2}, 400, "top_p must be less than or equal to 1"),
        ({"max_tokens": 5000}, 400, "max_tokens: 4 prompt tokens + 5000 new"),
        ({"seed": "x"}, 400, "seed must be a valid integer"),
    ],
)
def test_a_refusal_is_shown(browser: Browser, server: Server, wrong: dict[str, Any], status: int, said: str):
    browser.open(link(server.url, **wrong), FAILED)
    text = text_of(browser, "failure-text")
    assert text.startswith(f"The server refuses, with status {status}: {said}") and ids(browser) == []
    assert browser.run("document.getElementById('again').offsetParent === null")  # it would be refused again


@pytest.mark.exhaustive
def test_a_refusal_of_one_of_two(browser: Browser, server: Server):
    """The page says whose settings are wrong."""
    browser.open(link(server.url, **{"compare": "yes", "b.top_p": 2}), FAILED)
    assert text_of(browser, "failure-text").startswith("B: The server refuses, with status 400: top_p must be")


@pytest.mark.exhaustive
def test_a_full_queue_is_shown(browser: Browser, tmp_path: Path):
    """And the button asks again, once there is room."""
    with serving(tmp_path, "--max-batch", 1, "--max-queue", 1) as narrow:
        browser.open(f"{narrow.url}/", READY)
        body = json.dumps({**LONG, "ignore_eos": True, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        busy = [socket.create_connection((urlsplit(narrow.url).hostname, urlsplit(narrow.url).port)) for _ in range(2)]
        for connection in busy:
            connection.sendall(head + body)
        assert eventually(lambda: metrics(narrow.url)["num_requests_waiting"] == 1)
        browser.run(f"location.hash = {json.dumps(urlsplit(link(narrow.url)).fragment)}")
        browser.wait_for(FAILED)
        assert "status 429: the queue is full" in text_of(browser, "failure-text")
        for connection in busy:
            connection.close()
        assert eventually(lambda: is_at_rest(narrow))
        click(browser, "#again")
        browser.wait_for(CHECKED)
        assert ids(browser) == decoded().ids


@pytest.mark.exhaustive
def test_a_key(browser: Browser, tmp_path: Path):
    """Asked for once in a tab; the link's text comes then. No key is in the link."""
    with serving(tmp_path, "--api-key", KEY) as locked:
        browser.open(link(locked.url), "!document.getElementById('key-form').hidden")
        assert "status 401" in text_of(browser, "failure-text")
        for key in ("wrong", KEY):
            typed(browser, {"key": key})
            click(browser, "#key-form button")
            browser.wait_for("!document.getElementById('key-form').hidden" if key == "wrong" else CHECKED)
        assert ids(browser) == decoded().ids and KEY not in browser.run("location.href")
        browser.open(link(locked.url, seed=8), CHECKED)
        assert ids(browser) == decoded(seed=8).ids
        assert browser.run("localStorage.length") == 0 and browser.run("document.cookie") == ""


# ---- looks ----


@pytest.mark.parametrize("picture", pictures.SIZES, ids=lambda path: path.name)
def test_the_pictures_of_the_docs(picture: Path):
    """Small enough for a repository; `python -m tests.model.pictures` renews them."""
    assert Image.open(picture).size == pictures.SIZES[picture] and picture.stat().st_size < 200_000


@pytest.mark.exhaustive
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (1920, False), (360, False), (360, True)])
def test_looks(browser: Browser, server: Server, width: int, dark: bool, tmp_path: Path):
    """A picture that is not blank, of the scheme asked for, and nothing that sticks out sideways."""
    other = {"compare": "yes", "b.temperature": 0.5}
    browser.open(link(server.url, **other), CHECKED, width, dark)
    folder = Path(os.environ.get("ALEA_SCREENSHOTS", tmp_path))
    image = browser.screenshot(folder / f"serve-{width}-{'dark' if dark else 'light'}.png").convert("L")
    pixels = np.asarray(image)
    assert browser.run("document.documentElement.scrollWidth") <= width and pixels.std() > 5
    assert (np.median(pixels) < 100) == dark and browser.problems == []


@pytest.mark.exhaustive
def test_every_input_has_a_name_and_is_reached_by_keyboard(browser: Browser, server: Server):
    browser.open(link(server.url, compare="yes"), CHECKED)
    shown = "[...document.querySelectorAll('input, button, textarea, select')].filter((one) => one.offsetParent)"
    name = "(one) => one.ariaLabel || one.textContent || one.labels[0].textContent"
    assert all(browser.run(f"{shown}.map({name})"))
    labels = browser.run("[...document.querySelectorAll('[aria-labelledby]')].map((one) => one.ariaLabelledByElements)")
    assert all(labels)
    reached = set()
    browser.run("document.activeElement.blur()")
    for _ in range(60):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.id || document.activeElement.className"))
    assert {"prompt", "a-top_k", "b-top_k", "seed", "generate", "compare", "token", "top_k-slider", "next"} <= reached
