"""The table of `alea generate --logprobs`, below each text."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from model.commands.terminal import console, visible
from model.decoding.writer import Generation


def show_logprobs(generation: Generation) -> None:
    """Raw and final logprob of each token and its alternatives, if the generation has them."""
    logprobs = generation.completion_logprobs
    if logprobs is None:
        return
    table = Table("token", box=SIMPLE_HEAD)
    for heading in ("id", "raw\nlogprob", "final\nlogprob"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("most probable\n(raw logprob)" if any(logprobs.top_logprobs) else "")
    probabilities = (logprobs.token_logprobs, logprobs.final_logprobs, logprobs.top_logprobs)
    for token, i, raw, final, top in zip(logprobs.tokens, logprobs.token_ids, *probabilities, strict=True):
        likely = "  ".join(f"{visible(other.token)}({other.logprob:.3f})" for other in top)
        table.add_row(Text(visible(token)), str(i), f"{raw:.3f}", f"{final:.3f}", Text(likely))
    console().print(table)
