"""Reading the folders of runs. Whatever is absent, broken or of the wrong kind becomes a note, and never an exception.

run.json             the command, flags, seed, versions, sha256 of weights and data
metrics.jsonl        a line an epoch; epoch 0 is before training
outputs/*-dev.jsonl  what the kept model says of each example of a dev file
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minbert.errors import UserError
from minbert.evaluation import overall
from minbert.tasks import TASKS, Task, task_row

BY_TASK = ("loss", "dev", "train", "batches", "examples", "cosines")  # of a line: name → number
SCALARS = ("overall", "lr", "seconds", "examples_per_second", "peak_memory_gib")
MOST_NOTES = 3  # of the same kind about one file


@dataclass(frozen=True)
class Answer:
    """What the kept model says of one dev example. outputs: the raw ones, (outputs,)."""

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

    def overall(self, line: Mapping[str, Any]) -> float | None:
        """A line's overall dev score: as logged, else the mean over its tasks; None where there is none."""
        dev, value = by_task(line, "dev"), line.get("overall")
        if not isinstance(value, float):
            value = overall(dev, self.tasks) if dev else math.nan
        return value if math.isfinite(value) else None

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
    """The run folder itself, or those in it, or those one folder below. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path}: no such folder; name the folder of a run, or one that holds such folders")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; name the folder of a run, or one that holds such folders")
    if is_run(path):
        return [path]
    try:
        below = [run for child in sorted(path.iterdir()) if child.is_dir() for run in runs_inside(child)]
    except OSError as error:
        raise UserError(f"{path}: cannot be listed ({error.strerror})") from error
    if not (result := runs_inside(path) or below):
        raise UserError(f"{path}: not the folder of a run (it has neither run.json nor metrics.jsonl), and no run is "
                        "inside it; a training script makes one, --out names it")  # fmt: skip
    return result


# ------------------------------------------------------------------------------------------------ reading


def read_run(path: str | Path, with_answers: bool = True) -> Run:
    """Read the folder of a run. with_answers: the outputs for the dev files as well."""
    run = Run(Path(path))
    run.description = _read_description(run)
    run.lines = _read_log(run)
    names = [task for column in ("dev", "loss", "train") for line in run.lines for task in by_task(line, column)]
    files = sorted(run.path.glob("outputs/*-dev.jsonl")) if with_answers else []
    names += [file.name.removesuffix("-dev.jsonl") for file in files]
    for name in dict.fromkeys(names):
        run.tasks[name] = _definition(run, name) or Task(name, ("text",), "label", label_range=(0, 1))
    for file in files:
        _read_answers(run, file)
    if with_answers:
        _note_what_is_missing(run)
    return run


def _note_what_is_missing(run: Run):
    if run.ended_early:
        done = run.epochs[-1]["epoch"] if run.epochs else 0
        run.notes.append(f"The run ended early, or is not finished: {done} of {run.planned} epochs are in the log.")
    elif not run.epochs:
        run.notes.append("No epoch of training is in the log.")
    if run.kept and not run.scores:
        run.notes.append("The log has no dev scores.")
    for task in run.scores:
        if task not in run.answers:
            run.notes.append(f"outputs/{task}-dev.jsonl is not there, so what follows from the answers to single "
                             "examples is not shown.")  # fmt: skip
    if run.scores and not by_task(run.before, "dev"):
        run.notes.append("The log has no scores from before training (epoch 0).")


def _text(run: Run, name: str) -> str:
    """A file of the folder as text; "" and a note where it is absent or cannot be read."""
    try:
        return (run.path / name).read_bytes().decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        run.notes.append(f"{name} is not there.")
    except OSError as error:
        run.notes.append(f"{name} cannot be read ({error.strerror}).")
    return ""


def _read_description(run: Run) -> dict[str, Any]:
    if not (text := _text(run, "run.json")):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        run.notes.append("run.json is not JSON, so the command, the flags and the versions are not known.")
        return {}
    if not isinstance(value, dict):
        run.notes.append("run.json is not a JSON object, so the command, the flags and the versions are not known.")
    return as_object(value)


def _objects(run: Run, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line of a JSON-lines file; one note for the lines that are none."""
    broken = []
    for number, text in enumerate(_text(run, name).split("\n"), 1):
        try:
            value = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError):
            value = text
        if isinstance(value, dict):
            yield number, value
        elif text.strip():
            broken.append(number)
    _note_lines(run, name, broken, "not a JSON object")


def _note_lines(run: Run, name: str, lines: list[int], problem: str):
    if lines:
        shown = ", ".join(map(str, lines[:MOST_NOTES])) + (", …" if len(lines) > MOST_NOTES else "")
        words = f"line {shown} is" if len(lines) == 1 else f"{len(lines):,} lines ({shown}) are"
        run.notes.append(f"{name}: {words} left out ({problem}).")


def number(value: Any) -> float | None:
    """A JSON number as a float, which may be NaN or infinite; None for anything else."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def _numbers(values: Mapping[str, Any], place: str, dropped: list[str], depth: int = 0) -> dict[str, Any]:
    """The numbers of nested objects as floats. What is no number goes; `dropped` gets its path."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and depth < 2:
            result[key] = _numbers(value, f"{place}{key}.", dropped, depth + 1)
        elif (x := number(value)) is not None and (depth or key not in BY_TASK):
            result[key] = x
        elif value is not None and key != "best":
            dropped.append(f"{place}{key}")
    return result


def _read_log(run: Run) -> list[dict[str, Any]]:
    lines: dict[int, dict[str, Any]] = {}
    nameless, twice, dropped = [], [], []
    for n, value in _objects(run, "metrics.jsonl"):
        line = _numbers(value, f"line {n}: ", dropped)
        epoch = line.get("epoch", -1.0)
        if not (isinstance(epoch, float) and epoch >= 0 and epoch == int(min(epoch, 1e9))):
            nameless.append(n)
            continue
        if epoch in lines:
            twice.append(int(epoch))
        lines[int(epoch)] = line | {"epoch": int(epoch), "best": value.get("best")}
    _note_lines(run, "metrics.jsonl", nameless, "its epoch is not a whole number")
    if twice:
        run.notes.append(f"metrics.jsonl: epoch {', '.join(map(str, twice))} is there twice; the last line counts.")
    if dropped:
        run.notes.append(f"metrics.jsonl, {'; '.join(dropped[:MOST_NOTES])}: not a number, left out.")
    return [lines[epoch] for epoch in sorted(lines)]


def _definition(run: Run, name: str) -> Task | None:
    """The task as run.json's plan defines it, else the row of the table with this name."""
    plan = run.part("plan")
    tasks = plan.get("tasks")
    if isinstance(tasks, list):
        tasks = {task.get("name"): task for task in tasks if isinstance(task, dict)}
    value = as_object(tasks).get(name) or plan.get(name)
    if isinstance(value, dict):
        try:
            return task_row(value)
        except (TypeError, ValueError, AttributeError) as error:
            run.notes.append(f"run.json does not define the task {name} in a way that can be read ({error}).")
    return TASKS.get(name)


def _read_answers(run: Run, file: Path):
    name, place = file.name.removesuffix("-dev.jsonl"), f"outputs/{file.name}"
    answers, odd = [], []
    for n, row in _objects(run, place):
        label, prediction = number(row.get("label")), number(row.get("prediction"))
        raw = row.get("outputs")
        outputs = tuple(number(x) for x in raw) if isinstance(raw, list) else ()
        finite = [x for x in (label, prediction, *outputs) if x is not None and math.isfinite(x)]
        if len(finite) != 2 + len(outputs) or not outputs:
            odd.append(n)
            continue
        texts = row.get("texts") if isinstance(row.get("texts"), list) else [row.get("texts", "")]
        answers.append((n, Answer(str(row.get("id", n)), tuple(map(str, texts)), label, prediction, outputs)))
    _note_lines(run, place, odd, "label, prediction and outputs must be finite numbers")
    if not answers:
        run.notes.append(f"{place} has no example that can be read.")
        return
    known = _definition(run, name)
    task = known if known and known.outputs == len(answers[0][1].outputs) else None
    if known and not task:
        run.notes.append(f"{place} has {len(answers[0][1].outputs)} outputs an example where the task {name} has "
                         f"{known.outputs}; the classes are shown by their numbers.")  # fmt: skip
    task = task or _guess(name, [answer for _, answer in answers])
    fit = [(n, answer) for n, answer in answers if _fits(task, answer)]
    _note_lines(run, place, sorted({n for n, _ in answers} - {n for n, _ in fit}),
                f"not an answer of the task {name}, which has the labels {task.label_range[0]:g} to "
                f"{task.label_range[1]:g} and {task.outputs} outputs")  # fmt: skip
    if fit:
        run.tasks[name], run.answers[name] = task, [answer for _, answer in fit]
    _check_score(run, name)


def _guess(name: str, answers: list[Answer]) -> Task:
    """A task whose definition is nowhere, from what the answers look like."""
    texts, outputs = ("text",) * min(2, max(1, len(answers[0].texts))), len(answers[0].outputs)
    labels = [answer.label for answer in answers]
    if outputs > 1:
        return Task(name, texts, "label", label_range=(0, outputs - 1))
    if {*labels, *(answer.prediction for answer in answers)} <= {0.0, 1.0}:
        return Task(name, texts, "label", "yes_no", (0, 1))
    return Task(name, texts, "label", "number", (min(labels), max(max(labels), min(labels) + 1)), bounded=False)


def _fits(task: Task, answer: Answer) -> bool:
    if len(answer.outputs) != task.outputs:
        return False
    low, high = task.label_range
    return task.kind == "number" or all(x == int(x) and low <= x <= high for x in (answer.label, answer.prediction))


def _check_score(run: Run, name: str):
    """Note where the answers are not those of the model whose score the log has."""
    answers, logged = run.answers.get(name, []), run.scores.get(name)
    if not answers or logged is None:
        return
    predictions, labels = (np.array(x) for x in zip(*((a.prediction, a.label) for a in answers), strict=True))
    score = run.tasks[name].score(predictions, labels)
    if abs(score - logged) > max(0.005, 1.5 / len(answers)):
        run.notes.append(
            f"outputs/{name}-dev.jsonl gives {name} a score of {score:.3f}, the log has {logged:.3f} for epoch "
            f"{run.kept['epoch']}: they are not of the same model, or not of the same examples."
        )
