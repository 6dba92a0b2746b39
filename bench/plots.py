"""Draws the pictures of the pages from the committed records alone, for `alea bench report`; needs matplotlib.

Each is a function from records to a figure. Its file holds the sha256 of the records as `dc:identifier`, so a test can
compare them. No background, and colours that can be read on white and on a dark page.
"""

from __future__ import annotations

import hashlib
import io
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from bench import records as stored
from bench.cases import FILTERS
from bench.records import NoRecords, Record, by, three_digits
from model import files
from model.study.picture import GREY, SMALL, titled_figure
from model.study.picture import SETTINGS as PAGE

FOLDER = Path(__file__).parent / "results/plots"

# Colour and marker: Okabe and Ito's, shifted until each is 3 to 1 or more on both pages; ours are the warm ones.
STYLES = {
    "alea": ("#D55E00", "o"),
    "kernel": ("#A97F00", "D"),
    "reference": ("#996A50", "*"),
    "torch": ("#1F80C0", "s"),
    "torch.compile": ("#7A7FD0", "X"),
    "llama.cpp": ("#009A70", "^"),
    "transformers": ("#BF659A", "v"),
    "torch.multinomial": ("#7A7FD0", "p"),  # on a GPU, without torch.compile
    "flashinfer": ("#009A70", "P"),  # and without llama.cpp
}
OTHERS = (GREY, ".")
OURS = ("alea", "kernel", "reference")
WORDS = {"none": "no filter", "k50+p.9": "top-k 50, top-p 0.9", "p.9": "top-p 0.9", "all": "all filters"}
ROOFLINES = ("k50+p.9", "p.9", "none")
SCANS = {"vocabulary": "vocabulary, tokens", "batch": "batch, rows"}

in_bytes = EngFormatter("B", places=0)
WIDTH = 9.0  # inches
LEGEND: Any = dict(frameon=False, fontsize=SMALL, labelcolor="linecolor")
SETTINGS: Any = PAGE | {"xtick.minor.size": 0, "ytick.minor.size": 0, "lines.linewidth": 1.4}


# From records to files.


@dataclass(frozen=True)
class Plot:
    """A picture, and its records: the newest of the wanted ones in results/source.jsonl for each key."""

    source: str
    key: Callable[[Record], Any]
    wanted: Callable[[Record], bool]
    draw: Callable[[Sequence[Record]], Figure]

    def records(self) -> list[Record]:
        try:
            return stored.newest(self.source, self.key, self.wanted)
        except (FileNotFoundError, NoRecords):
            return []


def write(folder: Path) -> None:
    """Renew the pictures that have records, and print the names of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in PLOTS.items():
        path, shown = folder / f"{name}.svg", plot.records()
        if shown:
            with style.context(["default", SETTINGS]):  # whatever the user's own matplotlibrc says
                files.replace(path, svg(plot.draw(shown), shown))
            print(f"renewed {path}")
        else:
            print(f"left out {path.name}: bench/results/{plot.source}.jsonl has no records for it")


def svg(figure: Figure, records: Sequence[Record]) -> bytes:
    """The same bytes whenever the same is drawn, without blanks at the ends of lines."""
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": "alea bench report", "Identifier": digest(records)}
    figure.savefig(file, format="svg", metadata=metadata)
    return b"".join(line.rstrip() + b"\n" for line in file.getvalue().splitlines())


def digest(records: Sequence[Record]) -> str:
    """A hash that identifies records.

    >>> digest([])
    'sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945'
    """
    text = json.dumps(records, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# Roofline.


def roofline(records: Sequence[Record]) -> Figure:
    """Logits read a second by a draw on the CPU, and by torch's x.max() over the same row."""
    title = "How near a draw comes to what reading its logits costs"
    note = "One peaked float32 row a call, warm in the caches. Dashed: torch's x.max() over the same row, no sampler"
    figure = rooflines(records, "batch", title, f"{note}; {foot(records, 'sample')}")
    vocabularies = sorted({record["vocabulary"] for record in records})
    for axes in figure.axes:
        axes.set_xticks([4 * v for v in vocabularies], [f"{in_bytes(4 * v)}\nV = {v:,}" for v in vocabularies])
        axes.minorticks_off()
    return figure


def roofline_gpu(records: Sequence[Record]) -> Figure:
    """Logits read a second by a draw on a GPU with an empty L2 cache, and by a copy."""
    cold = [
        record
        | {
            "microseconds": {
                "max": {"p50": record["read_limit"]},
                **{name: q["cold"] for name, q in record["microseconds"].items()},
            }
        }
        for record in records
    ]
    batches = [record["batch"] for record in records]
    title = "How near a draw on a GPU comes to what reading its logits costs"
    note = (
        f"Batches of {min(batches):,} to {max(batches):,} peaked float32 rows behind an emptied L2, a line a "
        f"vocabulary. Dashed: reading them once at the bandwidth of a copy; {foot(records, 'gpu')}"
    )
    figure = rooflines(cold, "vocabulary", title, note)
    for axes in figure.axes:
        plain_ticks(axes.xaxis, in_bytes, most=3)
    return figure


def rooflines(records: Sequence[Record], line: str, title: str, note: str) -> Figure:
    """A panel for each of the filters, in it a line for each sampler and value of the field `line`."""
    shown = [filters for filters in ROOFLINES if any(record["filters"] == filters for record in records)]
    figure, panels = canvas(1, len(shown), 3.6, title, note)
    lines = list(product(reversed(STYLES), sorted({record[line] for record in records})))  # ours last: on top
    for axes, filters in zip(panels, shown, strict=True):
        axes.set(xscale="log", yscale="log", title=WORDS[filters], xlabel="logits of a call")
        axes.grid(axis="y")
        plain_ticks(axes.yaxis, "{:,g}".format)
        here = [record for record in records if record["filters"] == filters]
        draw_speeds(axes, here, "max", label="reading", color=GREY, linestyle="--")
        for name, value in lines:
            color, marker = STYLES[name]
            draw_speeds(axes, [r for r in here if r[line] == value], name, label=name, color=color, marker=marker)
    panels[0].set_ylabel("logits read, GB/s")
    labels = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in (*STYLES, "reading") if name in labels]
    figure.legend([labels[name] for name in names], names, loc="outside right center", **LEGEND)
    return figure


def draw_speeds(axes: Axes, records: Sequence[Record], name: str, **options: Any) -> None:
    timed = [record for record in records if name in record["microseconds"]]
    sizes = {4 * r["vocabulary"] * r["batch"]: r["microseconds"][name]["p50"] for r in timed}  # float32
    if sizes:
        axes.plot(sorted(sizes), [size / sizes[size] / 1e3 for size in sorted(sizes)], **options)


# Speed-up.


def speed_up(records: Sequence[Record]) -> Figure:
    """How many times longer than the public call each peer takes: a panel a vocabulary, a group the filters."""
    sizes = sorted({record["vocabulary"] for record in records})
    shown = [filters for filters in FILTERS if any(record["filters"] == filters for record in records)]
    measured = {name for record in records for name in record["microseconds"]} - set(OURS)
    peers = [name for name in STYLES if name in measured]
    rows = product(enumerate(shown), ["", *peers])  # "": the heading of a group
    places = {(filters, peer): place + 0.4 * group for place, ((group, filters), peer) in enumerate(rows)}
    last = max(places.values())
    title = "How many times longer than alea the others take for a draw"
    note = f"alea's public call on one peaked float32 row; {foot(records, 'sample')}"
    figure, panels = canvas(1, len(sizes), 1.7 + 0.19 * last, title, note)
    for axes, size in zip(panels, sizes, strict=True):
        axes.set(xscale="log", title=f"V = {size:,}", xlabel="time, alea's = 1", ylim=(last + 0.7, -0.5))
        for record in (record for record in records if record["vocabulary"] == size):
            for peer in peers:
                draw_bar(axes, record, peer, places[record["filters"], peer])
        plain_ticks(axes.xaxis, "{:g} ×".format)
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(list(places.values()), [peer or WORDS[filters] for filters, peer in places])
    for label, (_, peer) in zip(panels[0].get_yticklabels(), places, strict=True):
        label.set(color=STYLES[peer][0] if peer else GREY, fontweight="normal" if peer else "bold")
    return figure


def draw_bar(axes: Axes, record: Record, peer: str, place: float) -> None:
    """From 1 to the ratio of the medians, with its figure; without it, the reason."""
    times = record["microseconds"]
    if peer in times and "alea" in times:
        ratio = times[peer]["p50"] / times["alea"]["p50"]
        axes.barh(place, ratio - 1, left=1, height=0.74, color=STYLES[peer][0], label=peer)
        end, text = max(ratio, 1), f"{three_digits(ratio)} ×"
    else:
        reasons = record["skipped"] | record.get("failed", {})
        end, text = 1, f"– {textwrap.shorten(reasons.get(peer, 'not measured'), 45, placeholder=' …')}"
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center_baseline", fontsize=SMALL)


# Growth.


def growth(records: Sequence[Record]) -> Figure:
    """Microseconds a call with the fitted lines: against the vocabulary and the batch, below each other by filters."""
    scans = [scan for scan in SCANS if any(record["scan"] == scan for record in records)]
    shown = [filters for filters in FILTERS if any(record["filters"] == filters for record in records)]
    title = "What a draw costs as the vocabulary and the batch grow"
    note = f"Peaked float32 rows; points with p20 and p80, lines fitted; {foot(records, 'growth')}"
    figure, panels = canvas(len(shown), len(scans), 1.4 + 2.7 * len(shown), title, note)
    for axes, (filters, scan) in zip(panels, product(shown, scans), strict=True):
        here = [record for record in records if (record["filters"], record["scan"]) == (filters, scan)]
        axes.set(xscale="log", yscale="log", title=", ".join([WORDS[filters], *fixed(here)]))
        axes.set_xlabel(SCANS[scan] if filters == shown[-1] else "")
        axes.set_ylabel("µs a call" if scan == scans[0] else "")
        axes.grid(axis="y")
        plain_ticks(axes.xaxis, "{:,.9g}".format, base=2 if scan == "batch" else 10)
        plain_ticks(axes.yaxis, "{:,.9g}".format)
        here.sort(key=lambda record: record["points"][-1]["microseconds"]["p50"], reverse=True)  # ours on top
        for record in here:
            draw_growth(axes, record)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **LEGEND)
    return figure


def fixed(records: Sequence[Record]) -> list[str]:
    """The size that all points of a scan share."""
    shared = {"vocabulary": "batch", "batch": "vocabulary"}
    return sorted({f"{(name := shared[r['scan']])} {point[name]:,}" for r in records for point in r["points"]})


def draw_growth(axes: Axes, record: Record) -> None:
    """Points with their p20 and p80, and the fitted line."""
    scan, fit = record["scan"], record["fit"]
    color, marker = STYLES.get(record["contestant"], OTHERS)
    points = sorted(record["points"], key=lambda point: point[scan])
    sizes = [point[scan] for point in points]
    low, middle, high = np.array([[point["microseconds"][q] for point in points] for q in ("p20", "p50", "p80")])
    axes.errorbar(sizes, middle, (middle - low, high - middle), color=color, linestyle="none", elinewidth=1)
    axes.plot(sizes, middle, color=color, marker=marker, linestyle="none", label=growth_label(record))
    thousands = points[0]["vocabulary"] * points[0]["batch"] / sizes[0] / 1000  # logits for each step of the scan
    x = np.geomspace(sizes[0], sizes[-1], 51)
    y = fit["fixed_us"] + fit["us_per_thousand"] * thousands * x
    axes.plot(x[y > 0], y[y > 0], color=color, linewidth=1)  # the axis is logarithmic


def growth_label(record: Record) -> str:
    """The sampler, and the fitted line in words; a µs per thousand is a ns each.

    >>> growth_label({"contestant": "alea", "fit": {"us_per_thousand": 0.21, "fixed_us": 18.04}})
    'alea\\n0.21 ns a logit + 18 µs'
    """
    slope, fixed = record["fit"]["us_per_thousand"], record["fit"]["fixed_us"]
    return f"{record['contestant']}\n{slope:.3g} ns a logit {'−' if fixed < 0 else '+'} {abs(fixed):.3g} µs"


# Shared by the pictures.


def canvas(rows: int, columns: int, height: float, title: str, note: str) -> tuple[Figure, list[Axes]]:
    """Panels with a title above and a note below, the height in inches; y is shared in rows, x in columns."""
    figure = titled_figure(WIDTH, height, title, note)
    return figure, list(
        figure.subplots(rows, columns, sharex=True if rows == 1 else "col", sharey=True, squeeze=False).flat
    )


def plain_ticks(axis: Axis, text: Callable[[float], str], base: int = 10, most: int = 9) -> None:
    """Powers of the base on a logarithmic axis, formatted by `text`."""
    axis.set_major_locator(LogLocator(base, numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def foot(records: Sequence[Record], source: str) -> str:
    return stored.in_words(records[-1], source).replace("`", "")


def one_row(record: Record) -> bool:
    """Those of peaked rows in the table of samplers."""
    return (record["kind"], record["batch"], record["dtype"]) == ("peaked", 1, "float32")


CASE = by(filters=FILTERS, vocabulary=(), batch=())
PLOTS = {
    "roofline": Plot("sample", CASE, lambda r: one_row(r) and r["filters"] in ROOFLINES, roofline),
    "speed-up": Plot("sample", CASE, one_row, speed_up),
    "growth": Plot("growth", by(scan=(), filters=(), contestant=()), lambda r: True, growth),
    "roofline-gpu": Plot(
        "gpu",
        CASE,
        lambda r: (r["kind"], r["dtype"]) == ("peaked", "float32") and r["filters"] in ROOFLINES,
        roofline_gpu,
    ),
}
