"""The folder of a run, which is enough to repeat it, to resume it to the same bits, and to compare it with others.

    run.json         the command, every flag's value, which of them are not the default, versions, the seed, the sha256
                     of the weights and of the data files, the machine, when
    metrics.jsonl    one line of JSON an epoch
    best/            the model with the best dev score (trained/: its additions and heads alone, if BERT was frozen)
    checkpoints/     the last two states of the training, for --resume and, before an epoch is done, for predictions
    predictions/     the prediction files of the best model
    outputs/         the best model's raw outputs for each dev example

`RunFolder` keeps other runs out while one is on its way, and deletes nothing that the user did not ask to delete. What
happens in a run, and how it goes on after a stop, is in `run.py`.
"""

import contextlib
import errno
import json
import os
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minbert import processes
from minbert.command_line import FREE
from minbert.description import other_data, other_part
from minbert.errors import UserError
from minbert.files import atomic, is_stream, remove_strays
from minbert.flags import flags_of, flags_then
from minbert.recipe import letter_of

RUNS = Path("runs")  # the place of runs without --out
OLDER = "older-run"  # holds an earlier run's files until the new run has a model
MOVING = "older-run-moving"  # its name until all of the files are in it
LOCK = ".minbert-lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # errors of a file system without locks
OURS = ("run.json", "metrics.jsonl", "best", "trained", "checkpoints", "outputs")


class RunFolder:
    """The folder of one run. path: where it is, or will be. more: other names that this kind of run writes there."""

    def __init__(self, path: str | Path, more: Sequence[str] = ()):
        self.path, self.names = Path(path), (*OURS, *more)
        self.best, self.trained, self.checkpoints = (self.path / name for name in ("best", "trained", "checkpoints"))
        self.metrics, self.description = self.path / "metrics.jsonl", self.path / "run.json"

    def contents(self) -> list[str]:
        """The names of a run's files that are here."""
        return [name for name in self.names if (self.path / name).exists()]

    def check_free(self, overwrite: bool):
        """UserError if an earlier run is here and may not be replaced."""
        there = self.contents()
        if there and not overwrite:
            raise UserError(
                f"{self.path / there[0]}: belongs to an earlier run; continue it with --resume, name another folder "
                "with --out, or add --overwrite"
            )

    def finish(self):
        """Note in run.json that the run has come to its end, and say how to look at it."""
        description = self.read_description()
        self.describe(description | {"finished": datetime.now(UTC).isoformat(timespec="seconds")})
        print(f"{'page':18} python -m minbert.report {shlex.quote(str(self.path))}")
        print(f"{'':18} (this command writes a page about the run, and says how to open it)", flush=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the folder while this one is in it; UserError where one is in it already."""
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / LOCK, "a") as file:
            try:
                _lock(file)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(self.path / LOCK)):
                    raise BlockingIOError  # the run that held the lock has just removed its file
            except OSError as error:
                raise UserError(f"{self.path}: another run is writing here; name another folder with --out") from error
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    (self.path / LOCK).unlink()
                    if made:
                        self.path.rmdir()  # which only an empty folder lets happen

    @contextmanager
    def held(self, args: Namespace) -> Iterator["RunFolder"]:
        """Inside, this folder is locked for a run. UserError if it is not free, or has no run to --resume."""
        if args.resume:
            self.read_description()
        if processes.rank():  # the first process holds the lock for all
            yield self
            return
        with self.lock():
            for name in ("", "checkpoints", "outputs", "predictions"):
                remove_strays(self.path / name)
            if not args.resume:
                self.check_free(args.overwrite)
            yield self

    def start(self, args: Namespace, description: Mapping[str, Any]):
        """Write run.json or, with --resume, check that the run here is the same."""
        processes.wait()  # until the others have read the earlier run.json
        if not args.resume:
            return self.begin(description)
        self.check_same(description)
        plan = self.read_description()["plan"]
        args.course_folder = Path(plan["course_folder"]) if plan.get("course_folder") else None
        args.prediction_name = plan.get("prediction_name") or args.prediction_name

    def begin(self, description: Mapping[str, Any]):
        """Write run.json. An earlier run's files are moved into older-run/, until `forget_older`."""
        if processes.rank():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        older = [*self.contents(), *self._predictions()]
        unfinished = (self.path / MOVING).exists()  # an earlier move was stopped
        if (self.path / OLDER).exists() and not self.best.exists() and not unfinished:
            # The run that is here never had a model, so it is deleted instead.
            for name in older:
                path = self.path / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif older or (self.path / MOVING).exists():
            print(f"{'earlier run':18} {self.path / OLDER}/, until this one has a model", flush=True)
            for name in older:
                place = self.path / MOVING / name
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(self.path / name, place)
            shutil.rmtree(self.path / OLDER, ignore_errors=True)
            os.rename(self.path / MOVING, self.path / OLDER)
        self.describe(description)

    def _predictions(self) -> list[str]:
        """The prediction files of the run that is here; predictions/ may hold other files, which stay."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            plan = json.loads(self.description.read_text("utf-8"))["plan"]
            names = [plan["prediction_name"].format(task=t, split=s) for t in plan["files"] for s in ("dev", "test")]
            return [f"predictions/{name}" for name in names if (self.path / "predictions" / name).exists()]
        return []

    def forget_older(self):
        """Delete the earlier run's files, once the new run has a model."""
        if processes.rank() == 0 and any((self.path / OLDER / name).exists() for name in self.names):
            shutil.rmtree(self.path / OLDER, ignore_errors=True)

    def describe(self, description: Mapping[str, Any]):
        if processes.rank():
            return
        with atomic(self.description) as temporary:
            temporary.write_text(json.dumps(description, indent=2, default=str) + "\n", encoding="utf-8")

    def read_description(self) -> dict[str, Any]:
        """What run.json says. UserError where it is not there or damaged."""
        try:
            description = json.loads(self.description.read_text("utf-8"))
            if not all(isinstance(description[key], dict) for key in ("flags", "plan", "weights", "data")):
                raise ValueError("not what a run writes")
            return description
        except FileNotFoundError as error:
            raise UserError(f"{self.description}: not there, so there is no run in {self.path}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.description}: cannot be read ({error})") from error

    def check_same(self, description: Mapping[str, Any]):
        """UserError that names the flag or file in which the run here differs from the description."""
        before = self.read_description()
        script = letter_of(description["script"])
        flags = flags_then(script, before["flags"])
        for key, value in description["flags"].items():
            if key not in FREE and as_json(flags[key]) != as_json(value):
                name = flags_of(script)[key].name
                raise UserError(f"{name} is {value}, and the run in {self.path} had {flags[key]}; "
                                "--resume goes on with the same flags")  # fmt: skip
        if "build" in description["weights"]:
            return self._check_program(before, description)
        part = "read" if before.get("read") and description.get("read") else "weights"  # earlier versions had no "read"
        if what := other_part(before[part], description[part]):
            raise UserError(f"--pretrained {description['weights']['name']}: its {what} the run in {self.path} began; "
                            "--resume needs the same weights")  # fmt: skip
        if place := other_data(script, before["data"], description["data"]):
            task, split = place.split("/")
            path = (description if place in description["data"] else before)["plan"]["files"][task][split]
            what = "has changed since" if place in before["data"] else "was not there when"
            what = what if place in description["data"] else "is not there, but was when"
            raise UserError(f"{path}: {what} the run in {self.path} began; --resume needs the same data")

    def _check_program(self, before: Mapping[str, Any], description: Mapping[str, Any]):
        """The same for the model and the data of a program; earlier versions did not describe them.

        BERT's weights may differ: in a notebook the model is the one that was in training when the run was stopped.
        """
        then = {"build": before["weights"].get("build")} | before["data"]
        now = {"build": description["weights"]["build"]} | description["data"]
        for name in then | now if then["build"] else ():
            if then.get(name) != now.get(name):
                what = "model is not built" if name == "build" else f"data of {name} are not"
                raise UserError(
                    f"the {what} as when the run in {self.path} began; resume needs the same model and data"
                )


def as_json(value: Any) -> Any:
    """A value as it would be read back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _lock(file):
    """Lock an open file for this process; OSError if another has it. A file system without locks gets a warning."""
    try:
        import fcntl
    except ImportError:
        import msvcrt  # Windows

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{file.name}: this file system has no locks; let one run at a time write there", file=sys.stderr)


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `parent/name-2` and so on where that holds a run, or several in folders of their own."""
    paths = (parent / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(path for path in paths if not RunFolder(path).contents() and not any(path.glob("*/run.json")))


def newest_run(parent: Path) -> Path | None:
    """The run in `parent`, or one folder deeper, whose best model was written last; None without one."""
    models = [path for path in (*parent.glob("*/best"), *parent.glob("*/*/best"))
              if path.parent.name not in (OLDER, MOVING)]  # fmt: skip
    return max(models, key=lambda path: path.stat().st_mtime).parent if models else None


def check_places(args: Namespace, more: Sequence[str] = (), others: Sequence[Namespace] = ()):
    """UserError, before anything is read, if an output is an input or another output, or cannot be written.

    others: the settings of other runs of the same call, whose inputs and folders count as well.
    """
    folder = RunFolder(args.out, more)
    inputs = [path for run in (args, *others) for paths in run.files.values() for path in paths.values()]
    inputs.append(Path(str(args.pretrained)))
    flag_of = "--{1}_out" if args.script == "c" else "--{0}_{1}_out"
    outputs = {flag_of.format(name, split): path for name, outs in args.outs.items() for split, path in outs.items()}
    own = [path / name for path in (folder.path, *(run.out for run in others)) for name in folder.names]
    usual = [place / args.prediction_name.format(task=name, split=split)
             for place in (folder.path / "predictions", args.course_folder) if place and outputs
             for name in args.files for split in ("dev", "test") if split not in args.outs.get(name, {})]  # fmt: skip
    for flag, path in outputs.items():
        if any(_same(path, other) for other in (*inputs, *own)) or any(_inside(path, other) for other in own):
            raise UserError(f"{flag} {path}: is a file that the run reads or keeps; name another")
        if path.is_dir() or str(path) in ("", "."):
            raise UserError(f"{flag} {path}: is a folder; name a file")
        if is_stream(path):  # /dev/null takes the predictions of several tasks
            if not os.access(path, os.W_OK):
                raise UserError(f"{flag} {path}: nothing can be written there; name a file")
            continue
        if any(other != flag and _same(path, place) for other, place in outputs.items()):
            raise UserError(f"{flag} {path}: another flag names the same file")
        if any(_same(path, place) for place in usual):
            raise UserError(f"{flag} {path}: is the place of other predictions; name another")
        _check_writable((path.resolve() if path.is_symlink() else path).parent, flag)
    for path in inputs if args.overwrite else ():
        if any(_same(path, place) or _inside(path, place) for place in own) or _same(path, folder.path):
            raise UserError(
                f"--out {args.out} --overwrite: would remove {path}, which the run reads; name another folder"
            )
    if folder.path.exists() and not folder.path.is_dir():
        raise UserError(f"--out {args.out}: is a file; name a folder")
    for name in ("metrics.jsonl", "run.json"):
        if (folder.path / name).is_dir():
            raise UserError(f"{folder.path / name}: is a folder; name another --out")
    if (folder.path / "predictions").is_file():
        raise UserError(f"{folder.path / 'predictions'}: is a file; name another --out")
    _check_writable(folder.path, "--out")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _check_writable(folder: Path, flag: str):
    """UserError where no file can be made in `folder`, or where `folder` cannot be made."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".minbert-probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{flag} {folder}: nothing can be written there ({error.strerror})") from error
