"""A flag is a row of a table, and the parser reads the rows.

A row says all that there is to say about a flag: its type, its default, its help, which flag it needs, which flags it
cannot be combined with, and which scripts have it. The rows stand in `flags.py` and, for a technique, in the module of
the technique.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from minbert.errors import one_line

LONGEST = 900  # characters of an error; a value that is given by mistake may be a whole file


@dataclass(frozen=True)
class Flag:
    """One row.

    name: as it is written, "--lora_rank". type: turns the text into a value; None makes a switch. default: the value
    that the flag has when it is not given; the flag is *on* when it has another value. choices: the allowed words, or
    "module.TABLE" for the keys of a table in a module of this package. needs: a flag that must be on beside this one,
    or "--flag value". not_with: flags that must be off beside this one, with a reason each (which may be "").
    scripts: m for multitask_classifier.py, c for classifier.py, p for `python -m minbert.pretraining`. example: a value
    that is not the default and has an effect, with other flags behind it if need be; the tests use it.
    many: the flag takes one word or more.
    """

    name: str
    help: str
    type: Callable[[str], Any] | None = str
    default: Any = None
    metavar: str | None = None
    choices: tuple[str, ...] | str = ()
    needs: str = ""
    not_with: Mapping[str, str] = field(default_factory=dict)
    scripts: str = "mc"
    example: str = ""
    many: bool = False
    dest: str = ""  # the name of the value, where it is not the flag's

    @property
    def key(self) -> str:
        """The name of the value in the parsed flags: "lora_rank"."""
        return self.dest or self.name.lstrip("-").replace("-", "_")

    def is_on(self, values: Mapping[str, Any]) -> bool:
        return values[self.key] != self.default

    def written(self, values: Mapping[str, Any]) -> str:
        """The flag with its value, as one would write it: "--lora_rank 8"."""
        value = values[self.key]
        return self.name if self.type is None else f"{self.name} {value}"

    def wanted(self) -> str:
        """What one has to write to turn the flag on: "--smart above 0", "--adapter"."""
        number = isinstance(self.default, int | float) and not isinstance(self.default, bool)
        return f"{self.name} above 0" if number and self.default == 0 else self.name


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors, whose help shows every flag's default.

    Unambiguous beginnings of a flag are accepted, as in the course's scripts: `--fine-tune full-model`.
    """

    def __init__(self, **options):
        super().__init__(usage="%(prog)s [flags]", formatter_class=_Help, **options)

    def error(self, message: str):
        line = one_line(message)
        line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
        self.exit(2, f"error: {line} (--help lists the flags)\n")

    def given(self, argv: Sequence[str] | None) -> dict[str, Any]:
        """The values of the flags that a command line names; the other flags are absent."""
        absent = object()
        values = argparse.Namespace(**{action.dest: absent for action in self._actions})
        return {key: value for key, value in vars(self.parse_args(argv, values)).items() if value is not absent}

    def add_flags(self, title: str, flags: list[Flag]):
        """Add rows as one group of the help."""
        group = self.add_argument_group(title)
        for flag in flags:
            options: dict[str, Any] = {"help": flag.help, "default": flag.default, "dest": flag.key}
            if flag.type is None:
                options["action"] = "store_true"
            else:
                a_place = flag.type is str and flag.metavar in ("FILE", "DIR")
                options |= {"type": place if a_place else flag.type, "metavar": flag.metavar}
            if flag.choices:
                options["choices"] = flag.choices
            if flag.many:
                options["nargs"] = "+"
            group.add_argument(flag.name, **options)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        """Add the default, except for switches and where the help text explains it already."""
        if action.default in (None, "") or action.default is False or "default" in (action.help or ""):
            return action.help or ""
        return super()._get_help_string(action)


# ------------------------------------------------------------------------------------------------ types of values


MOST = {int: 10**9, float: 1e38}  # the largest value of a flag; float32 ends at 3.4e38


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


@cache  # so that two flags with the same bounds have the same type
def at_least(kind: type, low: float, above: bool = False, most: float | None = None) -> Callable[[str], Any]:
    """A flag's type: a number of `kind` that is ≥ `low` (> `low` with `above`) and ≤ `most` (default: see MOST)."""
    most = MOST[kind] if most is None else most

    def parse(text: str):
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            value = None
        shown = _shown(text)
        if value is None or not (value > low if above else value >= low) or value == float("inf"):
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{shown} is not {name} {'above' if above else 'of at least'} {low}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{shown} is too large; the most is {most:g}")
        return value

    return parse


number = at_least(float, 0)
positive = at_least(float, 0, above=True)
whole = at_least(int, 0)
count = at_least(int, 1)


def place(text: str) -> str:
    """A flag's type: the name of a file or folder. It cannot be empty, as an unset variable of a shell would be."""
    if not text:
        raise argparse.ArgumentTypeError("an empty text names no file or folder")
    return text


def seed(text: str) -> int:
    """A flag's type: a seed, from 0 to 2³² - 1."""
    try:
        return at_least(int, 0, most=2**32 - 1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a seed from 0 to {2**32 - 1}") from error


def rate(text: str) -> float:
    """A flag's type: a dropout rate, from 0 to less than 1."""
    value = number(text)
    if not value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate from 0 to less than 1")
    return value


def betas(text: str) -> tuple[float, float]:
    """A flag's type: a decay rate β above 0 and below 1, or two of them with a comma between."""
    values = [positive(word) for word in text.split(",")]
    if len(values) > 2 or not max(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be one or two rates below 1, separated by a comma")
    return values[0], values[-1]


def interval(text: str) -> str:
    """A flag's type: a number of steps, "500", or of minutes, "10m"; the text stays as it is."""
    number_of = positive if text.endswith("m") else count
    try:
        number_of(text.removesuffix("m"))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of steps (500) nor of minutes (10m)") from error
    return text


def names(text: str) -> tuple[str, ...]:
    """A flag's type: a list of words with commas between, each word once."""
    return tuple(dict.fromkeys(text.split(",")))


def steps(text: str) -> int | str:
    """A flag's type: a number of steps, or "3xsts", three times the batches that hold all of a task."""
    times, x, task = text.partition("x")
    try:
        number_of_times = at_least(int, 1, most=10**6)(times if task or not x else "")
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is neither a number of steps (1000) nor of a task's batches (3xsts, three times sts's)"
        ) from error
    return f"{number_of_times}x{task}" if x else number_of_times


def words(*choices: str) -> Callable[[str], str]:
    """A flag's type: one of the choices, or several of them with commas between; the text stays as it is."""

    def check(text: str) -> str:
        for word in text.split(","):
            if word not in choices:
                raise argparse.ArgumentTypeError(f"{_shown(text)}: {_shown(word)} is neither {' nor '.join(choices)}")
        return text

    return check
