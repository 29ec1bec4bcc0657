"""An epoch in numbers: losses, what the terms log, cosines of gradients, time; and the line that a run prints."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from minbert.description import peak_memory
from minbert.evaluation import overall
from minbert.multitask import MultitaskBert
from minbert.run import Run


class EpochLog:
    """What happened in an epoch: each task's losses, what the terms log, how many examples were seen, the time.

    Numbers have a name, "loss" or "smart.before", and a task.
    """

    def __init__(self):
        self.begin()

    def begin(self):
        """Forget everything, and start the clock."""
        self.values: dict[str, dict[str, list[Tensor]]] = {}  # name → task → a number a batch
        self.examples, self.before, self.start, self.end = 0, 0.0, time.perf_counter(), 0.0

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
        """A term's log, task → name → number: the mean over the batches, or the largest for names in `largest`."""
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
        seconds = self.end = self.seconds  # an evaluation that follows does not count
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
        return {"values": values, "examples": self.examples, "seconds": self.end or self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]):
        self.begin()
        self.values = {name: {t: list(x) for t, x in tasks.items()} for name, tasks in state["values"].items()}
        self.examples, self.before = state["examples"], state["seconds"]


def report(run: Run, model: MultitaskBert, epoch: int, epochs: int, scores: dict, numbers: dict, terms: dict):
    """Print a line for the epoch and one for each term, and end it; epoch 0 is before training."""
    mean = overall(scores["dev"], model.tasks)
    columns = {"loss": numbers["loss"], **scores} if epoch else scores
    text = [f"epoch {epoch}/{epochs}" if epoch else "before training"]
    text += [f"{name} " + "  ".join(f"{t} {x:.3f}" for t, x in values.items()) for name, values in columns.items()]
    text.append(f"overall {mean:.3f}")
    line = {"epoch": epoch, **scores, "overall": mean, **numbers, "peak_memory_gib": peak_memory()}
    if not epoch:
        print(" | ".join(text), flush=True)
        run.log(line)
        return
    text.append(f"{numbers['seconds']:.0f} s, {numbers['examples_per_second']:.1f} examples/s, {peak_memory():.1f} GiB")
    print(" | ".join(text), flush=True)
    for name in (name for name in terms if name in numbers):
        print(f"  {terms[name].describe(numbers[name])}", flush=True)
    run.end_epoch(line | {"best": run.best["epoch"] == epoch})


def _stack(values: list[Tensor]) -> Tensor:
    """Scalars as one tensor; after --resume, earlier ones may be on another device than later ones."""
    return torch.stack([value.to(values[-1].device) for value in values])
