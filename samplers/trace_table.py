"""A trace as tables for the terminal: the stages, the candidates after each stage, and the draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from samplers.tracing import Candidate, Trace

BITS = math.log(2)  # nats per bit
CUT = "·"


def tables(trace: Trace, names: Callable[[int], str] | None = None) -> Group:
    return Group(stages(trace), candidates(trace, names), Text(draw(trace)))


def stages(trace: Trace) -> Table:
    """Kept tokens, mass, thresholds and entropy after each stage."""
    table = Table(title="stage by stage", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("stage", "setting", "left", "of the mass", "least p kept", "greatest p cut", "entropy, bits"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in trace.stages:
        table.add_row(
            stage.name,
            "" if stage.value is None else f"{stage.value:g}",
            f"{stage.survivors:,}",
            f"{stage.kept_mass:.4f}",
            f"{stage.least_kept:.2g}",
            "–" if stage.greatest_cut is None else f"{stage.greatest_cut:.2g}",
            f"{stage.entropy / BITS:.3f}",
        )
    return table


def candidates(trace: Trace, names: Callable[[int], str] | None) -> Table:
    """One row per token, one column per stage with the probability after it. Each column adds up to 1."""
    table = Table(title="candidates, by raw rank", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("rank", "id", *(["token"] if names else []), "logit"):
        table.add_column(heading, justify="left" if heading == "token" else "right")
    for stage in trace.stages:
        table.add_column(stage.name, justify="right")
    table.add_column("interval of u", justify="right", no_wrap=True)
    for c in trace.candidates:
        style = "bold" if c.id == trace.token else "dim" if c.cut_by else ""
        name = [Text(names(c.id))] if names else []  # Text, because a token's text is not markup
        cells = [probability(p, stage.name == c.cut_by) for p, stage in zip(c.probabilities, trace.stages, strict=True)]
        table.add_row(str(c.rank), str(c.id), *name, f"{c.logit:.3f}", *cells, interval(trace, c), style=style)
    others = trace.others
    if others.count:
        blank = [""] * (1 + bool(names))
        masses = [probability(p, False) for p in others.probabilities]
        kept = f"{others.survivors:,} left" if others.survivors else ""
        table.add_row("", f"+{others.count:,} others", *blank, *masses, kept, style="dim")
    return table


def probability(p: float, cut_here: bool) -> str:
    return "cut" if cut_here else CUT if p == 0 else f"{p:.4f}" if p >= 1e-4 else f"{p:.0e}"


def interval(trace: Trace, candidate: Candidate) -> str:
    """As fractions of the total; an arrow marks the interval that contains u."""
    if candidate.interval is None:
        return CUT
    low, high = (end / trace.total for end in candidate.interval)
    return f"{'→ ' if candidate.id == trace.token else ''}{low:.4f} – {high:.4f}"


def draw(trace: Trace) -> str:
    return (
        f"seed {trace.seed}, position {trace.position}, stream {trace.stream}: bits {trace.bits:016x}, "
        f"u = {trace.u / trace.total:.6f} -> token {trace.token}, p = {trace.weight / trace.total:.6f} "
        f"(raw {math.exp(trace.model_logprob):.6f}), {trace.kept:,} tokens left"
    )
