"""The pictures of the page, by matplotlib: an SVG inside the page, and the same as a PNG file beside it.

Each function draws into an empty `Figure` that has the width of a phone; `render` makes both forms. `canvas.py` has the
parts, and `pictures_of_several.py` what compares runs.
"""

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from minbert.report.blocks import MARK
from minbert.report.canvas import SETTINGS, WIDTH, Points, finite, plot, shorten, whole_numbers
from minbert.report.pictures_of_several import curves, groups

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def render(draw: tuple[str, tuple], title: str, name: str) -> tuple[str, bytes]:
    """(SVG to stand inside a page, PNG file). draw: the name of a function in PICTURES, and its arguments."""
    function = PICTURES[draw[0]]
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}  # needs no screen
    with matplotlib.rc_context({**defaults, **SETTINGS}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        function(figure, *draw[1])
        text, image = io.StringIO(), io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.suptitle(shorten(title, 60), fontsize=10)
        figure.savefig(image, format="png", dpi=200, metadata={"Software": MARK})
    return inline(text.getvalue(), title, name), image.getvalue()


def inline(svg: str, title: str, name: str) -> str:
    """An SVG file as an element of a page: a title for screen readers, the page's width, and ids of its own."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key.endswith("href") and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    element = ElementTree.Element(f"{{{SVG}}}title", {"id": f"{name}-title"})
    element.text = title
    root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


# ------------------------------------------------------------------------------------------------ pictures


def scores(figure: Figure, rows: Sequence[tuple]):
    """Each task's score, with its interval, beside chance, before training and the best other run."""
    figure.set_size_inches(WIDTH, 1.1 + 0.42 * len(rows))
    axes = figure.add_subplot()
    kinds = [("chance", "|", "#444444", 11), ("before training", "D", "#444444", 6),
             ("best other run", "^", "#D55E00", 8)]  # fmt: skip
    lowest = 0.0
    for i, (_, x, interval, *others) in enumerate(rows):
        for (_, marker, colour, size), other in zip(kinds, others, strict=True):
            if other is not None and np.isfinite(other):
                axes.plot([other], [i], marker, color=colour, markersize=size, fillstyle="none", markeredgewidth=1.4)
                lowest = min(lowest, other)
        if interval:
            axes.plot(interval, [i, i], color="#0072B2", linewidth=2)
        if x is not None and np.isfinite(x):
            axes.plot([x], [i], "o", color="#0072B2", markersize=7)
            lowest = min(lowest, x)
    names = {name for row in rows for (name, *_), x in zip(kinds, row[3:], strict=True) if x is not None}
    for name, marker, colour, size in kinds:
        if name not in names:
            continue
        axes.plot([], [], marker, color=colour, markersize=size, fillstyle="none", markeredgewidth=1.4, label=name)
    axes.plot([], [], "o-", color="#0072B2", markersize=7, label="this run, 95% interval")
    axes.set_yticks(range(len(rows)), [shorten(row[0], 20) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(min(-0.02, lowest - 0.05), 1.02)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, handletextpad=0.4, columnspacing=1.2)


def learning(figure: Figure, series: Mapping[str, Points], measure: str, kept: int | None):
    """Scores by epoch above, the loss below; a line marks the kept epoch."""
    above = {name: points for name, points in series.items() if name != "loss"}
    figure.set_size_inches(WIDTH, 3.4 if above and "loss" in series else 2.3)
    panels = [(measure, above)] * bool(above) + [("loss", {"loss": series["loss"]})] * ("loss" in series)
    all_axes = np.atleast_1d(figure.subplots(len(panels), sharex=True, height_ratios=[1.5, 1][: len(panels)]))
    for axes, (label, lines) in zip(all_axes, panels, strict=True):
        plot(axes, {"train": lines["loss"]} if label == "loss" else lines, first=label == "loss")
        axes.set_ylabel(label)
        whole_numbers(axes)
        if kept is not None:
            axes.axvline(kept, color="#444444", linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    if kept is not None:
        all_axes[0].annotate("kept", (kept, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                             textcoords="offset points", ha="center", fontsize=8.5, color="#444444")  # fmt: skip
    all_axes[-1].set_xlabel("epoch")


def lines(figure: Figure, series: Mapping[str, Points], label: str, form: str = ""):
    """Several series by epoch. form: "log" for a logarithmic scale, "zero" to mark 0."""
    figure.set_size_inches(WIDTH, max(2.4, 1.2 + 0.16 * len(series)))
    axes = figure.add_subplot()
    values = [y for points in series.values() for y in finite(points)[1]]
    if form == "log" and values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if max(values) > 100 * min(values) else (1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if form == "zero":
        axes.axhline(0, color="#444444", linewidth=0.8)
    plot(axes, series)
    if axes.get_yscale() == "log" or (values and max(map(abs, values)) < 1e-3):  # 10⁻⁹ would be shown as TeX source
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
    axes.set_ylabel(label)
    axes.set_xlabel("epoch")
    whole_numbers(axes)


def confusion(figure: Figure, counts: Sequence[Sequence[int]], names: Sequence[str]):
    """Counts, shaded by their share of the row."""
    matrix = np.array(counts)
    K, small = len(names), len(names) <= 12
    figure.set_size_inches(WIDTH, WIDTH * 0.85 if small else WIDTH)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5, rasterized=not small)
    if small:
        size = min(9, 60 / K)
        for i in range(K):
            for j in range(K):
                axes.text(j + 0.5, i + 0.5, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=size,
                          color="white" if shares[i, j] > 0.55 else "black")  # fmt: skip
        labels = ["\n".join(textwrap.wrap(shorten(name, 26), 14)) for name in names]
        upright = max(len(line) for label in labels for line in label.split("\n")) * K < 34
        axes.set_xticks(
            np.arange(K) + 0.5,
            labels,
            rotation=0 if upright else 40,
            ha="center" if upright else "right",
            rotation_mode="default" if upright else "anchor",
        )
        axes.set_yticks(np.arange(K) + 0.5, labels)
    axes.set_xlabel("the model says" if small else "the model says (class number)")
    axes.set_ylabel("true class" if small else "true class (number)")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def calibration(figure: Figure, bins: Sequence[Any]):
    """Accuracy against confidence above, the number of examples in each bin below."""
    figure.set_size_inches(WIDTH, 3.6)
    above, below = figure.subplots(2, sharex=True, height_ratios=[2.2, 1])
    full = [b for b in bins if b.count]
    above.plot([0, 1], [0, 1], color="#444444", linewidth=1, linestyle="--")
    x, y = [b.confidence for b in full], [b.accuracy for b in full]
    above.plot(x, y, color="#0072B2", linewidth=1)
    above.scatter(x, y, [12 + 80 * b.count / max(b.count for b in full) for b in full], color="#0072B2", zorder=3)
    above.annotate("perfect", (0.1, 0.13), rotation=38, fontsize=8.5, color="#444444", ha="center")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.03, 1.05))
    below.bar([(b.low + b.high) / 2 for b in bins], [b.count for b in bins], width=0.085, color="#9fb8c8",
              edgecolor="#444444", linewidth=0.6)  # fmt: skip
    for b in full:
        below.annotate(f"{b.count:,}", ((b.low + b.high) / 2, b.count), xytext=(0, 1.5), textcoords="offset points",
                       ha="center", fontsize=7.5)  # fmt: skip
    below.margins(y=0.3)
    below.set(ylabel="examples", xlabel="confidence")
    for axes in (above, below):
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)


def numbers(figure: Figure, labels: Sequence[float], predictions: Sequence[float], ranges: Sequence[Any]):
    """Predictions against labels above, both distributions below."""
    figure.set_size_inches(WIDTH, 4.6)
    above, below = figure.subplots(2, sharex=True, height_ratios=[2.2, 1])
    low, high = ranges[0].low, ranges[-1].high
    above.plot([low, high], [low, high], color="#444444", linewidth=1, linestyle="--")
    above.scatter(labels, predictions, s=14, color="#0072B2", alpha=min(0.6, max(0.15, 60 / len(labels) ** 0.8)),
                  linewidth=0, rasterized=True)  # fmt: skip
    full = [r for r in ranges if r.mean is not None]
    above.plot(
        [(r.low + r.high) / 2 for r in full], [r.mean for r in full], color="#D55E00", marker="s", markersize=4.5
    )
    above.set_ylabel("prediction")
    edges = [*(r.low for r in ranges), high]
    for column, colour, dash in (("labels", "#444444", "-"), ("predictions", "#0072B2", "--")):
        below.stairs([getattr(r, column) for r in ranges], edges, color=colour, linestyle=dash, linewidth=1.6,
                     label=column, fill=False)  # fmt: skip
    above.set_xlabel("label")
    above.tick_params(labelbottom=True)
    below.set(ylabel="examples", xlabel="label or prediction")
    figure.legend(loc="outside lower center", ncols=2, handlelength=2.2)


def shares(figure: Figure, by_epoch: Mapping[int, Mapping[str, float]], tasks: Sequence[str]):
    """Stacked bars, one for each epoch, with the shares as numbers."""
    epochs = sorted(by_epoch)
    figure.set_size_inches(WIDTH, 1.2 + 0.28 * len(epochs))
    axes = figure.add_subplot()
    left = np.zeros(len(epochs))
    for i, task in enumerate(tasks):
        widths = np.array([by_epoch[epoch].get(task, 0.0) for epoch in epochs])
        axes.barh(range(len(epochs)), widths, left=left, height=0.75, color=("#cfe3f1", "#f6d5bd", "#cdeadf", "#e4e4e4",
                  "#ead7ec", "#efe2bd")[i % 6], hatch=("", "///", "...", "xx", "\\\\\\", "++")[i % 6],
                  edgecolor="#444444", linewidth=0.6, label=shorten(task))  # fmt: skip
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 0.08:
                axes.text(start + width / 2, row, f"{width:.0%}", ha="center", va="center", fontsize=8.5,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        left += widths
    axes.set_yticks(range(len(epochs)), [str(epoch) for epoch in epochs])
    axes.set_ylim(len(epochs) - 0.4, -0.6)
    axes.set(xlim=(0, 1), xlabel="share", ylabel="epoch")
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    figure.legend(loc="outside upper center", ncols=min(4, len(tasks)), handlelength=2)


PICTURES: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (scores, learning, lines, confusion, calibration, numbers, shares, groups, curves)
}
