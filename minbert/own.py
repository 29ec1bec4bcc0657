"""A data set of your own: flags name its columns, and its classes are the labels in the training file.

    python classifier.py --train news.csv --dev news-dev.csv --text headline --label topic
    python classifier.py --train ease.tsv --dev ease-dev.tsv --text sentence --label ease --regression

If no flag names columns, they are the course's, `sentence` and `sentiment`, or the file is in one of CMU's forms. The
labels 0 to 4 are then SST's sentiments, 0 and 1 are CFIMDB's, and others are classes of their own.
"""

from dataclasses import replace
from pathlib import Path

from minbert.errors import UserError
from minbert.examples import rows_of
from minbert.tables import read_table
from minbert.tasks import TASKS, Task

MOST = 50  # different labels; more are taken for a mistake


def own_task(path: Path, text: str | None = None, text2: str | None = None, label: str | None = None,
             regression: bool = False) -> Task:  # fmt: skip
    """The task of a training file. text, text2, label: names of columns; None for the course's.

    Raises UserError where a column is not there, where there are more than 50 classes or fewer than 2, and where a
    label of a regression is not a number.
    """
    texts = (text or "sentence", *([text2] if text2 else []))
    task = replace(TASKS["sst"], name="own", texts=texts, label=label or "sentiment", title=path.stem)
    if label:
        task = replace(task, aliases={}, header=label, form="csv", by_number=False)
    try:
        lines = _labels(path, task)
    except UserError as error:
        hint = "" if label or "no column" not in str(error) else "; --text and --label name the columns of other files"
        raise UserError(f"{error}{hint}") from error
    if regression:
        low, high = _scale(path, task.label, lines)
        return replace(task, kind="number", words=(), label_range=(low, high), by_number=True, bounded=False)
    if not label and set(lines) in ({"0", "1", "2", "3", "4"}, {"0", "1"}):
        return TASKS["cfimdb" if len(lines) == 2 else "sst"]
    if len(lines) > MOST:
        raise UserError(
            f"{path}: the column {task.label!r} has {len(lines):,} different labels, more than {MOST}; if they are "
            "numbers on a scale add --regression, else name another column with --label"
        )
    if len(lines) < 2:
        raise UserError(f"{path}: the column {task.label!r} has {len(lines)} different labels; classes are two or more")
    return replace(task, words=_in_order(lines), label_range=(0, len(lines) - 1), by_number=False)


def _labels(path: Path, task: Task) -> dict[str, int]:
    """Every label of a file → the first line with it."""
    lines: dict[str, int] = {}
    table = read_table(path)
    for line, values, problem in rows_of(table, task, "train"):
        if problem:  # the row will be left out
            continue
        if task.label not in values:
            missing = "no label in this row" if table.form == "bars" else f"no column {task.label!r}"
            raise UserError(f"{path}, line {line}: {missing}")
        if values[task.label] and all(values.get(name) for name in task.texts):
            lines.setdefault(values[task.label], line)
    return lines


def _scale(path: Path, label: str, lines: dict[str, int]) -> tuple[float, float]:
    """The smallest and the largest label; UserError for a word."""
    numbers = []
    for value, line in lines.items():
        try:
            numbers.append(float(value))
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {label} is {value[:40]!r}, not a number (--regression)") from error
    if not (numbers and 0 < max(numbers) - min(numbers) < float("inf")):
        raise UserError(f"{path}: the column {label!r} has no two different finite numbers (--regression)")
    return min(numbers), max(numbers)


def _in_order(labels: dict[str, int]) -> tuple[str, ...]:
    """Class labels in the order of their numbers if all are numbers, else of the alphabet."""
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(sorted(labels))
