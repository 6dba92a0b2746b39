"""`alea trace`: a text decoded step by step, and what every stage did at each."""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

from model import files
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
from model.commands.output import add_output_argument, check_output
from model.versions import DISTRIBUTION, installed

if TYPE_CHECKING:
    from model.study.decoding_trace import DecodingTrace
    from samplers import Trace

HELP = "continue a text and show what each stage of sampling did at every step, or the tree of a beam search"
NEW_TOKENS, TOP = 5, 12
WIDTH = 150  # in a file or pipe, for which rich would take 80
BITS = math.log(2)  # nats a bit
SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("-p", "--prompt", required=True, metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "-n", "--max-new-tokens", type=int, default=NEW_TOKENS, metavar="N", help=f"at most; default {NEW_TOKENS}"
    )
    top = f"candidates shown a step, by raw rank, and the token drawn; default {TOP}"
    parser.add_argument("--top", type=int, metavar="N", help=top)
    add_sampling_arguments(parser, "default: the model's own distribution, nothing cut")
    add_beam_arguments(parser, "in place of the stages, the tree of a beam search with every candidate")
    parser.add_argument("--json", action="store_true", help="one JSON object with all of it, instead of tables")
    page = "instead of tables, one self-contained page for a browser: with sliders, or the tree of beams drawn"
    add_output_argument(parser, "--html", metavar="FILE", help=page, replaced="a page that is there already")


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.html, "--html", arguments.overwrite)
    beams = given_beams(arguments)
    if beams:
        from model.commands import trace_beams

        return trace_beams.run(arguments, beams)
    from model.study.decoding_trace import trace_decoding
    from samplers import SamplingParams

    params = SamplingParams(**given_sampling(arguments))
    llama, tokenizer = load_model(arguments)
    seed = chosen_seed(arguments)
    options = {"max_new_tokens": arguments.max_new_tokens, "top": TOP if arguments.top is None else arguments.top}
    told = trace_decoding(llama, tokenizer, arguments.prompt, params, seed=seed, **options)
    if arguments.json:
        print(json.dumps(told.to_dict(), ensure_ascii=False, allow_nan=False))
    if arguments.html is not None:
        from model.study import trace_page

        page = trace_page.render(told, settings(arguments, told.steps[0].to_dict()["params"], seed))
        files.write(arguments.html, page, "--html", arguments.overwrite)
        print(f"wrote {arguments.html}: {len(told.steps)} steps", file=sys.stderr)
    if not (arguments.json or arguments.html):
        show(told)
    return 0


def settings(arguments: argparse.Namespace, params: dict[str, float], seed: int) -> dict[str, str]:
    """What a page says of how it was made."""
    versions = {name: installed(name) or "not installed" for name in (DISTRIBUTION, "torch", "numpy")}
    return {
        "model": model_name(arguments),
        "sampling": ", ".join(f"{name} {value:g}" for name, value in params.items()) or "none",
        "seed": str(seed),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "date": date.today().isoformat(),
    }


def show(told: DecodingTrace) -> None:
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    console.print(prompt_table(told))
    for number, step in enumerate(told.steps, 1):
        title = f"step {number} of {len(told.steps)}: {visible(told.piece(step.token))}"
        console.rule(title, align="left", style="dim")
        console.print(step.table(lambda i: visible(told.piece(i))))
        console.print(numbers(told, number - 1), markup=False)
    console.rule(style="dim")
    console.print(told.text, markup=False)


def prompt_table(told: DecodingTrace) -> Any:
    """The prompt's tokens, and how surprised the model was by each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title="prompt", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "piece", "logprob", "surprise, bits"):
        table.add_column(heading, justify="left" if heading == "piece" else "right")
    for token, logprob in zip(told.prompt_ids, told.prompt_logprobs, strict=True):
        known = ["–", "–"] if logprob is None else [f"{logprob:.3f}", f"{-logprob / BITS:.2f}"]
        table.add_row(str(token), Text(visible(told.piece(token))), *known)
    return table


def numbers(told: DecodingTrace, index: int) -> str:
    """A step in a line: rank, logprobs raw and final, entropies in bits, the text so far in nats."""
    steps = told.steps[: index + 1]
    step: Trace = steps[-1]
    raw = step.stages[0].entropy
    path = " → ".join(f"{stage.survivors:,}" for stage in step.stages[1:])
    so_far = sum(one.model_logprob for one in steps)
    return (
        f"rank {step.chosen.rank}, logprob {step.model_logprob:.3f} raw, {step.logprob:.3f} final; entropy "
        f"{raw / BITS:.2f} bits raw ({math.exp(raw):,.1f} choices), {step.entropy / BITS:.2f} final "
        f"({math.exp(step.entropy):,.1f}); tokens left {path}; the text so far {so_far:.2f} raw"
    )


def visible(piece: str) -> str:
    """A piece with its spaces and line ends to be seen."""
    return "".join(SHOWN.get(character, character) for character in piece)
