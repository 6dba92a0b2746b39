"""A decoding trace in the terminal: a table of the prompt, then the stages and candidates of every step."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from model.commands.terminal import console, piece_text
from model.study.decoding_trace import DecodingTrace

NATS_PER_BIT = math.log(2)


def show(trace: DecodingTrace) -> None:
    out = console()
    out.print(prompt_table(trace))
    for number, step in enumerate(trace.steps, 1):
        title = f"step {number} of {len(trace.steps)}: {piece_text(trace.piece(step.token))}"
        out.rule(title, align="left", style="dim")
        out.print(step.table(lambda i: piece_text(trace.piece(i))))
        out.print(numbers(trace, number - 1))
    out.rule(style="dim")
    out.print(trace.text)


def prompt_table(trace: DecodingTrace) -> Table:
    """The prompt's tokens and their surprisal."""
    table = Table(title="prompt", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "piece", "logprob", "surprisal, bits"):
        table.add_column(heading, justify="left" if heading == "piece" else "right")
    for token, logprob in zip(trace.prompt_ids, trace.prompt_logprobs, strict=True):
        known = ["–", "–"] if logprob is None else [f"{logprob:.3f}", f"{-logprob / NATS_PER_BIT:.2f}"]
        table.add_row(str(token), Text(piece_text(trace.piece(token))), *known)
    return table


def numbers(trace: DecodingTrace, index: int) -> str:
    """One line: the step's rank, logprobs and entropies, and the sum of the text so far."""
    steps = trace.steps[: index + 1]
    step = steps[-1]
    raw = step.stages[0].entropy
    path = " → ".join(f"{stage.survivors:,}" for stage in step.stages[1:])
    so_far = sum(each.model_logprob for each in steps)
    return (
        f"rank {step.chosen.rank}, logprob {step.model_logprob:.3f} raw, {step.logprob:.3f} final; entropy "
        f"{raw / NATS_PER_BIT:.2f} bits raw ({math.exp(raw):,.1f} choices), {step.entropy / NATS_PER_BIT:.2f} final "
        f"({math.exp(step.entropy):,.1f}); tokens left {path}; the text so far {so_far:.2f} raw"
    )
