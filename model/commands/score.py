"""`alea score`: the model as a classifier, by the probabilities of a few answers."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict

from rich import box
from rich.table import Table

from model.commands.arguments import add_model_arguments, checked_text, load_model
from model.commands.prompts import add_prompt_arguments, read_prompts
from model.commands.terminal import console, progress, show
from model.study.score import Choice, Score, checked_choices, score

LOW_COVERAGE = 0.01  # below it the shares compare rare answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_prompt_arguments(parser)
    parser.add_argument(
        "-c",
        "--choices",
        nargs="*",
        action="extend",
        default=[],
        metavar="TEXT",
        help="two answers or more, in any case, with or without a leading space",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="score every choice piece by piece as it is written, even if it is one token",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per prompt, logprobs in nats")


def run(arguments: argparse.Namespace) -> int:
    choices = checked_choices([checked_text("--choices", choice) for choice in arguments.choices])
    prompts = read_prompts(arguments)
    llama, tokenizer = load_model(arguments)
    warn_of_spaces(prompts)
    with progress("choices", len(prompts) * len(choices)) as on_progress:
        scores = score(llama, tokenizer, prompts, choices, whole=arguments.whole, on_progress=on_progress)
    for number, result in enumerate(scores):
        if arguments.json:
            show(json.dumps(asdict(result), ensure_ascii=False, allow_nan=False) + "\n")
        else:
            show_score(result, f"[{number + 1}/{len(scores)}] " if len(scores) > 1 else "", arguments.whole)
    return 0


def warn_of_spaces(prompts: list[str]) -> None:
    """Warn of a prompt that ends in whitespace: it is a separate token, and `▁word` seldom follows it."""
    ending = [i for i, prompt in enumerate(prompts) if prompt[-1:].isspace()]
    if ending:
        others = f" and {len(ending) - 1} more" if len(ending) > 1 else ""
        print(
            f"alea score: a prompt should not end in whitespace, got {prompts[ending[0]][-20:]!r} in "
            f"prompts[{ending[0]}]{others}: the whitespace is a token of its own, after which the model seldom saw "
            "spellings with a leading space (▁)",
            file=sys.stderr,
        )


def show_score(result: Score, number: str, forced: bool) -> None:
    """One prompt's table and its notes."""
    out = console()
    out.print(f"{number}{result.prompt}", soft_wrap=True)
    out.print(table(result))
    out.print(f"coverage {result.coverage:.3g}: the probability that the answer is one of these", soft_wrap=True)
    for note in notes(result, forced):
        out.print(note, soft_wrap=True)


def table(result: Score) -> Table:
    """One line per token that counts; a choice's own numbers are on its first line."""
    by_mean = any(choice.whole for choice in result.choices)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("choice", "piece"):
        grid.add_column(name, overflow="fold")
    for name in ("id", "p", "P", "share", *(("logprob", "mean", "share by mean") if by_mean else ())):
        grid.add_column(name, justify="right", no_wrap=True)
    for choice in result.choices:
        for place, token in enumerate(choice.tokens):
            own = totals(choice, by_mean) if place == 0 else [""] * (5 if by_mean else 2)
            name = choice.choice if place == 0 else ""
            grid.add_row(name, token.piece, str(token.id), f"{math.exp(token.logprob):.3g}", *own)
    return grid


def totals(choice: Choice, by_mean: bool) -> list[str]:
    numbers = [f"{choice.probability:.3g}", f"{choice.share:.2%}"]
    if by_mean:
        numbers += [f"{choice.logprob:.3f}", f"{choice.mean_logprob:.3f}", f"{choice.share_by_mean:.2%}"]
    return numbers


def notes(result: Score, forced: bool) -> list[str]:
    """Hints for reading the numbers."""
    whole = [choice for choice in result.choices if choice.whole]
    found = []
    if forced:
        found.append("every choice is scored piece by piece as it is written (--whole); logprob is the pieces' sum")
    else:
        found += [
            f"{choice.choice}: no spelling is one token; scored piece by piece, logprob is the pieces' sum"
            for choice in whole
        ]
    if 0 < len(whole) < len(result.choices):
        found.append("the other choices add up several spellings, these have one: --whole treats all alike")
    if result.coverage < LOW_COVERAGE:
        found.append("coverage is below 1 %: the model would hardly answer so, and the shares say little")
    return found
