"""Reading the folder of a run. Anything absent, broken or of the wrong kind becomes a note, and never an exception.

run.json             the command, flags, seed, versions, sha256 of weights and data
metrics.jsonl        a line an epoch; epoch 0 is before training
outputs/*-dev.jsonl  what the kept model says of each example of a dev file
best/                read only for the definition of a task that is not in minBERT's table
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minbert.errors import UserError
from minbert.report.folders import BY_TASK, Answer, Run, as_object, by_task
from minbert.state import is_state, read_state
from minbert.tasks import TASKS, Task, task_row

MOST_NOTES = 3  # of the same kind about one file


def read_run(path: str | Path, with_answers: bool = True) -> Run:
    """Read the folder of a run. with_answers: the outputs for the dev files as well."""
    run = Run(Path(path))
    run.description = _read_description(run)
    run.lines = _read_log(run)
    names = [task for column in ("dev", "loss", "train") for line in run.lines for task in by_task(line, column)]
    files = sorted(run.path.glob("outputs/*-dev.jsonl")) if with_answers else []
    names += [file.name.removesuffix("-dev.jsonl") for file in files]
    known = TASKS
    if with_answers and not set(names) <= set(TASKS) and is_state(run.path / "best"):
        known = TASKS | _definitions(run)
    for name in dict.fromkeys(names):
        run.tasks[name] = known.get(name) or Task(name, ("text",), "label", label_range=(0, 1))
    for file in files:
        _read_answers(run, file, known)
    if with_answers:
        _note_what_is_missing(run)
    return run


def _note_what_is_missing(run: Run):
    if run.ended_early and run.epochs:
        done = run.epochs[-1]["epoch"]
        run.notes.append(f"The run ended early, or is not finished: {done} of {run.planned} epochs are in the log.")
    if not run.epochs:
        run.notes.append("No epoch of training is in the log.")
    if run.kept and not run.scores:
        run.notes.append("The log has no dev scores.")
    files = [f"outputs/{task}-dev.jsonl" for task in run.scores if task not in run.answers]
    if files:
        verb = "is" if len(files) == 1 else "are"
        run.notes.append(f"{', '.join(files)} {verb} not there, or cannot be used, so what follows from the answers to "
                         "single examples is not shown.")  # fmt: skip
    if run.scores and not by_task(run.before, "dev"):
        run.notes.append("The log has no scores from before training (epoch 0).")


def _text(run: Run, name: str) -> str:
    """A file of the folder as text; "" and a note where it is absent, empty or cannot be read."""
    try:
        if text := (run.path / name).read_bytes().decode("utf-8-sig", errors="replace"):
            return text
        run.notes.append(f"{name} is empty.")
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
    """(number, object) of each line of a JSON-lines file; one note for all lines that are not an object."""
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
    """The numbers of nested objects as floats. Other values are left out, and `dropped` gets their paths."""
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


def _definitions(run: Run) -> dict[str, Task]:
    """The tasks of a run as its best model defines them, since they are not all in minBERT's table."""
    try:
        tasks = [task_row(value) for value in read_state(run.path / "best")["build"]["tasks"]]
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        run.notes.append(f"best/ does not define the run's tasks in a way that can be read ({error}).")
        return {}
    return {task.name: task for task in tasks}


def _read_answers(run: Run, file: Path, tasks: Mapping[str, Task]):
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
        id = n - 1 if row.get("id") is None else row["id"]  # as in prediction files, which count from 0
        answers.append((n, Answer(str(id), tuple(map(str, texts)), label, prediction, outputs)))
    _note_lines(run, place, odd, "label, prediction and outputs must be finite numbers")
    if not answers:
        run.notes.append(f"{place} has no example that can be read.")
        return
    known = tasks.get(name)
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
    """A task without a usable definition, guessed from its answers."""
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
