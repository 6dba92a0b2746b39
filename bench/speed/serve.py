"""`alea bench serve`: tokens and requests a second, and waiting times, of our server and the peers' on one model."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch

from bench import runner
from bench.exactness import promise
from bench.peers.base import Unavailable
from bench.records import Record, quantiles, three_digits
from bench.speed import goals, grammar, load, servers
from bench.speed.client import Client
from bench.speed.requests import COMPLETIONS, SAMPLING, story
from bench.speed.servers import PEERS, Server
from bench.speed.timing import in_turn
from model import Llama, Tokenizer
from model.config import BUILT_IN

ROUND = 1_000_000  # requests that each round has for itself, so that no cache knows their prompts
NAMES = ("alea", *PEERS, "generate")
CAPTION = (
    "{servers}; generate: the same prompts and lengths in full batches, without a server. First token and gap between "
    "tokens: median / 99th percentile. Rounds of {seconds:g} seconds; the model of each server has one thread, and the "
    "clients share one core"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a Llama folder; default the storyteller")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="default 1 8 32")
    peers = f"default {' '.join(PEERS)}"
    parser.add_argument("--peers", nargs="*", default=list(PEERS), metavar="NAME", help=peers)
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="that has the peers; default this one")
    parser.add_argument("--seconds", type=float, default=3, metavar="S", help="of a round; default 3")
    verify = "requests whose answers must be the same alone and under load, before anything is timed; default 200"
    parser.add_argument("--verify", type=int, default=200, metavar="N", help=verify)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--grammar", action="store_true", help="time what a grammar adds to a step, and nothing else")
    runner.add_record_options(parser, "serve", "two rounds of a second, 20 requests verified")
    parser.add_argument("--check", action="store_true", help="say which goals hold; exit 1 if one does not")


def run(arguments: argparse.Namespace) -> int:
    runner.check_least(arguments, rounds=1, verify=1)
    runner.check_names("peers", arguments.peers, PEERS)
    if min(arguments.clients) < 1:
        raise ValueError(f"--clients must be >= 1, got {min(arguments.clients)}")
    if arguments.grammar:
        return grammar.run(arguments)
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.verify = 2, 1, 20
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        bench = started(arguments, stack)
        records = runner.collect("serve", arguments.clients, partial(measured, bench, arguments), arguments.save)
    if records:
        runner.print_table("serve", table(records), f"{CAPTION.format_map(records[0])}.", left=2)
    return goals.check("serve", records) if arguments.check else 0


@dataclass
class Bench:
    """All servers, verified, and the model for `generate`, which has the first core; the clients have the last.

    A server may use every core; its model has one thread.
    """

    llama: Llama
    tokenizer: Tokenizer
    servers: dict[str, Server]
    skipped: dict[str, str]
    failed: dict[str, str]
    cores: list[int]


def started(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Bench:
    folder = Path(arguments.model or BUILT_IN)
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    cores = sorted(os.sched_getaffinity(0))
    place = servers.Place(folder, home)
    running, skipped = {"alea": stack.enter_context(servers.alea(place))}, dict[str, str]()
    for name, start in PEERS.items():
        try:
            if name not in arguments.peers:
                raise Unavailable("not asked for")
            running[name] = stack.enter_context(start(replace(place, python=arguments.python)))
        except Unavailable as reason:
            skipped[name] = str(reason)
    stack.enter_context(on(cores[-1]))
    promise.check(running["alea"].url, arguments.verify, clients=64)
    failed = verify(running)
    timed = {name: server for name, server in running.items() if name not in failed}
    return Bench(Llama.from_pretrained(folder), Tokenizer.from_pretrained(folder), timed, skipped, failed, cores)


@contextlib.contextmanager
def on(core: int) -> Iterator[None]:
    """This thread on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def verify(running: Mapping[str, Server]) -> dict[str, str]:
    """The faults of peers, by name: greedy texts that differ from ours. These are not to be timed."""
    texts = {name: asyncio.run(greedy(server)) for name, server in running.items()}
    ours = texts.pop("alea")
    return {name: f"its greedy texts are {found}, ours {ours}" for name, found in texts.items() if found != ours}


async def greedy(server: Server) -> list[str]:
    """Short ones, as rounding decides where two tokens are nearly as probable."""
    bodies = [dict(prompt=story(Random(i), 8), max_tokens=8, temperature=0, **server.fields) for i in range(4)]
    async with Client(server.url) as client:
        return [(await client.post(COMPLETIONS, body)).json()["choices"][0]["text"] for body in bodies]


def measured(bench: Bench, arguments: argparse.Namespace, clients: int) -> Record:
    """The figures of a load, round by round, everything in turn."""
    rounds: dict[str, list[load.Figures]] = {name: [] for name in (*bench.servers, "generate")}
    for number in range(arguments.rounds):
        first = (clients * arguments.rounds + number) * ROUND
        for name in in_turn(list(rounds), number):
            rounds[name].append(one_round(bench, name, clients, arguments.seconds, first))
    figures = dict.fromkeys(figure for found in rounds.values() for each in found for figure in each)
    return {
        **dict(clients=clients, rounds=arguments.rounds, seconds=arguments.seconds),
        **dict(sampling=SAMPLING, verified=arguments.verify),
        "servers": ", ".join(server.version for server in bench.servers.values()),
        **{figure: by_name(rounds, figure) for figure in figures},
        **dict(skipped=bench.skipped, failed=bench.failed),
    }


def by_name(rounds: Mapping[str, list[load.Figures]], figure: str) -> dict[str, dict[str, float]]:
    """The quantiles of a figure, for those that have it."""
    values = {name: [each[figure] for each in found if figure in each] for name, found in rounds.items()}
    return {name: quantiles(found) for name, found in values.items() if found}


def one_round(bench: Bench, name: str, clients: int, seconds: float, first: int) -> load.Figures:
    with servers.frozen(server for other, server in bench.servers.items() if other != name):
        if name in bench.servers:
            return load.of_server(bench.servers[name], clients, seconds, first)
        with on(bench.cores[0]):
            return load.of_generate(bench.llama, bench.tokenizer, clients, seconds, first)


def table(records: list[Record]) -> runner.Rows:
    """A line for each load and server: medians of the rounds."""
    lines = []
    for record in records:
        for name in [name for name in NAMES if name in record["tokens_a_second"]]:
            speeds = [shown(record, f"{what}_a_second", name) for what in ("tokens", "requests")]
            waits = [
                f"{shown(record, f'{what}_milliseconds', name)} / {shown(record, f'{what}_p99_milliseconds', name)}"
                for what in ("first_token", "gap")
            ]
            lines.append([str(record["clients"]), name, *speeds, *waits])
    return ["clients", "server", "tokens/s", "requests/s", "first token, ms", "gap, ms"], lines


def shown(record: Record, figure: str, name: str) -> str:
    quantiles = record.get(figure, {}).get(name)
    return three_digits(quantiles["p50"]) if quantiles else "–"
