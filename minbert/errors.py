"""Errors that a user can cause: one line that says what was wrong, where, and what to do.

Every module raises `UserError` for these; the scripts run their `main` inside `one_line_errors`, which prints
the line and leaves with a non-zero status. Anything else is our mistake and keeps its traceback.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """What was wrong, where (file, line, flag, tensor), and what to do about it, in one line."""


def stop_early():
    """Let Ctrl-C end the program with one line until `one_line_errors` begins; PyTorch takes a second to load.

    If it is ignored, as in a job that a shell started with `&`, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number, frame):
    os.write(2, b"stopped by Ctrl-C\n")
    os._exit(130)


@contextmanager
def one_line_errors():
    """Turn a `UserError`, a failed file operation or full memory into one line on stderr and exit status 1.

    Ctrl-C gives status 130, SIGTERM 143 and SIGHUP 129, in one line too. On a console that is not UTF-8 (a Windows
    console, its redirected output), letters that it cannot show are replaced; they would end the program otherwise.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    before = _raise_stopped()
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away: `... | head`
        sys.stderr.close()
        sys.exit(1)
    except UserError as error:
        sys.exit(f"error: {one_line(str(error))}")
    except OSError as error:
        where = f"{str(error.filename)[:300]}: " if error.filename else ""
        sys.exit(f"error: {one_line(f'{where}{error.strerror or error}')}")
    except (MemoryError, RuntimeError) as error:
        memory = full_memory(error)
        if not memory:
            raise
        sys.exit(f"error: the {memory}'s memory is full; lower --batch_size, or try --precision bf16")
    except (KeyboardInterrupt, Stopped) as error:
        number = getattr(error, "number", signal.SIGINT)
        with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
            print(f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}", file=sys.stderr)
        sys.exit(128 + number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_stopped() -> dict[int, Any]:
    """Let SIGTERM and SIGHUP raise `Stopped` where they would end the process at once; returns the old handlers."""

    def stop(number, frame):
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) is signal.SIG_DFL}


def one_line(text: str) -> str:
    """The text with line breaks and other unprintable characters (in a file's name, say) as Python escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def full_memory(error: BaseException) -> str:
    """Whose memory was full when `error` arose: "GPU", "machine", or "" where it is another error."""
    if type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in str(error):
        return "GPU"  # torch.OutOfMemoryError by its name, since this module does not load torch
    words = ("can't allocate memory", "could not create a primitive", "bad_alloc")  # PyTorch's, oneDNN's and C++'s own
    return "machine" if isinstance(error, MemoryError) or any(word in str(error) for word in words) else ""


class Stopped(BaseException):
    """A signal came, outside of the training or while `Stop.raising` was set. number: the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = signal.Signals(number)


class Stop:
    """Whether a signal asked the program to stop: `signal` is its number, or None.

    raising: whether a signal raises `Stopped` at once. It is set while nothing would be lost.
    """

    signal: int | None = None
    raising = False

    def leave(self, message: str, signal: int | None = None):
        """Print `message` and exit like a program that a signal ended: status 130 for Ctrl-C, 143 for SIGTERM.

        signal: its number, if another process got it.
        """
        with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
            print(message, file=sys.stderr)
        sys.exit(128 + (signal or self.signal))


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Let Ctrl-C, SIGTERM and SIGHUP (a machine that is taken away) wait until the program looks at the `Stop`.

    The second signal ends the program at once. An ignored signal stays ignored (`nohup`, a job started with `&`).
    Outside of the main thread signals cannot be caught, and do what they always do.
    """
    stop = Stop()
    terminals = [name for name in ("stdout", "stderr") if getattr(sys, name) and getattr(sys, name).isatty()]

    def note(number, frame):
        if number == getattr(signal, "SIGHUP", None):  # the terminal is gone, and a print to it would fail
            for name in terminals:
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, until the end
        if stop.signal:
            print("stopped at once, without saving", file=sys.stderr)
            sys.exit(128 + number)
        stop.signal = number
        if stop.raising:
            raise Stopped(number)

    names = ("SIGINT", "SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
