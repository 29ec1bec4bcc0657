"""What a page is made of, without its HTML: sections of paragraphs, tables, pictures with their numbers, quotations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MARK = "minbert.report"  # marks the files that we write
NOTHING = "–"  # stands where there is no number


@dataclass
class Text:
    """A paragraph of ours."""

    text: str


@dataclass
class Code:
    """A command, to be copied."""

    text: str


@dataclass
class Notes:
    """What is missing or odd, a sentence each."""

    title: str
    notes: Sequence[str]


@dataclass
class Table:
    """title: its caption. rows: of texts; the first of each names the row. text: what the numbers mean."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""
    folded: bool = False  # shown when the reader asks for it


@dataclass
class Picture:
    """A picture with its numbers as a table. name: of its file. draw: a function of `pictures.py` and its arguments."""

    name: str
    title: str
    text: str
    draw: tuple[str, tuple]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    open: bool = False  # whether the table is shown at first


@dataclass
class Quotes:
    """Examples in words: (the texts, what is said of them, its id)."""

    title: str
    text: str
    quotes: Sequence[tuple[Sequence[str], str, str]]


@dataclass
class Section:
    title: str
    blocks: list[Any] = field(default_factory=list)
    sections: list["Section"] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------ numbers as text


def score(x: float | None, digits: int = 3) -> str:
    """A score: "0.513"."""
    return NOTHING if x is None or math.isnan(x) else f"{x:.{digits}f}"


def short(x: float | None) -> str:
    """A number of any size, with four significant digits: "1.234e-07"."""
    return NOTHING if x is None else f"{x:.4g}"


def count(n: float | None) -> str:
    """A number of things: "1,234"."""
    return NOTHING if n is None or not math.isfinite(n) else f"{n:,.0f}"


def share(x: float | None) -> str:
    """A share: "12%", with a digit more near 0 and near 1. Only 0 itself is "0%", and only 1 is "100%"."""
    if x is None or not math.isfinite(x):
        return NOTHING
    if 0 < x < 0.0005 or 0.9995 <= x < 1:
        return "less than 0.1%" if x < 0.5 else "more than 99.9%"
    return f"{x:.1%}" if 0 < x < 0.01 or 0.99 < x < 1 else f"{x:.0%}"


def duration(seconds: float | None) -> str:
    """A time: "47 s", "21 min 9 s", "3 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def value(x: Any) -> str:
    """A flag's value, or another plain value of run.json, as text."""
    if x is None or x == "":
        return NOTHING
    if isinstance(x, bool):
        return "yes" if x else "no"
    if isinstance(x, list | tuple):
        return ", ".join(map(value, x))
    return f"{x:g}" if isinstance(x, float) else str(x)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """A mean and its range: "0.513 (0.500 to 0.525)"; one value has no range."""
    if not values:
        return NOTHING
    mean = score(sum(values) / len(values), digits)
    return mean if len(values) == 1 else f"{mean} ({score(min(values), digits)} to {score(max(values), digits)})"
