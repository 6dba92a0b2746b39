"""A table of the tokens below their text, as `alea generate --logprobs` shows it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from model.commands.terminal import visible

if TYPE_CHECKING:
    from model import Generation


def show_logprobs(generation: Generation) -> None:
    """Where the generation has them: raw and final logprob of each token, and what else was likely."""
    asked = generation.completion_logprobs
    if asked is None:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("token", box=SIMPLE_HEAD)
    for heading in ("id", "raw\nlogprob", "final\nlogprob"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("most probable\n(raw logprob)" if any(asked.top_logprobs) else "")
    columns = (asked.tokens, asked.token_ids, asked.token_logprobs, asked.final_logprobs, asked.top_logprobs)
    for token, i, raw, final, top in zip(*columns, strict=True):
        likely = "  ".join(f"{visible(one.token)}({one.logprob:.3f})" for one in top)
        table.add_row(Text(visible(token)), str(i), f"{raw:.3f}", f"{final:.3f}", Text(likely))
    Console(file=sys.stdout, highlight=False).print(table)
