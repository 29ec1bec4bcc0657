"""Pictures that compare runs: a row for each group of runs that differ in the seed alone, and their curves.

A page may have 30 runs, so a name stands above its row, where it has the width of the whole picture. Of many curves, a
few have a style and a name; the others are thin and grey.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from minbert.report.canvas import WIDTH, label_ends, shorten, style, whole_numbers

GREY = "#b0b0b0"


def groups(figure: Figure, rows: Sequence[tuple[str, Sequence[float]]], measure: str):
    """A score of several groups of runs: the mean, a line over the range, a stroke for each run."""
    figure.set_size_inches(WIDTH, 0.7 + 0.4 * len(rows))
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(rows):
        mean = f"{np.mean(values):.3f}" if values else "no score"
        for x, text, side in ((0, shorten(name, 48), "left"), (1, mean, "right")):
            axes.annotate(text, (x, i), xycoords=("axes fraction", "data"), xytext=(0, 6), textcoords="offset points",
                          ha=side, fontsize=8.5)  # fmt: skip
        if values:
            axes.plot([min(values), max(values)], [i, i], color="#0072B2", linewidth=1.4)
            axes.plot(values, [i] * len(values), "|", color="#0072B2", markersize=7)
            axes.plot([np.mean(values)], [i], "o", color="#0072B2", markersize=5.5)
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(rows) - 0.6, -0.8)
    axes.set_xlabel(measure)
    axes.margins(x=0.04)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def curves(figure: Figure, series: Mapping[str, Sequence[tuple[int, float, float, float]]], measure: str, named: int):
    """A score by epoch of several groups of runs: (epoch, mean, lowest, highest), the range as a band.

    The first `named` have a dash, a marker, a number at their end and a name below; the others are thin and grey.
    """
    items = list(series.items())
    named = len(items) if len(items) <= named + 1 else named  # there is room for one more
    figure.set_size_inches(WIDTH, 2.5 + 0.17 * (named + (len(items) > named)))
    axes = figure.add_subplot()
    for n, (_, points) in enumerate(items[named:]):
        x, y, *_ = zip(*points, strict=True)
        axes.plot(x, y, color=GREY, linewidth=0.8, zorder=1, label=None if n else f"the {len(items) - named} others")
    ends = []
    for n, (name, points) in enumerate(items[:named]):
        x, y, low, high = zip(*points, strict=True)
        axes.fill_between(x, low, high, color=style(n)["color"], alpha=0.15, linewidth=0)
        axes.plot(x, y, **style(n), markersize=4, label=f"{n + 1}  {shorten(name, 44)}")
        ends.append((y[-1], str(n + 1), style(n)["color"]))
    axes.set_ylabel(measure)
    axes.set_xlabel("epoch")
    whole_numbers(axes)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("the "))  # the grey ones last
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", handlelength=3.4,
                  labelspacing=0.25)  # fmt: skip
    figure.get_layout_engine().execute(figure)  # the legend takes height, on which the distance of the numbers depends
    label_ends(axes, ends)
