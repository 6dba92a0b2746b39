"""The plots of a sweep, each as SVG and as PNG."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from model import files
from model.study.picture import GREY, SETTINGS, SMALL, titled_figure
from model.study.sweep import PICTURES, Point, Spread, Sweep, over_seeds
from samplers.extras import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # optional
    from matplotlib.figure import Figure

COLD_TO_HOT = ("#1F80C0", "#009A70", "#A97F00", "#D55E00", "#C8508C")  # contrast 3 to 1 or more on both pages
LIGHT_TO_DARK = ("#CCE0F2", "#08306B")  # of the heat map, by rising Self-BLEU
WHITE_ON = 60  # Self-BLEU from which a cell is so dark that white text has the greater contrast
MARKERS = "osD^vP*Xphd<>"  # for the values of top-p, in rising order
Measured = dict[Point, dict[str, Spread]]


def write(sweep: Sweep, folder: Path) -> list[Path]:
    """Draw every plot of a sweep into a folder and return the files. The same sweep gives the same bytes.

    Raises: RuntimeError if matplotlib is missing.
    """
    try:
        from matplotlib import style
    except ImportError:
        raise RuntimeError(f"the pictures of a sweep need matplotlib: {how_to_install('study')}") from None
    paths = []
    for name, draw in zip(PICTURES, (heat_map, quality_diversity, total_logprob), strict=True):
        with style.context(["default", SETTINGS]):  # not the user's matplotlibrc
            figure = draw(sweep)
            for kind, metadata in (("svg", {"Date": None, "Creator": "alea sweep"}), ("png", {"Software": None})):
                picture = io.BytesIO()
                figure.savefig(picture, format=kind, metadata=metadata, dpi=160)
                paths.append(folder / f"{name}.{kind}")
                files.replace(paths[-1], picture.getvalue())
    return paths


# Self-BLEU over temperature and top-p.


def heat_map(sweep: Sweep) -> Figure:
    """A panel for each top-k and ε, a cell for each temperature and top-p: mean Self-BLEU and its sd."""
    from matplotlib.colors import LinearSegmentedColormap

    settings, measured = sweep.settings, over_seeds(sweep.rows)
    width, height = 0.62 * len(settings.top_p) + 0.9, 0.42 * len(settings.temperature) + 0.75
    note = f"100: all texts are equal; 0: no two texts share a word. {source_note(sweep)}"
    figure, panels = canvas(sweep, width, height, "Self-BLEU by temperature and top-p", note)
    cell_color = LinearSegmentedColormap.from_list("self_bleu", LIGHT_TO_DARK)
    for axes, cells in zip(panels, by_panel(sweep, measured), strict=True):
        for point, values in cells.items():
            x, y = settings.top_p.index(point.top_p), settings.temperature.index(point.temperature)
            self_bleu = values["self_bleu"]
            axes.bar(x, 0.92, 0.96, y - 0.46, color=cell_color(self_bleu.mean / 100))
            write_cell(axes, x, y, self_bleu)
        axes.set(xlabel="top-p", ylabel="temperature")
        axes.set(xlim=(-0.5, len(settings.top_p) - 0.5), ylim=(-0.5, len(settings.temperature) - 0.5))
        axes.set_xticks(range(len(settings.top_p)), [f"{value:g}" for value in settings.top_p])
        axes.set_yticks(range(len(settings.temperature)), [f"{value:g}" for value in settings.temperature])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def write_cell(axes: Axes, x: int, y: int, value: Spread) -> None:
    style: dict[str, Any] = dict(ha="center", va="center", color="white" if value.mean >= WHITE_ON else "black")
    axes.text(x, y + (0.13 if value.sd is not None else 0), f"{value.mean:.1f}", **style)
    if value.sd is not None:
        axes.text(x, y - 0.24, f"± {value.sd:.1f}", fontsize=6, **style)


# Quality against diversity.


def quality_diversity(sweep: Sweep) -> Figure:
    """A line for each temperature through its top-p, from the greedy text's corner to the loosest setting."""
    note = (
        "A line per temperature, a point per top-p, bars: sd over seeds. Up and to the right texts are both probable "
        f"and varied. {source_note(sweep)}"
    )
    width, height = (8.0, 4.2) if len(panels_of(sweep)) == 1 else (4.2, 3.2)
    figure, panels = canvas(sweep, width, height, "Quality against diversity", note)
    measured = over_seeds(sweep.rows)
    low = min(values["model_logprob"].mean for values in measured.values())
    for axes, points in zip(panels, by_panel(sweep, measured), strict=True):
        axes.set(xlabel="diversity: 100 − Self-BLEU", ylabel="quality: mean ln p per token, nats")
        axes.set(xlim=(-8, 108), ylim=(1.1 * low, -0.06 * low))
        axes.grid()
        for temperature, color in colors(sweep).items():
            draw_line(axes, sweep, {p: v for p, v in points.items() if p.temperature == temperature}, color)
    for temperature, color in colors(sweep).items():
        panels[0].plot([], color=color, label=f"T = {temperature:g}")
    for top_p, marker in markers(sweep).items():
        panels[0].plot([], color=GREY, marker=marker, linestyle="none", label=f"top-p {top_p:g}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor="linecolor")
    return figure


def draw_line(axes: Axes, sweep: Sweep, points: Measured, color: Any) -> None:
    """The points of one temperature, by rising top-p, with their spread over seeds."""
    ordered = sorted(points.items(), key=lambda item: item[0].top_p)
    diversity = [100 - values["self_bleu"].mean for _, values in ordered]
    quality = [values["model_logprob"].mean for _, values in ordered]
    sd = [[values[name].sd or 0 for _, values in ordered] for name in ("self_bleu", "model_logprob")]
    axes.errorbar(diversity, quality, sd[1], sd[0], color=color, elinewidth=0.8)
    for (point, _), x, y in zip(ordered, diversity, quality, strict=True):
        axes.plot(x, y, color=color, marker=markers(sweep)[point.top_p])


def markers(sweep: Sweep) -> dict[float, str]:
    return {top_p: MARKERS[rank % len(MARKERS)] for rank, top_p in enumerate(sorted(sweep.settings.top_p))}


# The typical set.


def total_logprob(sweep: Sweep) -> Figure:
    """A dot for each text at its total ln p, a row for each temperature, and the greedy text, which is not typical."""
    settings, greedy = sweep.settings, sweep.greedy["total_logprob"]
    top_p, top_k = max(settings.top_p), 0 if 0 in settings.top_k else max(settings.top_k)
    epsilon = min(settings.epsilon_cutoff)
    loosest = ", ".join(filter(None, [f"top-p {top_p:g}", panel_name(sweep, top_k, epsilon)]))
    note = (
        f"A dot per text, hollow if it ended early; a bar: the mean of a temperature; {loosest}. ln p under softmax of "
        f"the model's logits, summed over the text. {source_note(sweep)}"
    )
    title = "What is drawn is far less probable than the greedy text: total ln p of every text"
    figure = titled_figure(8.0, 0.42 * len(settings.temperature) + 1.8, title, note)
    axes = figure.subplots()
    for row, temperature in enumerate(settings.temperature):
        wanted = (temperature, top_p, top_k, epsilon)
        texts = [text for text in sweep.texts if grid_point(text) == wanted]
        draw_strip(axes, row, texts, colors(sweep)[temperature])
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


def grid_point(text: dict[str, Any]) -> tuple[float, float, int, float]:
    return text["temperature"], text["top_p"], text["top_k"], text["epsilon_cutoff"]


def draw_strip(axes: Axes, row: int, texts: Sequence[dict[str, Any]], color: Any) -> None:
    """A dot for each text, shifted up and down to keep the dots apart."""
    for number, text in enumerate(texts):
        height = row + 0.5 * ((number * 0.618034) % 1 - 0.5)
        face = "none" if text["finish_reason"] == "eos" else color
        axes.plot(text["total_logprob"], height, "o", color=color, markersize=3.5, markerfacecolor=face, alpha=0.75)
    mean = fmean(text["total_logprob"] for text in texts)
    axes.plot([mean] * 2, [row - 0.36, row + 0.36], color=color, linewidth=2)


# Shared by the plots.


def panels_of(sweep: Sweep) -> list[tuple[int, float]]:
    """Top-k and ε of each panel."""
    return [(top_k, epsilon) for top_k in sweep.settings.top_k for epsilon in sweep.settings.epsilon_cutoff]


def by_panel(sweep: Sweep, measured: Measured) -> list[Measured]:
    return [
        {point: values for point, values in measured.items() if (point.top_k, point.epsilon_cutoff) == panel}
        for panel in panels_of(sweep)
    ]


def panel_name(sweep: Sweep, top_k: int, epsilon: float) -> str:
    """Top-k and ε, each only if it is on somewhere in the sweep."""
    names = []
    if sweep.settings.top_k != (0,):
        names.append(f"top-k {top_k}" if top_k else "no top-k")
    if sweep.settings.epsilon_cutoff != (0.0,):
        names.append(f"ε {epsilon:g}" if epsilon else "no ε")
    return ", ".join(names)


def canvas(sweep: Sweep, width: float, height: float, title: str, note: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each top-k and ε, at most three in a row. Sizes of a panel in inches."""
    names = [panel_name(sweep, *panel) for panel in panels_of(sweep)]
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = titled_figure(max(width * columns, 5.0), height * rows + 0.8, title, note)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure, panels[: len(names)]


def source_note(sweep: Sweep) -> str:
    """The model, the prompt, and the number and length of the texts."""
    s = sweep.settings
    prompt = textwrap.shorten(s.prompt, 40, placeholder=" …")
    seeds = f"{len(s.seeds)} seeds" if len(s.seeds) > 1 else "one seed"
    model = "the built-in model" if s.model == "built-in" else Path(s.model).name
    return f"Here {model}, “{prompt}”, {s.samples} texts of up to {s.max_new_tokens} tokens, {seeds}."


def colors(sweep: Sweep) -> dict[float, Any]:
    """A colour for each temperature, from cold to hot by rank."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("temperature", COLD_TO_HOT)
    ordered = sorted(sweep.settings.temperature)
    return {value: scale(rank / max(len(ordered) - 1, 1)) for rank, value in enumerate(ordered)}
