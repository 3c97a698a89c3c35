"""Draws the picture of shapes.md: python docs/pictures.py"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito


def hyperboloid(ax):
    """Draws exp0 on the hyperboloid of one dimension: n = 1 number becomes n + 1 = 2."""
    r, v = np.linspace(-1.75, 1.75, 200), 1.4
    ax.plot(np.sinh(r), np.cosh(r), color="0.2", linewidth=1.6)
    ax.plot(r * 1.5, np.ones_like(r), color="0.6", linewidth=1.0, linestyle="--")
    ax.annotate("", (v, 1), (0, 1), arrowprops={"arrowstyle": "-|>", "color": ORANGE, "linewidth": 2})
    along = np.linspace(0, v, 50)
    ax.plot(np.sinh(along), np.cosh(along), color=BLUE, linewidth=2.6)
    ax.plot(np.sinh(v), np.cosh(v), "o", color=BLUE, markersize=8)
    ax.plot(0, 1, "o", color="0.2", markersize=6)
    ax.text(0.75, 0.84, "tangent coordinates $v$: $n$ numbers", color=ORANGE, va="top", ha="center", fontsize=12)
    place = (np.sinh(v) - 0.15, np.cosh(v) - 0.02)
    ax.text(*place, "point $x$ = exp0($v$):\n$n$ + 1 numbers", color=BLUE, ha="right", fontsize=12)
    ax.text(0, 1.16, "origin", color="0.2", ha="center", fontsize=12)
    ax.text(-1.5, 2.25, "hyperboloid,\nhere $n$ = 1", color="0.2", fontsize=12, ha="left", va="bottom")
    ax.set(xlim=(-2.8, 2.8), ylim=(0.6, 3.0), aspect="equal")
    ax.set_axis_off()
    ax.set_title("(a) coordinates", fontsize=13)


def blocks(ax):
    """Draws the shape of draws (7, 5, 3), and of their log-density (7, 5)."""
    for left, columns, colour in ((0, 3, BLUE), (6.2, 1, GREEN)):
        for sample in reversed(range(3)):
            for batch in range(4):
                for event in range(columns):
                    place = (left + event + 0.28 * sample, -batch + 0.28 * sample)
                    fill = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.4}
                    ax.add_patch(Rectangle(place, 1, 1, zorder=3 - sample, **fill))
    style = {"fontsize": 12, "ha": "center", "va": "center"}
    ax.text(1.5, -3.5, "event\n(n + 1,)", color=BLUE, **style)
    ax.text(-0.35, -1, "batch: plates", color=BLUE, rotation=90, **style)
    ax.text(3.75, 1.95, "samples", color=BLUE, **style)
    ax.annotate("", (5.9, -0.7), (3.9, -0.7), arrowprops={"arrowstyle": "-|>", "color": "0.2", "linewidth": 1.6})
    ax.text(4.85, -0.35, "log_prob", color="0.2", **style)
    ax.text(6.9, -3.5, "no event\ndimension", color=GREEN, **style)
    ax.set(xlim=(-0.8, 8.4), ylim=(-4.1, 2.3), aspect="equal")
    ax.set_axis_off()
    ax.set_title("(b) dimensions of a tensor", fontsize=13)


def shapes(path):
    """Draws both panels."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    hyperboloid(left)
    blocks(right)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    shapes(Path(__file__).parent / "images" / "shapes.png")
