"""What every picture of the page is drawn with: sizes, colours with dashes and markers, lines with names at their ends.

The pictures can be read without colour (every line has its own dash and marker, and its name at its end) and at the
width of a phone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

WIDTH = 4.4  # inches; a phone shows the text at nearly its size
COLOURS = ("#0072B2", "#D55E00", "#007A5E", "#444444", "#8A4B8F", "#9A6700")  # the colour-blind can tell them apart
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = "os^DvPX"  # one more than dashes, so that both repeat together only after 42 lines
SETTINGS = {
    "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.edgecolor": "#555555", "lines.linewidth": 1.6, "lines.markersize": 5, "legend.frameon": False,
    "legend.fontsize": 8.5, "svg.fonttype": "none", "svg.hashsalt": "minbert", "text.parse_math": False,
    "text.usetex": False, "axes.unicode_minus": True, "hatch.linewidth": 0.6, "savefig.facecolor": "white",
}  # fmt: skip

Points = Sequence[tuple[float, float | None]]


def shorten(text: str, most: int = 18) -> str:
    """A text cut to a length, in one line."""
    text = " ".join(text.split()) or "(blank)"
    return text if len(text) <= most else text[: most - 1] + "…"


def style(i: int) -> dict[str, Any]:
    """The look of line number i: a colour, a dash and a marker."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)]}  # fmt: skip


def finite(points: Points) -> tuple[list[float], list[float]]:
    """The x and y of the points that have a finite y."""
    good = [(x, y) for x, y in points if y is not None and np.isfinite(y)]
    return [x for x, _ in good], [y for _, y in good]


def plot(axes: Axes, series: Mapping[str, Points], first: int = 0):
    """Lines, each with its own dash and marker, and its name at its end. first: the number of the first one's style."""
    ends = []
    for i, (name, points) in enumerate(series.items(), first):
        x, y = finite(points)
        if x:
            axes.plot(x, y, **style(i))
            ends.append((y[-1], name, style(i)["color"]))
    label_ends(axes, ends)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]):
    """Write names (y, name, colour) at the right of the axes, at height y, moved apart where they would touch."""
    axes.autoscale_view()
    to_share = axes.transAxes.inverted().transform
    heights = [(to_share(axes.transData.transform((0, y)))[1], name, colour) for y, name, colour in ends]
    gap = 0.13 / (axes.figure.get_figheight() * axes.get_position().height)
    last = -np.inf
    total = len(heights)
    for i, (height, name, colour) in enumerate(sorted(heights)):
        last = max(min(height, 1 - (total - 1 - i) * gap), last + gap)
        axes.annotate(shorten(name, 24), (1.02, last), xycoords="axes fraction", va="center", color=colour,
                      annotation_clip=False, fontsize=8.5)  # fmt: skip


def whole_numbers(axes: Axes):
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
