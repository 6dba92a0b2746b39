"""The style of all plots: no background, and colours that are readable on a white and on a dark page."""

from __future__ import annotations

from typing import Any

GREY = "#797979"  # contrast 4.4 to 1 with white and with GitHub's dark page
SETTINGS: Any = {
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
