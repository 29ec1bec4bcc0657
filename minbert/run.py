"""A run on its way: where it stands, and everything that it must remember to go on after a stop.

Whatever has state registers once (`state_dict`, `load_state_dict`); nothing else knows about saving. A checkpoint holds
it all: weights, AdamW's means, the streams of batches, the schedule's history, the gradients' memory, the terms, the
log of the epoch so far, dropout's generator. So a run that is stopped at any step and resumed ends, on a CPU, with the
same bits as one that was not. With several processes (`processes.py`) the first one writes the checkpoint, with the
generators of all; a run may be resumed with another number of them.

    run = Run(folder, "10m")
    run.register(model=model, optimizer=optimizer, …)
    with run.on_its_way(resume):
        for epoch in run.epochs(10):
            for i, step in run.steps(steps, "epoch 1/10"):       saves now and then, and leaves after a signal
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
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
    """Where a run stands: `epoch` epochs are done, and `step` steps of the next one.

    folder: where it is kept. save_every: "500" steps or "10m" minutes between two checkpoints; each epoch ends with
    one. lines: of metrics.jsonl. best: the best overall dev score so far, its epoch and scores.
    """

    def __init__(self, folder: RunFolder, save_every: str = "10m"):
        self.folder = folder
        self.minutes = float(save_every[:-1]) if save_every.endswith("m") else None
        self.every = None if self.minutes is not None else int(save_every)
        self.epoch = self.step = 0
        self.lines: list[str] = []
        self.best: dict[str, Any] = {}
        self.parts: dict[str, Any] = {"random": Random()}
        self.saved_at = time.monotonic()
        self.stop = Stop()

    def register(self, **parts: Any):
        """Add what has state, by name."""
        self.parts |= parts

    # -------------------------------------------------------------------------------------------- on the way

    @contextmanager
    def on_its_way(self, resume: bool = False) -> Iterator[None]:
        """Signals wait for the end of a step inside. resume: begin where the last checkpoint stands."""
        if resume:
            processes.first_alone(self.load)  # which removes what is damaged
        self._check_weights()
        with stop_signals() as self.stop:
            yield

    def epochs(self, count: int) -> Iterator[int]:
        """The numbers of the epochs that are still to do, from 0 on."""
        while self.epoch < count:
            if self.step == 0 and "log" in self.parts:
                self.parts["log"].begin()
            yield self.epoch

    def steps(self, steps: Sequence, title: str) -> Iterator[tuple[int, Any]]:
        """The steps of this epoch that are still to do, with their numbers. After each, a checkpoint if one is due."""
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

    def _is_due(self) -> bool:
        if self.every is not None:
            return self.step % self.every == 0
        return time.monotonic() - self.saved_at >= 60 * self.minutes

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Inside, nothing changes that has state: a signal ends it, and --resume does it again.

        Several processes cannot agree in the middle of it to save, so they save before it.
        """
        if processes.size() > 1 and self.step:
            self.save()
        try:
            self.stop.raising = True
            if self.stop.signal:
                raise Stopped
            yield
        except Stopped:
            self.stop.raising = False
            if self.lines and processes.size() == 1:
                self.save()
            place = f"after epoch {self.epoch + 1}" if self.lines else "before training"
            self.stop.leave(f"stopped in the evaluation {place}; --resume does it again")
        finally:
            self.stop.raising = False

    def is_best(self, overall: float, scores: Mapping[str, float]) -> bool:
        """Whether these are the best dev scores so far, which are kept in `best` then."""
        if self.best and not overall > self.best["overall"]:
            return False
        self.best = {"overall": overall, "epoch": self.epoch + 1, "scores": dict(scores)}
        return True

    def end_epoch(self, line: Mapping[str, Any]):
        """Add a line to metrics.jsonl, and save."""
        self.log(line)
        self.folder.forget_older()
        self.epoch, self.step = self.epoch + 1, 0
        self.save()
        if signal := processes.largest(torch.tensor(self.stop.signal or 0)).item():
            self.stop.leave(f"stopped after epoch {self.epoch}; --resume goes on from there", signal)

    def log(self, line: Mapping[str, Any]):
        """Add a line to metrics.jsonl, which is written whole."""
        self.lines.append(json.dumps(line) + "\n")
        self._write_lines()

    def _write_lines(self):
        if processes.rank() == 0:
            with atomic(self.folder.metrics) as temporary:
                temporary.write_text("".join(self.lines), encoding="utf-8")

    # -------------------------------------------------------------------------------------------- saving

    def save(self):
        """Write a checkpoint; the newest two are kept. UserError where a weight is not finite: it would be no use."""
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
            state = {"run": here, "parts": parts} | ({"other processes": others} if others else {})
            write_state(self.folder.checkpoints / f"epoch-{self.epoch:05}-step-{self.step:08}", state)
            for path in sorted(self._checkpoints())[:-KEPT]:
                shutil.rmtree(path, ignore_errors=True)
        processes.wait()  # so that no process ends before the checkpoint is there
        _release_memory()
        self.saved_at = time.monotonic()

    def _check_weights(self):
        """UserError where the weights are not the same bits in all processes, which would train other models."""
        if processes.size() > 1:
            modules = [part for part in self.parts.values() if isinstance(part, nn.Module)]
            bits = [p.detach().contiguous().view(torch.int32).sum() for part in modules for p in part.parameters()]
            sums = torch.stack(bits).tolist()
            if any(other != sums for other in processes.gathered(sums)):
                raise UserError(
                    f"epoch {self.epoch + 1}, step {self.step}: the processes do not have the same weights any more; "
                    "run all of them on processors of one kind, with the same weights to begin with"
                )

    def _checkpoints(self) -> list[Path]:
        paths = self.folder.checkpoints.glob("epoch-*-step-*") if self.folder.checkpoints.is_dir() else ()
        return [path for path in paths if is_state(path)]

    def load(self):
        """Take up the newest whole checkpoint; damaged ones are named on stderr, and removed.

        Where the run was stopped before its first checkpoint it begins from the start. UserError where all are damaged.
        """
        damage, damaged = "", []
        for path in sorted(self._checkpoints(), reverse=True):
            try:
                state = read_state(path)
            except UserError as error:
                print(f"{error}; the checkpoint before it is used", file=sys.stderr)
                damage = f" ({error})"
                damaged.append(path)
                continue
            self._take(state, path)
            for other in damaged:  # it would be one of the two that are kept
                shutil.rmtree(other, ignore_errors=True)
            print(f"resumed after epoch {self.epoch}{f' and {self.step} steps' if self.step else ''}", flush=True)
            return
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
                elif rank <= len(others):  # else there were fewer, and this one begins with the seed of its own
                    part.load_state_dict(others[rank - 1][name])
            self.epoch, self.step = here["epoch"], here["step"]
            self.lines, self.best = here["lines"], here["best"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: does not fit this run ({str(error).splitlines()[0]})") from error
        self._write_lines()


def _release_memory():
    """Give the memory back that glibc keeps of batches of many lengths; a long run would hold more and more of it."""
    with contextlib.suppress(OSError, AttributeError):  # another system's library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Random:
    """PyTorch's own generators, from which dropout draws."""

    of_process = True

    def state_dict(self) -> dict[str, Tensor | None]:
        return {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }

    def load_state_dict(self, state: Mapping[str, Tensor | None]):
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


class EpochLog:
    """What happened in an epoch: each task's losses, what the terms log, how many examples were seen, the time.

    Numbers have a name, "loss" or "smart.before", and a task.
    """

    def __init__(self):
        self.begin()

    def begin(self):
        """Forget everything, and start the clock."""
        self.values: dict[str, dict[str, list[Tensor]]] = {}  # name → task → a number a batch
        self.examples, self.before, self.start = 0, 0.0, time.perf_counter()

    def add(self, task: str, examples: int, loss: Tensor, terms: Mapping[str, Mapping[str, Tensor]] | None = None):
        """Note a batch. Nothing is converted to a Python number, which would wait for the GPU."""
        numbers = {"loss": loss} | {f"{t}.{name}": x for t, log in (terms or {}).items() for name, x in log.items()}
        for name, value in numbers.items():
            self.values.setdefault(name, {}).setdefault(task, []).append(value.detach())
        self.examples += examples

    def add_cosines(self, tasks: Sequence[str], cosines: Tensor | None):
        """Note the cosines between the gradients of a step's tasks. cosines: (T, T), T tasks, in their order."""
        for i, j in combinations(range(len(tasks)), 2) if cosines is not None else ():
            self.values.setdefault("cosine", {}).setdefault(f"{tasks[i]},{tasks[j]}", []).append(cosines[i, j])

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def mean(self, name: str) -> dict[str, float]:
        """The mean of a number, by task."""
        return {task: _stack(values).mean().item() for task, values in self.values.get(name, {}).items()}

    def term(self, name: str, largest: Iterable[str] = ()) -> dict[str, dict[str, float]]:
        """What a term logged, task → name → number: means, but of the numbers named in `largest` the largest."""
        result: dict[str, dict[str, float]] = {}
        for key, by_task in self.values.items():
            term, _, number = key.partition(".")
            if term == name:
                whole = torch.max if number in largest else torch.mean
                for task, values in by_task.items():
                    result.setdefault(task, {})[number] = whole(_stack(values)).item()
        return result

    def summary(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """The epoch in numbers, as metrics.jsonl has them. terms: the run's terms, by name."""
        logged = {name: self.term(name, term.largest) for name, term in terms.items()}
        seconds = self.seconds
        return {
            "loss": self.mean("loss"),
            **{name: means for name, means in logged.items() if means},
            **({"cosines": self.mean("cosine")} if "cosine" in self.values else {}),
            "batches": {task: len(values) for task, values in self.values.get("loss", {}).items()},
            "seconds": seconds,
            "examples_per_second": self.examples / seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        values = {name: {t: _stack(x).cpu() for t, x in tasks.items()} for name, tasks in self.values.items()}
        return {"values": values, "examples": self.examples, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]):
        self.begin()
        self.values = {name: {t: list(x) for t, x in tasks.items()} for name, tasks in state["values"].items()}
        self.examples, self.before = state["examples"], state["seconds"]


def _stack(values: list[Tensor]) -> Tensor:
    """Scalars as one tensor; those of before a stop may be on another device than those after it."""
    return torch.stack([value.to(values[-1].device) for value in values])
