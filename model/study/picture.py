"""The style of all plots: no background, and colours that are readable on a white and on a dark page."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # optional

GREY = "#797979"  # contrast 4.4 to 1 with white and with GitHub's dark page
SMALL = 7.5  # points
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alea",
    "font.size": 8.5,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.2,
}


def titled_figure(width: float, height: float, title: str, note: str) -> Figure:
    """An empty figure, sizes in inches, with a title above and a note below; matplotlib arranges the panels between."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.1 / width, ha="left", fontsize=11)
    figure.supxlabel("\n".join(textwrap.wrap(note, int(16 * width))), x=0.1 / width, ha="left", fontsize=SMALL)
    return figure
