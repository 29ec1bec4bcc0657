"""Errors that a user can cause: one line that says what was wrong, where, and what to do; and the flags to cause them.

Every module raises `UserError` for these; the scripts run their `main` inside `one_line_errors`, which prints
the line and leaves with a non-zero status. Anything else is our mistake and keeps its traceback.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class UserError(Exception):
    """What was wrong, where (file, line, flag, tensor), and what to do about it, in one line."""


@contextmanager
def one_line_errors():
    """Turn a `UserError` or a failed file operation into one line on stderr and exit status 1 (130 for Ctrl-C)."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away: `... | head`
        sys.stderr.close()
        sys.exit(1)
    except UserError as error:
        sys.exit(f"error: {error}")
    except torch.OutOfMemoryError:
        sys.exit("error: the GPU's memory is full; lower --batch_size, or try --precision bf16")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


class Stop:
    """Whether somebody asked the program to stop: `asked` is the signal's number, or None."""

    asked: int | None = None

    def leave_if_asked(self, message: str):
        """Print `message` and leave as a signal's victim would: status 130 for Ctrl-C, 143 for SIGTERM."""
        if self.asked:
            print(message, file=sys.stderr)
            sys.exit(128 + self.asked)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM (a machine that is taken away) wait until the program looks; the second leaves at once."""
    stop = Stop()

    def ask(number, frame):
        if stop.asked:
            print("stopped at once, without saving", file=sys.stderr)
            sys.exit(128 + number)
        stop.asked = number

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, and whose help says every flag's default."""

    def __init__(self, **options):
        super().__init__(usage="%(prog)s [flags]", formatter_class=_Help, allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the flags)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        """Say a default where there is one to say: not for switches, not where the text itself explains it."""
        if action.default in (None, "") or action.default is False or "default" in (action.help or ""):
            return action.help or ""
        return super()._get_help_string(action)


def at_least(kind: type, low: float, above: bool = False):
    """A flag's type: a number of `kind` that is ≥ `low`, or > `low`."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (value > low if above else value >= low) or value == float("inf"):
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {name} {'above' if above else 'of at least'} {low}")
        return value

    return parse


def seed(text: str) -> int:
    """A flag's type: a seed, from 0 to 2³² - 1."""
    value = at_least(int, 0)(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed from 0 to {2**32 - 1}")
    return value


def betas(text: str) -> tuple[float, float]:
    """A flag's type: a decay rate β above 0 and below 1, or two of them with a comma between."""
    values = [at_least(float, 0, above=True)(word) for word in text.split(",")]
    if len(values) > 2 or not max(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one rate or two, with a comma between, below 1")
    return values[0], values[-1]


def rate(text: str) -> float:
    """A flag's type: a dropout rate, from 0 to less than 1."""
    value = at_least(float, 0)(text)
    if not value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate from 0 to less than 1")
    return value
