"""`alea chat` as its user meets it: piped, and in a pseudo-terminal. Oracles: `generate` on the rendered prompt."""

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from model import Llama, Tokenizer, generate
from model.chat.conversation import Conversation, encode_chat
from model.chat.session import ChatSession
from model.cli import main
from model.commands.chat import converse, trace_answer
from model.loading.weights import BUILT_IN
from samplers import SamplingParams

LLAMA, TOKENIZER = Llama.from_pretrained(), Tokenizer.from_pretrained()


@pytest.fixture
def chat(capsys, monkeypatch):
    """Runs `alea chat` on lines of standard input."""

    def run(lines: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        status = main(["chat", *arguments])
        return status, *capsys.readouterr()

    return run


def answer(messages: list[tuple[str, str]], stream: int, template: str = "plain", **options) -> str:
    """What `generate` says to the messages' ids, drawn with a stream."""
    ids = encode_chat(TOKENIZER, [{"role": role, "content": text} for role, text in messages], template)
    options = dict(stop_strings="\n", max_new_tokens=128, do_sample=True, seed=7) | options
    return generate(LLAMA, TOKENIZER, [ids], stream=[stream], **options)[0][0].text.strip()


def test_only_the_answers_are_on_stdout(chat):
    status, out, err = chat("Who are you?\n\n/reset\nTell me of the dragon.\nWhy?\n", "--seed", "7", "--system", "Now.")
    first = answer([("system", "Now."), ("user", "Who are you?")], 0)
    said = [("system", "Now."), ("user", "Tell me of the dragon.")]
    second = answer(said, 1)
    third = answer([*said, ("assistant", second), ("user", "Why?")], 2)
    assert status == 0 and out == f"{first}\n{second}\n{third}\n"
    assert err == "what was said is forgotten\n"


def test_a_session_is_repeatable(chat):
    lines = "The king\nThe king\n/params temperature=0.5\nThe king\n"
    one, two, other = (chat(lines, "--seed", seed, "-n", "20") for seed in "778")
    assert one == two and one[1] != other[1]
    answers = one[1].splitlines()
    assert len(set(answers)) == 3  # each has a stream of its own


def test_options_reach_the_model(chat):
    out = chat("The king\n", "--temperature", "0", "--template", "llama-2", "--trigger", "A:", "-n", "9")[1]
    ids = encode_chat(TOKENIZER, [{"role": "user", "content": "The king"}], trigger="A:")
    greedy = generate(LLAMA, TOKENIZER, [ids], max_new_tokens=9, do_sample=False)[0][0].text
    assert out == f"A:{greedy}".strip() + "\n"


def test_parameters(chat):
    lines = (
        "/params\n/params top-k=5 temp=0.3\n/params\n/params top_p=2\n/params top_k=x\n/params foo=1 top_k=7\n/params\n"
    )
    names = [f.name for f in fields(SamplingParams) if f.name != "logit_bias"]
    status, out, err = chat(lines, "--top-p", "0.9")
    assert status == 2 and out == ""
    assert err.splitlines() == [
        "temperature=0.8 top_p=0.9, the rest is off",
        "temperature=0.3 top_k=5 top_p=0.9, the rest is off",
        "temperature=0.3 top_k=5 top_p=0.9, the rest is off",
        "alea chat: top_p must be in [0, 1], got 2.0",
        "alea chat: top_k must be an integer, got 'x'",
        f"alea chat: /params takes NAME=VALUE, NAME one of {', '.join(names)}; got 'foo=1'",
        "temperature=0.3 top_k=5 top_p=0.9, the rest is off",
    ]


def test_commands(chat):
    status, out, err = chat("/help\n/system\n/system You are a king.\n/system\n/system -\n/quit\nThe king\n")
    assert status == 0 and out == ""
    for command in ("/help", "/system", "/params", "/trace", "/reset", "/quit"):
        assert f"\n{command} " in f"\n{err}"
    assert err.splitlines()[-4:] == ["no system prompt", *["system prompt: You are a king."] * 2, "no system prompt"]
    status, out, err = chat("/foo\n/trace\n", "--seed", "7")
    assert status == 2 and out == "" and "/foo is no command: /help, /system" in err
    assert "a trace needs an answer to follow, got none yet" in err


def test_slashes_and_lines_that_go_on(chat):
    out = chat("//help me\\\nto a king\n", "--seed", "7")[1]
    assert out == answer([("user", "/help me\nto a king")], 0) + "\n"


@pytest.mark.parametrize("options", [dict(top_p=0.5), dict(temperature=1.2, top_k=40, repetition_penalty=1.2)])
def test_a_trace_is_of_the_last_answer(chat, options):
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    _, out, err = chat("Hm\nWho are you?\n/trace\n", "--seed", "7", "-n", "30", *words)
    first = answer([("user", "Hm")], 0, max_new_tokens=30, **options)
    said = [("user", "Hm"), ("assistant", first), ("user", "Who are you?")]
    ids = encode_chat(TOKENIZER, [{"role": role, "content": text} for role, text in said], "plain")
    drawn = generate(
        LLAMA, TOKENIZER, [ids], stream=[1], seed=7, max_new_tokens=30, stop_strings="\n", do_sample=True, **options
    )[0][0]
    assert out == f"{first}\n{drawn.text.strip()}\n" and "answer 2: seed 7, stream 1" in err
    rows = [line.split() for line in re.split("─ *\n", err)[1].strip().splitlines()]
    assert [row[0] for row in rows] == TOKENIZER.pieces(drawn.ids)
    assert [float(row[2]) for row in rows] == pytest.approx(drawn.model_logprobs, abs=6e-4)
    assert [float(row[3]) for row in rows] == pytest.approx(drawn.logprobs, abs=6e-4)
    assert all(row[5] == "4,096" and row[6] == "→" for row in rows)


def test_a_full_window(chat):
    lines = "".join("king " * n + "\n" for n in (200, 210, 220))
    options = ("--seed", "7", "-n", "20")
    status, out, err = chat(lines, *options)
    assert (
        status == 2 and "alea chat: the prompt must fit, got 22" in err and "512 window - 20 answer - 0 system" in err
    )
    status, whole, err = chat(lines, *options, "--drop-oldest")
    assert status == 0 and "the oldest turn had to go for this to fit the window" in err
    assert whole.startswith(out) and len(whole) > len(out)


@pytest.fixture
def folder(llama_folder) -> Path:
    """Random weights that never end a text, with the storyteller's tokenizer."""
    folder = llama_folder(vocab_size=4096, max_position_embeddings=20000, eos_token_id=None)
    (folder / "tokenizer.model").write_bytes((BUILT_IN / "tokenizer.model").read_bytes())
    return folder


def test_a_folder(chat, folder):
    """Llama-2's template, with the space after special tokens unless the folder's tokenizer has none."""
    for legacy in (True, False):
        (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
        ids = encode_chat(TOKENIZER, [{"role": "user", "content": "The king"}], space_after_special=legacy)
        greedy = generate(Llama.from_pretrained(folder), TOKENIZER, [ids], max_new_tokens=9, do_sample=False)
        out = chat("The king\n", str(folder), "--temperature", "0", "-n", "9")[1]
        assert out == greedy[0][0].text.strip() + "\n"


def test_a_folder_with_another_template(chat, folder):
    (folder / "tokenizer_config.json").write_text('{"chat_template": "<|user|>"}')
    status, _, err = chat("The king\n", str(folder))
    assert status == 2 and err.endswith("--template must say which to use: llama-2, alpaca, plain\n")
    assert chat("The king\n", str(folder), "--seed", "1", "-n", "5", "--template", "plain")[0] == 0


def test_bytes_that_are_no_text_cost_their_line_alone(capsys, monkeypatch):
    lines = io.TextIOWrapper(io.BytesIO(b"A k\xffng\nThe king\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", lines)
    status = main(["chat", "--temperature", "0", "-n", "9"])
    out, err = capsys.readouterr()
    assert status == 2 and err.count("\n") == 1 and "text must be valid Unicode" in err
    assert out == answer([("user", "The king")], 0, do_sample=False, max_new_tokens=9) + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--template", "vicuna"], "template must be one of llama-2, alpaca, plain, got 'vicuna'"),
        (["-n", "512"], "--max-new-tokens must be in 1 .. 511, the window less a token, got 512"),
        (["--top-p", "1.5"], "top_p must be in [0, 1], got 1.5"),
        (["nowhere"], "nowhere: no such folder"),
        (["a", "-m", "b"], "MODEL must be given once"),
    ],
)
def test_errors_at_the_start(chat, words, message):
    status, out, err = chat("The king\n", *words)
    assert status == 2 and out == "" and err.startswith("alea chat: ") and message in err


def test_control_c_ends_a_pipe(chat, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("model.decoding.sampling.decode", interrupted)
    assert chat("The king\nThe queen\n")[0] == 130


def session(**options) -> ChatSession:
    return ChatSession(LLAMA, TOKENIZER, Conversation(TOKENIZER, window=512, reserved=20, **options), seed=7)


@pytest.mark.parametrize("trigger", ["", "A:"])
@pytest.mark.parametrize("template", ["llama-2", "alpaca", "plain"])
def test_what_is_shown_is_the_answer(template, trigger):
    one, shown = session(template=template, trigger=trigger), []
    first = one.say("The king", shown.append)
    assert "".join(shown) == first.text == one.conversation.messages[-1]["content"] and first.text.startswith(trigger)
    one.set_sampling({"temperature": 0.0})  # for what comes
    trace = trace_answer(one)
    assert trace.ids == first.ids and trace.prompt_ids == first.prompt
    assert trace.prompt == TOKENIZER.decode(first.prompt)
    ids = one.conversation.ask("Why?").ids
    assert ids == encode_chat(TOKENIZER, one.conversation.messages, template, trigger)


def test_control_c_keeps_what_was_said():
    one, shown = session(), []

    def on_text(text: str) -> None:
        shown.append(text)
        if len(shown) == 3:
            raise KeyboardInterrupt

    answer = one.say("The king", on_text)
    assert answer.finish_reason == "interrupted" and answer.text == "".join(shown)
    assert [message["content"] for message in one.conversation.messages] == ["The king", answer.text]
    assert one.say("Why?").stream == 1  # alive


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_message_that_got_no_answer_is_taken_back(monkeypatch, error):
    one = session(trigger="A:")

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("model.chat.session.generate_batch", fails)
        with contextlib.nullcontext() if error is KeyboardInterrupt else pytest.raises(error):
            one.say("The king")
    assert one.conversation.messages == []
    with pytest.raises(ValueError, match="a trace needs an answer"):
        trace_answer(one)
    assert one.say("The king").text


class Scripted:
    """A screen whose person types what a list says; the first answer is interrupted before it begins."""

    interactive = True

    def __init__(self, *lines: str | None) -> None:
        self.lines, self.notes, self.shown, self.roles = iter(lines), [], "", 0

    def read(self) -> str | None:
        line = next(self.lines)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    def role(self, _: str) -> None:
        self.roles += 1
        if self.roles == 1:
            raise KeyboardInterrupt

    def write(self, text: str) -> None:
        self.shown += text

    def note(self, text: str) -> None:
        self.notes.append(text.strip())


def test_control_c_at_any_time():
    """Between messages it warns, each time again; before an answer it takes the message back."""
    one, screen = session(), Scripted("^C", "The king", "^C", "The queen", None)
    assert converse(one, screen) == 0
    warning = "Ctrl-C again ends the chat, as Ctrl-D and /quit do"
    assert screen.notes[:3] == [warning, "stopped", warning] and "left for the next prompt" in screen.notes[3]
    assert [message["content"] for message in one.conversation.messages] == ["The queen", screen.shown.rstrip("\n")]
    with pytest.raises(KeyboardInterrupt):
        converse(one, Scripted("^C", "^C"))


class Terminal:
    """A command in a pseudo-terminal of 80 columns."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
            os.execve(sys.executable, [sys.executable, "-m", "model.cli", *words], environment)
        self.text, self.seen = "", 0

    def read(self) -> None:
        """What comes within half a second."""
        if select.select([self.fd], [], [], 0.5)[0]:
            with contextlib.suppress(OSError):  # how Linux says that the other side is closed
                self.text += os.read(self.fd, 1 << 16).decode(errors="replace")

    def until(self, wanted: str, seconds: float = 60) -> str:
        """What comes up to `wanted`, which is waited for."""
        end = time.monotonic() + seconds
        while (at := self.text.find(wanted, self.seen)) < 0:
            self.read()
            if time.monotonic() > end:
                pytest.fail(f"{wanted!r} did not come after {self.text[self.seen :]!r}")
        start, self.seen = self.seen, at + len(wanted)
        return self.text[start:at]

    def more(self, characters: int) -> None:
        """Wait for so many, whatever they are."""
        size, end = len(self.text) + characters, time.monotonic() + 60
        while len(self.text) < size and time.monotonic() < end:
            self.read()

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ask(self, line: str, wanted: str) -> str:
        """Answer the next prompt with a line, and wait for something."""
        self.until("you:")
        self.type(line + "\r")
        return self.until(wanted)

    def status(self) -> int:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        pytest.fail(f"it did not end after {self.text[-300:]!r}")


@pytest.fixture
def terminal():
    opened = []

    def run(*words: str) -> Terminal:
        opened.append(Terminal(*words))
        return opened[-1]

    yield run
    for one in opened:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has ended
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        os.close(one.fd)


@pytest.mark.exhaustive
def test_in_a_terminal(terminal, folder):
    """Ten thousand tokens are not over before Ctrl-C ends them."""
    one = terminal("chat", str(folder), "-n", "10000", "--seed", "1")
    assert "llama, template llama-2, window 20000, seed 1" in one.until("/help helps")
    one.ask("Hello", "model:")
    one.more(200)
    one.type("\x03")
    one.until("stopped; ")
    count = int(one.until(" tokens, "))
    assert 0 < count < 10000
    one.ask("/params top_k=3", "temperature=1 top_k=3, the rest is off")
    one.ask("/trace", "left after")
    assert one.until("you:").count("4,096") == count  # a line a token
    one.type("/nonsense\r")
    one.until("/nonsense is no command")
    one.ask("/system You are a king.", "system prompt: You are a king.")
    one.ask("Bye", "model:")  # the session is alive
    one.type("\x03")  # perhaps before the first word
    one.until("stopped")
    one.ask("/reset", "what was said is forgotten")
    one.until("you:")
    time.sleep(0.5)  # until the line is being edited
    one.type("\x03")
    one.until("Ctrl-C again ends the chat")
    one.ask("/quit", "\n")
    assert one.status() == 0 and "Traceback" not in one.text
    assert not [c for c in one.text if ord(c) < 32 and c not in "\r\n\t\b\a\x1b"]  # the model's are not passed on


@pytest.mark.exhaustive
def test_control_c_twice_and_control_d(terminal):
    one = terminal("chat", "--seed", "7")
    one.ask("Who are you?", "model:")
    shown = one.until(" left for the next prompt")
    assert answer([("user", "Who are you?")], 0) in re.sub(r"\s+", " ", shown)
    for _ in range(2):
        one.until("you:")
        time.sleep(0.5)
        one.type("\x03")
    assert one.status() == 130 and one.text.count("Ctrl-C again") == 1
