"""`alea trace`: a text decoded step by step, with every stage of every step, or the tree of a beam search."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from model import files
from model.commands import beam_tables, trace_tables
from model.commands.arguments import (
    add_beam_arguments,
    add_model_arguments,
    add_sampling_arguments,
    chosen_seed,
    given_beams,
    given_sampling,
    load_model,
    model_name,
)
from model.commands.grammar import add_grammar_arguments, given_grammar, grammar_source
from model.commands.output import add_output_argument, check_output
from model.study import beam_page, trace_page
from model.study.beam_tree import grow
from model.study.decoding_trace import trace_decoding
from model.versions import DISTRIBUTION, installed
from samplers import SamplingParams

NEW_TOKENS, TOP = 5, 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("-p", "--prompt", required=True, metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "-n", "--max-new-tokens", type=int, default=NEW_TOKENS, metavar="N", help=f"at most; default {NEW_TOKENS}"
    )
    top = f"candidates shown per step, by raw rank, besides the token drawn; default {TOP}"
    parser.add_argument("--top", type=int, metavar="N", help=top)
    add_sampling_arguments(parser, "default: the model's own distribution, nothing cut")
    add_beam_arguments(parser, "instead of the stages, the tree of a beam search with every candidate")
    add_grammar_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object with all of it, instead of tables")
    page = "instead of tables, one self-contained page for a browser: with sliders, or the tree of beams drawn"
    add_output_argument(parser, "--html", metavar="FILE", help=page, replaced="an existing page")


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.html, "--html", arguments.overwrite)
    beams = given_beams(arguments)
    if beams:
        trace_beams(arguments, beams)
    else:
        trace_steps(arguments)
    return 0


def trace_steps(arguments: argparse.Namespace) -> None:
    params, grammar = SamplingParams(**given_sampling(arguments)), given_grammar(arguments)
    llama, tokenizer = load_model(arguments)
    seed = chosen_seed(arguments)
    top = TOP if arguments.top is None else arguments.top
    limit = arguments.max_new_tokens
    trace = trace_decoding(
        llama, tokenizer, arguments.prompt, params, seed=seed, max_new_tokens=limit, top=top, grammar=grammar
    )

    def page() -> str:
        return trace_page.render(trace, settings(arguments, trace.steps[0].to_dict()["params"], seed))

    output(arguments, trace, trace_tables.show, page, f"{len(trace.steps)} steps")


def trace_beams(arguments: argparse.Namespace, beams: dict[str, Any]) -> None:
    if arguments.top is not None:
        raise ValueError("--top must not be given with --beams, which shows every candidate of the search")
    for name in grammar_source(arguments):
        raise ValueError(f"--{name.replace('_', '-')} must not be given with --beams")
    sampling = given_sampling(arguments)
    params = SamplingParams(**sampling if arguments.sample else {"temperature": 0.0, **sampling})  # 0: the best
    llama, tokenizer = load_model(arguments)
    seed = chosen_seed(arguments)
    limit = arguments.max_new_tokens
    tree = grow(llama, tokenizer, arguments.prompt, params, seed=seed, max_new_tokens=limit, **beams)

    def page() -> str:
        return beam_page.render(tree, settings(arguments, sampling, seed))

    output(arguments, tree, beam_tables.show, page, f"{len(tree.nodes)} candidates")


def output(
    arguments: argparse.Namespace, result: Any, show: Callable[[Any], None], page: Callable[[], str], size: str
) -> None:
    """As JSON, as a page, or in the terminal."""
    if arguments.json:
        print(json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False))
    if arguments.html is not None:
        files.write(arguments.html, page(), "--html", arguments.overwrite)
        print(f"wrote {arguments.html}: {size}", file=sys.stderr)
    if not (arguments.json or arguments.html):
        show(result)


def settings(arguments: argparse.Namespace, params: Mapping[str, float], seed: int) -> dict[str, str]:
    """The provenance of a page."""
    versions = {name: installed(name) or "not installed" for name in (DISTRIBUTION, "torch", "numpy")}
    return {
        "model": model_name(arguments),
        "sampling": ", ".join(f"{name} {value:g}" for name, value in params.items()) or "none",
        "seed": str(seed),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "date": date.today().isoformat(),
    }
