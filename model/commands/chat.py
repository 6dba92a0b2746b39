"""`alea chat`: messages in, answers out, with a history."""

from __future__ import annotations

import argparse
import time

from model.chat.conversation import Conversation
from model.chat.session import ChatSession
from model.chat.templates import default_template, has_space_after_special, template_of
from model.commands.arguments import (
    SAMPLING,
    add_model_arguments,
    add_sampling_arguments,
    chosen_seed,
    given_sampling,
    load_model,
    model_folder,
    model_name,
)
from model.commands.chat_screen import Screen
from model.study.decoding_trace import DecodingTrace, trace_decoding
from samplers import SamplingParams

NEW_TOKENS = 512  # of an answer, or a quarter of the window where that is less
COMMAND_HELP = """\
/help                  this list
/system [TEXT]         show the system prompt, or set it; - for none
/params [NAME=VALUE]   show the sampling parameters, or set some
/trace                 the last answer, token by token
/reset                 forget what was said
/quit                  end the chat, as Ctrl-D does
A message that begins with / is written with //, and \\ at the end of a line continues it on the next."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    chat = parser.add_argument_group("chat", "messages are read from standard input; /help lists the commands")
    chat.add_argument(
        "--system", default="", metavar="TEXT", help="the system prompt: who the model is, how it answers"
    )
    chat.add_argument(
        "--template",
        metavar="NAME",
        help="chat format: llama-2, alpaca or plain; default the model's own, the storyteller's is plain",
    )
    chat.add_argument("--trigger", default="", metavar="TEXT", help='the beginning of every answer, such as "A:"')
    chat.add_argument(
        "--drop-oldest", action="store_true", help="forget the oldest messages if the window is full, and say so"
    )
    chat.add_argument(
        "-n",
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=f"tokens of an answer, reserved for it; default {NEW_TOKENS}, or a quarter of the window",
    )
    add_sampling_arguments(parser, "default: the model's generation_config.json; /params changes it")


def run(arguments: argparse.Namespace) -> int:
    folder = model_folder(arguments)
    template = arguments.template or default_template(folder)
    template_of(template)  # before the weights, which may take a while
    llama, tokenizer = load_model(arguments)
    window = llama.config.max_position_embeddings
    given = arguments.max_new_tokens
    if given is not None and not 1 <= given < window:
        raise ValueError(f"--max-new-tokens must be in 1 .. {window - 1}, the window less a token, got {given}")
    reserved = min(NEW_TOKENS, window // 4) if given is None else given
    conversation = Conversation(
        tokenizer,
        window=window,
        reserved=reserved,
        template=template,
        system=arguments.system,
        trigger=arguments.trigger,
        drop_oldest=arguments.drop_oldest,
        space_after_special=has_space_after_special(folder),
    )
    session = ChatSession(llama, tokenizer, conversation, chosen_seed(arguments), **given_sampling(arguments))
    screen = Screen()
    if screen.interactive:
        screen.note(f"{model_name(arguments)}, template {template}, window {window}, seed {session.seed}; /help helps")
    return converse(session, screen)


def parameter_names() -> list[str]:
    return [name.replace("-", "_") for name in SAMPLING]


def converse(session: ChatSession, screen: Screen) -> int:
    """Handle line after line until the end. A refused line does not end the chat; in a pipe the status becomes 2."""
    status, was_interrupted = 0, False
    while True:
        try:
            line = screen.read()
        except KeyboardInterrupt:
            if was_interrupted or not screen.interactive:
                raise
            was_interrupted = True
            screen.note("\nCtrl-C again ends the chat, as Ctrl-D and /quit do")
            continue
        was_interrupted = False
        if line is None or line.split() == ["/quit"]:
            return status
        try:
            handle(session, screen, line)
        except KeyboardInterrupt:
            if not screen.interactive:
                raise
            session.conversation.take_back()  # if no answer began
            screen.note("\nstopped")
        except (ValueError, TypeError, RuntimeError) as error:
            screen.error(str(error))
            status = 0 if screen.interactive else 2


def handle(session: ChatSession, screen: Screen, line: str) -> None:
    """A command, or a message."""
    if line.startswith("/") and not line.startswith("//"):
        name = line.split()[0]
        if name not in COMMANDS:
            raise ValueError(f"{name} is no command: {', '.join(COMMANDS)}, /quit; // begins a message with /")
        COMMANDS[name](session, screen, line.removeprefix(name).strip())
    elif line.strip():
        talk(session, screen, line.removeprefix("/") if line.startswith("//") else line)


def talk(session: ChatSession, screen: Screen, text: str) -> None:
    conversation = session.conversation
    prompt = conversation.ask(text)
    if prompt.dropped:
        turns = "turn" if prompt.dropped == 1 else f"{prompt.dropped} turns"
        screen.note(f"the oldest {turns} had to go for this to fit the window")
    screen.role("model")
    began = time.perf_counter()
    answer = session.reply(prompt, screen.write)
    seconds = time.perf_counter() - began
    screen.write("\n")
    if not screen.interactive:
        if answer.finish_reason == "interrupted":
            raise KeyboardInterrupt
        return
    end = {"interrupted": "stopped; ", "length": f"cut at -n {conversation.reserved}; "}.get(answer.finish_reason, "")
    speed = f"{len(answer.ids)} tokens, {len(answer.ids) / seconds:,.0f} a second"
    screen.note(f"{end}{speed}; {max(0, conversation.budget().left)} left for the next prompt")


def show_help(session: ChatSession, screen: Screen, words: str) -> None:
    screen.note(COMMAND_HELP)


def reset(session: ChatSession, screen: Screen, words: str) -> None:
    session.conversation.reset()
    screen.note("what was said is forgotten")


def system(session: ChatSession, screen: Screen, words: str) -> None:
    if words:
        session.conversation.system = "" if words == "-" else words
    text = session.conversation.system
    screen.note(f"system prompt: {text}" if text else "no system prompt")


def params(session: ChatSession, screen: Screen, words: str) -> None:
    if words:
        session.set_sampling(session.sampling | dict(parameter(word) for word in words.split()))
    values = {name: getattr(session.params, name) for name in parameter_names()}
    off = SamplingParams()
    shown = [f"{n}={v:g}" for n, v in values.items() if n == "temperature" or v != getattr(off, n)]
    screen.note(f"{' '.join(shown)}, the rest is off")


def parameter(word: str) -> tuple[str, float | int]:
    """name=value as a name of SamplingParams and its number."""
    given, equals, value = word.partition("=")
    name = {"temp": "temperature"}.get(given, given).replace("-", "_")
    if not equals or name not in parameter_names():
        raise ValueError(f"/params takes NAME=VALUE, NAME one of {', '.join(parameter_names())}; got {word!r}")
    kind = SAMPLING[name.replace("_", "-")][0]
    try:
        return name, kind(value)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise ValueError(f"{name} must be {wanted}, got {value!r}") from None


def trace(session: ChatSession, screen: Screen, words: str) -> None:
    with screen.waiting("following the answer"):
        trace = trace_answer(session)
    stream = session.answers[-1].stream
    screen.note(f"answer {stream + 1}: seed {session.seed}, stream {stream}; logprobs in nats")
    screen.trace(trace)


def trace_answer(session: ChatSession) -> DecodingTrace:
    """Every draw of the last answer. Raises: ValueError if there is none."""
    if not session.answers or not session.answers[-1].ids:
        raise ValueError("a trace needs an answer to follow, got none yet")
    answer = session.answers[-1]
    return trace_decoding(
        session.llama,
        session.tokenizer,
        answer.prompt,
        answer.params,
        seed=session.seed,
        stream=answer.stream,
        max_new_tokens=len(answer.ids),
        top=1,
    )


COMMANDS = {"/help": show_help, "/system": system, "/params": params, "/trace": trace, "/reset": reset}
