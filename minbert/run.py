"""A run in progress: its position, and everything that it needs to go on after a stop.

Each object with state (`state_dict`, `load_state_dict`) is registered once, and none saves itself. A checkpoint holds
the states of all: weights, AdamW's means, the batch streams, the schedule's history, the gradients' memory, terms, the
log of the epoch so far, dropout's generator. So a run that is stopped at any step and resumed ends, on a CPU, with the
same bits as one that was not. With several processes (`processes.py`) the first one writes the checkpoint, with the
generators of all; a run may be resumed with another number of processes.

    run = Run(folder, "10m")
    run.register(model=model, optimizer=optimizer, …)
    with run.on_its_way(resume):
        for epoch in run.epochs(10):
            for i, step in run.steps(steps, "epoch 1/10"):       saves when it is due, and leaves after a signal
                …
            with run.evaluation():                               a signal may end this at once
                …
            run.end_epoch(line)
"""

import contextlib
import ctypes
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minbert import processes
from minbert.errors import Stop, Stopped, UserError, stop_signals
from minbert.files import atomic
from minbert.folder import RunFolder
from minbert.progress import Progress
from minbert.state import finite, is_state, read_state, write_state

KEPT = 2  # checkpoints


class Run:
    """The position of a run: `epoch` epochs are done, and `step` steps of the next one.

    folder: the run's. save_every: "500" (steps) or "10m" (minutes) between two checkpoints; each epoch ends with one.
    lines: of metrics.jsonl. best: the best overall dev score so far, its epoch and scores. about: further values in
    every checkpoint, which --resume does not read.
    """

    def __init__(self, folder: RunFolder, save_every: str = "10m"):
        self.folder = folder
        self.minutes = float(save_every[:-1]) if save_every.endswith("m") else None
        self.every = None if self.minutes is not None else int(save_every)
        self.epoch = self.step = 0
        self.lines: list[str] = []
        self.best: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.parts: dict[str, Any] = {"random": Random()}
        self.saved_at = time.monotonic()
        self.stop = Stop()
        if torch.cuda.is_initialized():  # by an earlier run of this process, say, whose peak is not this one's
            torch.cuda.reset_peak_memory_stats()

    def register(self, **parts: Any):
        """Add what has state, by name."""
        self.parts |= parts

    # -------------------------------------------------------------------------------------------- on the way

    @contextmanager
    def on_its_way(self, resume: bool = False) -> Iterator[None]:
        """Inside, a signal takes effect at the end of a step. resume: begin at the last checkpoint."""
        if resume:
            processes.first_alone(self.load)  # which removes what is damaged
        self._check_weights()
        with stop_signals() as self.stop:
            yield

    def epochs(self, count: int) -> Iterator[int]:
        """The numbers of the epochs that are still to do, from 0 on."""
        if self.epoch > count:
            self._is_beyond(f"epoch {self.epoch} of {count}")
        while self.epoch < count:
            if self.step == 0 and "log" in self.parts:
                self.parts["log"].begin()
            yield self.epoch

    def steps(self, steps: Sequence, title: str) -> Iterator[tuple[int, Any]]:
        """The steps of this epoch that are still to do, with their numbers. After each, a checkpoint if one is due."""
        if self.step > len(steps):
            self._is_beyond(f"step {self.step} of {len(steps)}")
        with Progress(len(steps), title) as bar:
            bar.skip(self.step)
            for i in range(self.step, len(steps)):
                yield i, steps[i]
                bar.update()
                self.step = i + 1
                signal, due = processes.largest(torch.tensor([self.stop.signal or 0, self._is_due()])).tolist()
                if signal or due:
                    self.save()
                if signal:
                    self.stop.leave(
                        f"stopped after step {self.step} of epoch {self.epoch + 1}; --resume goes on from there", signal
                    )

    def _is_beyond(self, place: str):
        raise UserError(
            f"{self.folder.checkpoints}: the last checkpoint stands at {place}, which this run does not have"
        )

    def _is_due(self) -> bool:
        if self.every is not None:
            return self.step % self.every == 0
        return time.monotonic() - self.saved_at >= 60 * self.minutes

    @contextmanager
    def evaluation(self, weights: AbstractContextManager | None = None) -> Iterator[None]:
        """An evaluation changes no state, so a signal ends it at once, and --resume repeats it.

        weights: a context in which the model has other weights than those that train; a signal waits while they come
        and while they go. Several processes cannot agree to save in the middle of it, so they save before it.
        """
        if processes.size() > 1 and self.step:
            self.save()
        try:
            with weights or contextlib.nullcontext():
                try:
                    self.stop.raising = True
                    if self.stop.signal:
                        raise Stopped(self.stop.signal)
                    yield
                finally:
                    self.stop.raising = False
        except Stopped:
            if self.lines and processes.size() == 1:
                self.save()
            place = f"after epoch {self.epoch + 1}" if self.lines else "before training"
            self.stop.leave(f"stopped in the evaluation {place}; --resume does it again")

    def is_best(self, overall: float, scores: Mapping[str, float]) -> bool:
        """Whether these are the best dev scores so far; if so, `best` gets them."""
        if self.best and not overall > self.best["overall"]:
            return False
        self.best = {"overall": overall, "epoch": self.epoch + 1, "scores": dict(scores)}
        return True

    def end_epoch(self, line: Mapping[str, Any]):
        """Save, with one line more, and add that line to metrics.jsonl; so a run with its line has a checkpoint."""
        self.lines.append(json.dumps(line) + "\n")
        self.folder.forget_older()
        self.epoch, self.step = self.epoch + 1, 0
        self.save()
        self._write_lines()
        if signal := processes.largest(torch.tensor(self.stop.signal or 0)).item():
            self.stop.leave(f"stopped after epoch {self.epoch}; --resume goes on from there", signal)

    def log(self, line: Mapping[str, Any]):
        """Add a line to metrics.jsonl, and write the whole file."""
        self.lines.append(json.dumps(line) + "\n")
        self._write_lines()

    def _write_lines(self):
        if processes.rank() == 0:
            with atomic(self.folder.metrics) as temporary:
                temporary.write_text("".join(self.lines), encoding="utf-8")

    # -------------------------------------------------------------------------------------------- saving

    def save(self):
        """Write a checkpoint; the newest two are kept. UserError if a weight is not finite."""
        for part in self.parts.values():
            if isinstance(part, nn.Module) and (name := finite(part.state_dict())):
                raise UserError(
                    f"epoch {self.epoch + 1}, step {self.step}: {name} is not a finite number any more, and is not "
                    "saved; lower --lr, or add --clip 1"
                )
        self._check_weights()
        own = {name: part.state_dict() for name, part in self.parts.items() if getattr(part, "of_process", False)}
        first, *others = processes.gathered(own)
        if processes.rank() == 0:
            here = {"epoch": self.epoch, "step": self.step, "lines": self.lines, "best": self.best}
            parts = {name: first[name] if name in own else part.state_dict() for name, part in self.parts.items()}
            state = {"run": here, "parts": parts, "about": self.about}
            state |= {"other processes": others} if others else {}
            write_state(self.folder.checkpoints / f"epoch-{self.epoch:05}-step-{self.step:08}", state)
            for path in checkpoints(self.folder)[:-KEPT]:
                shutil.rmtree(path, ignore_errors=True)
        processes.wait()  # so that no process ends before the checkpoint is there
        _release_memory()
        self.saved_at = time.monotonic()

    def _check_weights(self):
        """UserError if the weights are not the same bits in all processes, which must train one model."""
        if processes.size() > 1:
            modules = [part for part in self.parts.values() if isinstance(part, nn.Module)]
            bits = [p.detach().contiguous().view(torch.int32).sum() for part in modules for p in part.parameters()]
            sums = torch.stack(bits).tolist()
            if any(other != sums for other in processes.gathered(sums)):
                raise UserError(
                    f"epoch {self.epoch + 1}, step {self.step}: the processes do not have the same weights any more; "
                    "run all of them on processors of one kind, with the same weights to begin with"
                )

    def load(self):
        """Load the newest whole checkpoint; damaged ones are named on stderr, and removed.

        A run that was stopped before its first checkpoint begins from the start. UserError if all are damaged, if the
        newest does not fit, or if what an earlier epoch wrote is missing.
        """
        damage, damaged = "", []
        for path in reversed(_places(self.folder)):  # also those of which a part is missing
            try:
                state = read_state(path)
            except UserError as error:
                print(f"{error}; the checkpoint before it is used", file=sys.stderr)
                damage = f" ({error})"
                damaged.append(path)
                continue
            self._take(state, path)
            if self.best and not is_state(self.folder.best):
                raise missing_best(self.folder)
            for other in damaged:  # else it counts among the two that are kept
                shutil.rmtree(other, ignore_errors=True)
            print(f"resumed after epoch {self.epoch}{f' and {self.step} steps' if self.step else ''}", flush=True)
            return
        if not damaged and epochs_done(self.folder):
            raise UserError(
                f"{self.folder.checkpoints}: no checkpoint there, though epochs of this run are done; copy the run's "
                "checkpoints there, or begin anew with --overwrite"
            )
        if not damaged:
            print("stopped before its first checkpoint: the run begins from the start", flush=True)
            return
        raise UserError(
            f"{self.folder.checkpoints}: no whole checkpoint to --resume from{damage}; --overwrite begins anew"
        )

    def _take(self, state: Any, path: Path):
        try:
            here, parts = state["run"], state["parts"]
            unknown = set(parts) ^ set(self.parts)
            if unknown:
                raise UserError(f"{path}: has other parts than this run: {', '.join(sorted(unknown))}")
            rank, others = processes.rank(), state.get("other processes", [])
            for name, part in self.parts.items():
                if rank == 0 or not getattr(part, "of_process", False):
                    part.load_state_dict(parts[name])
                elif rank <= len(others):  # else there were fewer processes, and this one keeps its own seed
                    part.load_state_dict(others[rank - 1][name])
                if isinstance(part, nn.Module) and (wild := finite(part.state_dict())):
                    raise ValueError(f"{wild} is not finite")
            self.epoch, self.step, self.lines, self.best = (here[name] for name in ("epoch", "step", "lines", "best"))
            if not all(type(number) is int and number >= 0 for number in (self.epoch, self.step)):
                raise ValueError(f"epoch {self.epoch!r}, step {self.step!r}")
            if not all(isinstance(json.loads(line), dict) for line in self.lines):
                raise ValueError("its lines are not those of metrics.jsonl")
            if self.best and not {"overall", "epoch", "scores"} <= set(self.best):
                raise ValueError("its best scores are incomplete")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{path}: does not fit this run ({str(error).splitlines()[0]})") from error
        self._write_lines()


def checkpoints(folder: RunFolder) -> list[Path]:
    """The complete checkpoints of a run, the newest last."""
    return [path for path in _places(folder) if is_state(path)]


def _places(folder: RunFolder) -> list[Path]:
    return sorted(folder.checkpoints.glob("epoch-*-step-*") if folder.checkpoints.is_dir() else ())


def epochs_done(folder: RunFolder) -> bool:
    """Whether an epoch of a run has ended, as what there is of its files says: checkpoints, metrics.jsonl, best/."""
    if any(not path.name.startswith("epoch-00000-") for path in _places(folder)):
        return True
    try:
        lines = folder.metrics.read_text("utf-8").splitlines()
    except OSError:  # the line of before training is written long before best/
        return is_state(folder.best)
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError):  # a torn line
            if json.loads(line).get("epoch"):
                return True
    return False


def missing_best(folder: RunFolder) -> UserError:
    """What to say of a run whose best model was lost."""
    return UserError(
        f"{folder.best}: not there, though epochs of this run are done; copy it there, or begin anew with --overwrite"
    )


def _release_memory():
    """Let glibc return freed memory to the system; with batches of many lengths it would keep more and more."""
    with contextlib.suppress(OSError, AttributeError):  # another system's library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Random:
    """PyTorch's own generators, from which dropout draws."""

    of_process = True

    def state_dict(self) -> dict[str, Tensor | None]:
        return {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
            "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        }

    def load_state_dict(self, state: Mapping[str, Tensor | None]):
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        if state.get("mps") is not None and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])
