"""A trace for the terminal: its stages, its candidates stage by stage, and the draw."""

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

BITS = math.log(2)  # nats a bit
CUT = "·"


def tables(trace: Trace, names: Callable[[int], str] | None = None) -> Group:
    return Group(stages(trace), candidates(trace, names), Text(draw(trace)))


def stages(trace: Trace) -> Table:
    """Survivors, mass, threshold and entropy after every stage."""
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
    """A row a token, a column the probability after a stage; every column adds up to 1 with the others."""
    table = Table(title="candidates, by raw rank", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("rank", "id", *(["token"] if names else []), "logit"):
        table.add_column(heading, justify="left" if heading == "token" else "right")
    for stage in trace.stages:
        table.add_column(stage.name, justify="right")
    table.add_column("interval of u", justify="right", no_wrap=True)
    for one in trace.candidates:
        style = "bold" if one.id == trace.token else "dim" if one.cut_by else ""
        name = [Text(names(one.id))] if names else []  # its own text, which is no markup
        cells = [
            probability(p, stage.name == one.cut_by) for p, stage in zip(one.probabilities, trace.stages, strict=True)
        ]
        table.add_row(str(one.rank), str(one.id), *name, f"{one.logit:.3f}", *cells, interval(trace, one), style=style)
    others = trace.others
    if others.count:
        blank = [""] * (1 + bool(names))
        masses = [probability(p, False) for p in others.probabilities]
        left = f"{others.survivors:,} left" if others.survivors else ""
        table.add_row("", f"+{others.count:,} others", *blank, *masses, left, style="dim")
    return table


def probability(p: float, cut_here: bool) -> str:
    return "cut" if cut_here else CUT if p == 0 else f"{p:.4f}" if p >= 1e-4 else f"{p:.0e}"


def interval(trace: Trace, one: Candidate) -> str:
    """In parts of the total; with the mark at the one that holds u."""
    if one.interval is None:
        return CUT
    low, high = (end / trace.total for end in one.interval)
    return f"{'→ ' if one.id == trace.token else ''}{low:.4f} – {high:.4f}"


def draw(trace: Trace) -> str:
    return (
        f"seed {trace.seed}, position {trace.position}, stream {trace.stream}: bits {trace.bits:016x}, "
        f"u = {trace.u / trace.total:.6f} -> token {trace.token}, p = {trace.weight / trace.total:.6f} "
        f"(raw {math.exp(trace.model_logprob):.6f}), {trace.kept:,} tokens left"
    )
