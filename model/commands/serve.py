"""`alea serve`: the model behind an HTTP API that OpenAI's clients speak."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from model.chat.templates import TEMPLATES
from model.commands.arguments import add_model_arguments, checked_text, load_model, model_folder
from model.commands.terminal import show, waiting
from model.serve.engine.engine import Engine
from samplers.extras import how_to_install
from samplers.params import integer

KEY_VARIABLE = "ALEA_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="of the model in requests; may be given several times; default the folder's, or storyteller",
    )
    parser.add_argument(
        "--template", choices=tuple(TEMPLATES), help="chat format; default the model's own, the storyteller's is plain"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", metavar="H", help="default 127.0.0.1: this machine alone")
    network.add_argument("--port", type=int, default=8000, metavar="N", help="default 8000; 0 takes a free one")
    network.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help=f"requests must bring it; may be given several times; default ${KEY_VARIABLE}, or none",
    )
    network.add_argument(
        "--allowed-origins", nargs="+", default=[], metavar="URL", help="web pages that may ask; default none"
    )
    network.add_argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="of a request; default 1 MiB")
    load = parser.add_argument_group("load")
    load.add_argument("--max-batch", type=int, default=32, metavar="N", help="texts that grow at a time; default 32")
    load.add_argument("--max-queue", type=int, default=256, metavar="N", help="texts that may wait; default 256")
    load.add_argument(
        "--chunk", type=int, default=128, metavar="N", help="prompt tokens that a step reads at most; default 128"
    )
    load.add_argument(
        "--cache-tokens", type=int, metavar="N", help="that the key-value cache holds; default --max-batch windows"
    )
    load.add_argument(
        "--request-timeout", type=float, default=600, metavar="S", help="seconds for a request; default 600, 0 for any"
    )
    load.add_argument(
        "--grace", type=float, default=30, metavar="S", help="seconds to finish after SIGTERM; default 30"
    )
    load.add_argument(
        "--max-grammar-seconds",
        type=float,
        default=5,
        metavar="S",
        help="that a request may wait for its grammar to be compiled; default 5",
    )
    parser.add_argument(
        "--log", choices=("errors", "requests", "prompts"), default="errors", help="on stderr; default errors"
    )


def run(arguments: argparse.Namespace) -> int:
    check_options(arguments)
    start_logging(arguments.log)
    try:
        from model.commands.serving import default_name, service_of
        from model.serve.http import server
        from model.serve.http.metrics import Metrics
    except ModuleNotFoundError as error:
        raise RuntimeError(f"needs {error.name}: {how_to_install('serve')}") from None
    listener = server.listening(arguments.host, arguments.port)
    with waiting("loading the model"):
        llama, tokenizer = load_model(arguments)
        metrics = Metrics((arguments.name or [default_name(model_folder(arguments))])[0])
        engine = Engine(llama, arguments.max_batch, arguments.chunk, arguments.cache_tokens, metrics)
        metrics.watch(engine)
        service = service_of(arguments, llama, tokenizer, engine)
    if llama.why_not_exact:
        print(f"alea serve: an answer may depend on the load, since {llama.why_not_exact}", file=sys.stderr)
    ready = f"alea serve: {server.url(listener)} serves {service.name}, {service.fingerprint}; Ctrl-C ends it\n"
    options = server.Options(
        arguments.max_queue,
        arguments.max_body,
        arguments.grace,
        tuple(arguments.api_key or ()),
        tuple(arguments.allowed_origins),
    )
    server.run(service, engine, metrics, options, listener, on_ready=lambda _: show(ready))
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Before anything is loaded."""
    for name, least in (("max_batch", 1), ("max_queue", 1), ("chunk", 1), ("max_body", 1)):
        integer(f"--{name.replace('_', '-')}", getattr(arguments, name), least)
    if arguments.cache_tokens is not None:
        integer("--cache-tokens", arguments.cache_tokens, 16)
    for name in ("request_timeout", "grace"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be seconds >= 0, got {getattr(arguments, name)}")
    if not 0 < arguments.max_grammar_seconds < float("inf"):
        raise ValueError(f"--max-grammar-seconds must be above 0, got {arguments.max_grammar_seconds}")
    if not 0 <= arguments.port < 1 << 16:
        raise ValueError(f"--port must be in 0 .. 65535, got {arguments.port}")
    if arguments.api_key is None and os.environ.get(KEY_VARIABLE):
        arguments.api_key = [os.environ[KEY_VARIABLE]]
    for key in arguments.api_key or ():
        if not checked_text("--api-key", key) or key != key.strip():
            raise ValueError("--api-key must not be empty, nor begin or end with a space")
    if not arguments.host.strip():
        raise ValueError("--host must be an address, got none; 0.0.0.0 is every interface of this machine")


def start_logging(level: str) -> None:
    """Messages of the server and of uvicorn, on stderr. A prompt is written only if that is asked for."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.ERROR, stream=sys.stderr)
    levels = {"errors": logging.ERROR, "requests": logging.INFO, "prompts": logging.DEBUG}
    logging.getLogger("alea.serve").setLevel(levels[level])
