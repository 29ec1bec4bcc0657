"""A `Run` as the page needs it, which `read.py` reads from a folder; and how the folders of runs are found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from minbert.errors import UserError
from minbert.evaluation import overall
from minbert.flags import flags_of
from minbert.recipe import letter_of
from minbert.tasks import Task

BY_TASK = ("loss", "dev", "train", "batches", "examples", "cosines")  # of a line: task → number; cosines by pair
SCALARS = ("overall", "lr", "seconds", "examples_per_second", "peak_memory_gib")


@dataclass(frozen=True)
class Answer:
    """The kept model's answer to one dev example. outputs: the head's K raw outputs."""

    id: str
    texts: tuple[str, ...]
    label: float
    prediction: float
    outputs: tuple[float, ...]


@dataclass
class Run:
    """One run. description: run.json. lines: of metrics.jsonl, in the order of the epochs. notes: what was odd."""

    path: Path
    description: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    name: str = ""  # on the page

    def __post_init__(self):
        self.name = self.name or self.path.resolve().name

    def part(self, name: str) -> dict[str, Any]:
        """An object of run.json; {} where it is absent or no object."""
        return as_object(self.description.get(name))

    def flag(self, key: str) -> str:
        """A flag as one writes it, by its name in run.json: "--fine-tune-mode" for "mode"."""
        script = letter_of(self.description.get("script"))
        row = flags_of(script).get(key) if script else None
        return row.name if row else f"--{key}"

    @property
    def seed(self) -> Any:
        return self.description.get("seed", self.part("flags").get("seed"))

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines of the epochs of training."""
        return [line for line in self.lines if line["epoch"] > 0]

    @cached_property
    def before(self) -> dict[str, Any]:
        """The line of epoch 0, before training, or {}."""
        return next((line for line in self.lines if line["epoch"] == 0), {})

    @cached_property
    def kept(self) -> dict[str, Any]:
        """The line of the epoch whose model was kept: the last that says so, else the best; {} if there is none."""
        marked = [line for line in self.epochs if line.get("best") is True]
        scored = [line for line in self.epochs if self.overall(line) is not None]
        return marked[-1] if marked else max(scored, key=self.overall, default={})

    @property
    def scores(self) -> dict[str, float]:
        """The dev scores of the kept epoch, by task."""
        return by_task(self.kept, "dev")

    @property
    def trained(self) -> list[str]:
        """The tasks that have a loss in the log; others are only scored."""
        return [task for task in self.tasks if any(task in by_task(line, "loss") for line in self.epochs)]

    def overall(self, line: Mapping[str, Any]) -> float | None:
        """A line's overall dev score: as logged, else the mean over its tasks; None where there is none."""
        dev, value = by_task(line, "dev"), line.get("overall")
        if not isinstance(value, float):
            value = overall(dev, self.tasks) if dev else math.nan
        return value if math.isfinite(value) else None

    def title(self, task: str) -> str:
        return self.tasks[task].title if task in self.tasks else task

    @property
    def took(self) -> float | None:
        """Seconds from the start of the run to its end, evaluations and pauses included."""
        try:
            start, end = (datetime.fromisoformat(self.description[name]) for name in ("started", "finished"))
            return (end - start).total_seconds()
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def planned(self) -> int | None:
        """The number of epochs that were asked for."""
        value = self.part("flags").get("epochs")
        return value if isinstance(value, int) else None

    @property
    def ended_early(self) -> bool:
        done = self.epochs[-1]["epoch"] if self.epochs else 0
        return bool(self.planned and done < self.planned)


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def by_task(line: Mapping[str, Any], name: str) -> dict[str, float]:
    """The numbers of a line under a name, by task: by_task(line, "dev") is {"sst": .5}; {} where there are none."""
    return {task: x for task, x in as_object(line.get(name)).items() if isinstance(x, float)}


def terms(line: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """What the terms of the loss logged in an epoch: term → task → name → number."""
    others = {name: value for name, value in line.items() if name not in BY_TASK and isinstance(value, dict)}
    return {name: {t: x for t, x in value.items() if isinstance(x, dict)} for name, value in others.items()}


def flatten(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of a line of the log by a path: {"dev/sst": .51, "smart/sst/before": 1e-7, "seconds": 12.0}."""
    result: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            result |= flatten(value, f"{prefix}{name}/")
        elif isinstance(value, float):
            result[prefix + name] = value
    return result


# ------------------------------------------------------------------------------------------------ finding


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or (path / "metrics.jsonl").is_file()


def runs_inside(path: Path) -> list[Path]:
    """The run folders directly in a folder, by name; [] where it cannot be listed."""
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and is_run(child))
    except OSError:
        return []


def find_runs(path: Path) -> list[Path]:
    """The folder itself if it is a run's, else the runs in it and one level deeper. UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path}: no such folder; name the folder of a run, or one that holds such folders")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; name the folder of a run, or one that holds such folders")
    if is_run(path):
        return [path]
    try:
        children = sorted(child for child in path.iterdir() if child.is_dir())
    except OSError as error:
        raise UserError(f"{path}: cannot be listed ({error.strerror})") from error
    if not (result := [run for child in children for run in ([child] if is_run(child) else runs_inside(child))]):
        raise UserError(f"{path}: not the folder of a run (it has neither run.json nor metrics.jsonl), and no run is "
                        "inside it; a training script makes one, --out names it")  # fmt: skip
    return result
