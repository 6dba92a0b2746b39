"""The sweep's pictures, each as SVG and as PNG: no background, and colours to be read on white and on a dark page."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model import files
from model.study.picture import GREY, SETTINGS
from model.study.sweep import PICTURES, Point, Spread, Sweep, mean, over_seeds
from samplers.extras import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ANCHORS = ("#1F80C0", "#009A70", "#A97F00", "#D55E00", "#C8508C")  # cold to hot; 3 to 1 or more on both pages
LIGHT, DARK = (0.80, 0.88, 0.95), (0.03, 0.19, 0.42)  # of the heat map: no diversity is dark
SMALL = 7.5  # points
Measured = dict[Point, dict[str, Spread]]


def write(sweep: Sweep, folder: Path) -> list[Path]:
    """Draw every picture of a sweep into a folder; returns the files.

    The same sweep gives the same bytes.
    Raises: RuntimeError where matplotlib is missing.
    """
    try:
        from matplotlib import style
    except ImportError:
        raise RuntimeError(f"the pictures of a sweep need matplotlib: {how_to_install('study')}") from None
    paths = []
    for name, draw in zip(PICTURES, (heat_map, quality_diversity, total_logprob), strict=True):
        with style.context(["default", SETTINGS]):  # whatever the user's own matplotlibrc says
            figure = draw(sweep)
            for kind, metadata in (("svg", {"Date": None, "Creator": "alea sweep"}), ("png", {"Software": None})):
                picture = io.BytesIO()
                figure.savefig(picture, format=kind, metadata=metadata, dpi=160)
                paths.append(folder / f"{name}.{kind}")
                files.replace(paths[-1], picture.getvalue())
    return paths


# Self-BLEU over temperature and top-p.


def heat_map(sweep: Sweep) -> Figure:
    """A panel for each top-k and ε, a cell for each temperature and top-p: mean Self-BLEU, sd in small print."""
    settings, measured = sweep.settings, over_seeds(sweep.rows)
    wide, high = 0.62 * len(settings.top_p) + 0.9, 0.42 * len(settings.temperature) + 0.75
    note = f"100: all texts are equal; 0: no two share a word. {circumstances(sweep)}"
    figure, panels = canvas(sweep, wide, high, "Self-BLEU by temperature and top-p", note)
    for axes, cells in zip(panels, by_panel(sweep, measured), strict=True):
        for point, values in cells.items():
            draw_cell(axes, settings.top_p.index(point.top_p), settings.temperature.index(point.temperature), values)
        axes.set(xlabel="top-p", ylabel="temperature")
        axes.set(xlim=(-0.5, len(settings.top_p) - 0.5), ylim=(-0.5, len(settings.temperature) - 0.5))
        axes.set_xticks(range(len(settings.top_p)), [f"{value:g}" for value in settings.top_p])
        axes.set_yticks(range(len(settings.temperature)), [f"{value:g}" for value in settings.temperature])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def draw_cell(axes: Axes, x: int, y: int, values: dict[str, Spread]) -> None:
    from matplotlib.patches import Rectangle

    average, sd = values["self_bleu"]
    share = average / 100
    color = tuple(a + (b - a) * share for a, b in zip(LIGHT, DARK, strict=True))
    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=color, edgecolor="none"))
    text: Any = dict(ha="center", va="center", color="white" if luminance(color) < 0.179 else "black")
    axes.text(x, y + (0.13 if sd is not None else 0), f"{average:.1f}", **text)
    if sd is not None:
        axes.text(x, y - 0.24, f"± {sd:.1f}", fontsize=6, **text)


# Quality against diversity.


def quality_diversity(sweep: Sweep) -> Figure:
    """A line a temperature through its top-p, from the greedy text's corner to the loosest setting's."""
    note = (
        "A line a temperature, a point a top-p (small print), bars the sd over seeds. Up and right: both probable and "
        f"varied. {circumstances(sweep)}"
    )
    wide, high = (8.0, 4.2) if len(shown_panels(sweep)) == 1 else (4.2, 3.2)
    figure, panels = canvas(sweep, wide, high, "Quality against diversity", note)
    measured = over_seeds(sweep.rows)
    for axes, points in zip(panels, by_panel(sweep, measured), strict=True):
        axes.set(xlabel="diversity: 100 − Self-BLEU", ylabel="quality: mean ln p a token, nats")
        axes.grid()
        for temperature in sweep.settings.temperature:
            draw_line(axes, sweep, temperature, points)
    low = min(values["model_logprob"].mean for values in measured.values())
    for axes in panels:
        axes.set_xlim(-8, 108)
        axes.set_ylim(1.1 * low, -0.06 * low)
    for axes, points in zip(panels, by_panel(sweep, measured), strict=True):
        place_labels(axes, point_labels(sweep, points), lines_of(sweep, points))
    return figure


def lines_of(sweep: Sweep, points: Measured) -> list[list[tuple[float, float]]]:
    """The places that each temperature's line goes through, top-p ascending, and those of the bars."""
    ordered = sorted(points.items(), key=lambda item: item[0].top_p)
    lines = [
        [place(values) for point, values in ordered if point.temperature == temperature]
        for temperature in sweep.settings.temperature
    ]
    for values in points.values():
        (x, y), dx, dy = place(values), values["self_bleu"].sd or 0, values["model_logprob"].sd or 0
        lines += [[(x - dx, y), (x + dx, y)], [(x, y - dy), (x, y + dy)]]
    return lines


def place(values: dict[str, Spread]) -> tuple[float, float]:
    """Diversity and quality."""
    return 100 - values["self_bleu"].mean, values["model_logprob"].mean


def draw_line(axes: Axes, sweep: Sweep, temperature: float, points: Measured) -> None:
    ordered = sorted(points.items(), key=lambda item: item[0].top_p)
    line = [values for point, values in ordered if point.temperature == temperature]
    x, y = zip(*map(place, line), strict=True)
    errors = [[values[name].sd or 0 for values in line] for name in ("self_bleu", "model_logprob")]
    color = colors(sweep)[temperature]
    axes.errorbar(x, y, errors[1], errors[0], color=color, marker="o", elinewidth=0.8)


class Label(NamedTuple):
    """A text for a place in data units."""

    x: float
    y: float
    text: str
    color: str
    bold: bool = False


def point_labels(sweep: Sweep, points: Measured) -> list[Label]:
    """Every temperature's name at its loosest top-p, and the top-p at the others; one for those in one place."""
    labels: list[Label] = []
    for point, values in points.items():
        end = point.top_p == max(sweep.settings.top_p)
        text = f"T = {point.temperature:g}" if end else f"{point.top_p:g}"
        labels.append(Label(*place(values), text, colors(sweep)[point.temperature], end))
    places: dict[tuple[float, float, str], list[Label]] = {}
    for label in labels:
        places.setdefault((round(label.x, 1), round(label.y, 1), label.text), []).append(label)
    return [
        same[0] if len(same) == 1 else same[0]._replace(color=GREY, text=f"top-p {same[0].text}")
        for same in places.values()
    ]


Box = tuple[float, float, float, float]  # left, bottom, right, top, points
SIDES = ((1, 0), (0, 1), (1, 1), (0, -1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 2.2), (0, -2.2), (2.2, 0), (-2.2, 0))


def place_labels(axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Each label beside its point, on the side where it covers least of points, lines and other labels."""

    def in_points(x: float, y: float) -> tuple[float, float]:
        a, b = axes.transData.transform((x, y)) / axes.figure.dpi * 72
        return float(a), float(b)

    left, right, top = (edge / axes.figure.dpi * 72 for edge in (axes.bbox.x0, axes.bbox.x1, axes.bbox.y1))
    taken = [box for line in lines for box in along([in_points(*spot) for spot in line])]
    taken += [around(*in_points(label.x, label.y), 7, 7) for label in labels]
    for label in sorted(labels, key=lambda label: not label.bold):  # the names first, while there is room
        x, y = in_points(label.x, label.y)
        wide, high = 0.62 * SMALL * len(label.text), 1.1 * SMALL
        offsets = [(dx * (5 + wide / 2), dy * (4 + high / 2)) for dx, dy in SIDES]
        boxes = [around(x + dx, y + dy, wide, high) for dx, dy in offsets]
        outside = [max(0, left - box[0]) + max(0, box[2] - right) + max(0, box[3] - top) for box in boxes]
        covered = [sum(overlap(b, other) for other in taken) + 99 * out for b, out in zip(boxes, outside, strict=True)]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        axes.annotate(
            label.text,
            (label.x, label.y),
            offsets[best],
            textcoords="offset points",
            color=label.color,
            fontsize=SMALL,
            fontweight="bold" if label.bold else "normal",
            ha="center",
            va="center",
        )


def around(x: float, y: float, wide: float, high: float) -> Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def along(spots: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes that cover a line of straight pieces.

    >>> along([(0, 0), (4, 0)])
    [(-1.0, -1.0, 1.0, 1.0), (1.0, -1.0, 3.0, 1.0), (3.0, -1.0, 5.0, 1.0)]
    """
    boxes = []
    for (x, y), (to_x, to_y) in pairwise(spots):
        steps = math.ceil(math.hypot(to_x - x, to_y - y) / 2) or 1
        boxes += [around(x + (to_x - x) * i / steps, y + (to_y - y) * i / steps, 2, 2) for i in range(steps + 1)]
    return boxes


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share.

    >>> overlap((0, 0, 2, 2), (1, 1, 5, 5)), overlap((0, 0, 1, 1), (2, 0, 3, 1))
    (1, 0)
    """
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


# The typical set.


def total_logprob(sweep: Sweep) -> Figure:
    """A dot a text at its total ln p, a row a temperature, beside the greedy text's, which is not typical."""
    settings, greedy = sweep.settings, sweep.greedy["total_logprob"]
    top_p, top_k = max(settings.top_p), 0 if 0 in settings.top_k else max(settings.top_k)
    epsilon = min(settings.epsilon_cutoff)
    loosest = f"top-p {top_p:g}{panel_name(sweep, top_k, epsilon, before=', ')}"
    note = (
        f"A dot a text, hollow where it ended itself early; a bar the mean of a temperature; {loosest}. ln p under "
        f"softmax of the model's logits, summed over the text. {circumstances(sweep)}"
    )
    high = 0.42 * len(settings.temperature) + 1.0
    title = "What is drawn is far less probable than the greedy text: total ln p of every text"
    figure, (axes,) = canvas(sweep, 8.0, high, title, note, single=True)
    for row, temperature in enumerate(settings.temperature):
        wanted = (temperature, top_p, top_k, epsilon)
        draw_strip(axes, row, [text for text in sweep.texts if where(text) == wanted], colors(sweep)[temperature])
    axes.axvline(greedy, color=GREY, linestyle="--")
    axes.annotate(
        f"greedy {greedy:.0f}".replace("-", "−"),
        (greedy, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        fontsize=SMALL,
    )
    axes.set(xlabel="total ln p of a text, nats", ylim=(-0.6, len(settings.temperature) - 0.4))
    axes.set_yticks(range(len(settings.temperature)), [f"T = {value:g}" for value in settings.temperature])
    for label, temperature in zip(axes.get_yticklabels(), settings.temperature, strict=True):
        label.set(color=colors(sweep)[temperature], fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return figure


def where(text: dict[str, Any]) -> tuple[float, float, int, float]:
    return text["temperature"], text["top_p"], text["top_k"], text["epsilon_cutoff"]


def draw_strip(axes: Axes, row: int, texts: Sequence[dict[str, Any]], color: str) -> None:
    """A dot a text, moved up and down so that few lie on each other."""
    for number, text in enumerate(texts):
        height = row + 0.5 * ((number * 0.618034) % 1 - 0.5)
        inside = "none" if text["finish_reason"] == "eos" else color
        axes.plot(text["total_logprob"], height, "o", color=color, markersize=3.5, markerfacecolor=inside, alpha=0.75)
    average = mean(text["total_logprob"] for text in texts)
    axes.plot([average] * 2, [row - 0.36, row + 0.36], color=color, linewidth=2)


# What pictures have in common.


def shown_panels(sweep: Sweep) -> list[tuple[int, float]]:
    """Top-k and ε of each panel."""
    return [(top_k, epsilon) for top_k in sweep.settings.top_k for epsilon in sweep.settings.epsilon_cutoff]


def by_panel(sweep: Sweep, measured: Measured) -> list[Measured]:
    return [
        {point: values for point, values in measured.items() if (point.top_k, point.epsilon_cutoff) == panel}
        for panel in shown_panels(sweep)
    ]


def panel_name(sweep: Sweep, top_k: int, epsilon: float, before: str = "") -> str:
    """What is told of a panel: top-k and ε where they are not off everywhere."""
    names = []
    if sweep.settings.top_k != (0,):
        names.append(f"top-k {top_k}" if top_k else "no top-k")
    if sweep.settings.epsilon_cutoff != (0.0,):
        names.append(f"ε {epsilon:g}" if epsilon else "no ε")
    return before + ", ".join(names) if names else ""


def canvas(
    sweep: Sweep, wide: float, high: float, title: str, note: str, single: bool = False
) -> tuple[Figure, list[Axes]]:
    """Panels of so many inches, three in a row at most, a title above and a note below them."""
    from matplotlib.figure import Figure

    names = [""] if single else [panel_name(sweep, *panel) for panel in shown_panels(sweep)]
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    width = max(wide * columns, 5.0)
    lines = textwrap.wrap(note, int(width * 16))
    top, bottom = 0.55 if any(names) or single else 0.4, 0.2 + 0.14 * len(lines)
    height = high * rows + top + bottom
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=11)
    figure.text(0.1 / width, 0.08 / height, "\n".join(lines), va="bottom", fontsize=SMALL)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name)
    for axes in panels[len(names) :]:
        axes.remove()
    left, right, below = 0.65, 0.15, 0.4
    gap = 0.7 / (wide - 0.7)
    figure.subplots_adjust(
        left / width, (bottom + below) / height, 1 - right / width, 1 - top / height, gap, 0.6 / (high - 0.6)
    )
    return figure, panels[: len(names)]


def circumstances(sweep: Sweep) -> str:
    """Who wrote what: model, prompt, and how many texts of which length."""
    s = sweep.settings
    prompt = textwrap.shorten(s.prompt, 40, placeholder=" …")
    seeds = f"{len(s.seeds)} seeds" if len(s.seeds) > 1 else "one seed"
    model = "the built-in model" if s.model == "built-in" else Path(s.model).name
    return f"Here {model}, “{prompt}”, {s.samples} texts of up to {s.max_new_tokens} tokens, {seeds}."


def colors(sweep: Sweep) -> dict[float, str]:
    """A colour for each temperature, cold to hot by rank."""
    ordered = sorted(sweep.settings.temperature)
    return {value: between(rank / max(len(ordered) - 1, 1)) for rank, value in enumerate(ordered)}


def between(share: float) -> str:
    """The colour at this share of the way along ANCHORS.

    >>> between(0), between(1), between(0.125)
    ('#1f80c0', '#c8508c', '#108d98')
    """
    first = min(int(share * (len(ANCHORS) - 1)), len(ANCHORS) - 2)
    part = share * (len(ANCHORS) - 1) - first
    low, high = (channels(color) for color in ANCHORS[first : first + 2])
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high, strict=True))


def channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(color: Sequence[float]) -> float:
    """Relative luminance of red, green, blue in 0 .. 1 (WCAG 2.1).

    >>> luminance((1, 1, 1)), luminance((0, 0, 0))
    (1.0, 0.0)
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
