"""Runs in a process of their own that die when they are told to: by SIGKILL, at the n-th thing that they do.

What a run does is counted: the steps of the optimizer, and every file or folder that is written, brought to the disk,
renamed or removed. So "the n-th" falls between two steps, inside of a save and inside of an evaluation alike, and is
the same place each time.
"""

import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # any optimizer loads it, which takes a second: here once, before the copies are made

from minbert.optimizer import AdamW
from minbert.state import read_state
from tests.cli.runs import CLOCK

ROOT = Path(__file__).resolve().parents[2]
COUNTED = [(AdamW, "step"), (os, "rename"), (os, "replace"), (os, "fsync"), (os, "mkdir"), (shutil, "rmtree")]


def do_and_leave(do: Callable[[], Any], stderr: int, stdout: int | None = None):
    """In a copy of this process: call `do` with these open files, or no output; leave with its exit status."""
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY) if stdout is None else stdout, 1)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    status = 0
    try:
        do()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 99
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def in_a_process(
    main: Callable[[list[str]], Any], argv: Sequence[str], before: Callable[[], None] = lambda: None,
    stdout: int | None = None,
) -> tuple[int, str]:  # fmt: skip
    """Run `main(argv)` in a copy of this process, which has PyTorch loaded; its exit status, negative for a signal, and
    its stderr. stdout: an open file for its output.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:

        def run():
            before()
            main(list(argv))

        do_and_leave(run, write, stdout)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def as_script(folder: Path, name: str, argv: Sequence[str]):
    """In a copy of this process: what `python NAME ARGV` does in a folder, or `python -m NAME ARGV`.

    Nothing of this project is loaded, and its own folder is not searched unless it is the one.
    """
    loaded = [name for name, module in sys.modules.items() if _is_below(ROOT, getattr(module, "__file__", None))]
    for module in loaded:
        del sys.modules[module]
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path) != ROOT)]
    sys.argv, sys.dont_write_bytecode = [name, *argv], True
    os.chdir(folder)
    if name.endswith(".py"):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def script_in_a_process(folder: Path, name: str, argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a script as `as_script` does, in a copy of this process; its exit status, its stdout and its stderr."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        status, errors = in_a_process(partial(as_script, folder, name), argv, stdout=output.fileno())
        output.seek(0)
        return status, output.read(), errors


def _is_below(folder: Path, file: str | None) -> bool:
    return bool(file) and folder in Path(file).parents


def counting(act: Callable[[int, str], None]) -> Callable[[], None]:
    """What to call before a run, so that `act` is called with 1, 2, … and a name before each thing that it does."""
    count = [0]

    def counted(do, name):
        def wrapper(*args, **kwargs):
            count[0] += 1
            act(count[0], name)
            return do(*args, **kwargs)

        return wrapper

    def patch():
        for place, name in COUNTED:
            setattr(place, name, counted(getattr(place, name), name))

    return patch


def dies_at(number: int) -> Callable[[], None]:
    """What to call before a run that shall be killed at the thing with this number."""
    return counting(lambda n, _: os.kill(os.getpid(), signal.SIGKILL) if n == number else None)


def things_done(main, argv: Sequence[str], file: Path) -> list[str]:
    """The names of the things that a run does, in their order. file: where the run notes them."""

    def note(_, name: str):
        with open(file, "a") as notes:
            notes.write(f"{name}\n")

    status, text = in_a_process(main, argv, counting(note))
    assert status == 0, text
    return file.read_text().split()


# ------------------------------------------------------------------------------------------ what a run left behind


def newest(out: Path) -> dict[str, Any]:
    """The newest checkpoint."""
    return read_state(max((out / "checkpoints").glob("epoch-*")))


def left_behind(out: Path) -> dict[str, Any]:
    """Everything that a run has made, without times: its last state, best model, log, predictions and outputs."""
    state = newest(out)
    state["run"].pop("lines")
    for part in state["parts"].values():
        part.pop("seconds", None)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    files = {path.name: path.read_bytes() for folder in ("predictions", "outputs") for path in (out / folder).glob("*")}
    best = {"best": read_state(out / "best")} if (out / "best").exists() else {}
    weights = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    log = [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
    return {"state": state, "log": log, "files": files, "weights": weights, **best}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """The places where two nested structures differ, to the bit."""
    if type(one) is not type(other):
        return [place]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {one.keys() ^ other.keys()}"]
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [place]
        return [x for i, (a, b) in enumerate(zip(one, other, strict=True)) for x in differences(a, b, f"{place}/{i}")]
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [place]
    return [] if one == other else [place]
