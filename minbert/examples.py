"""From files to examples: the columns of a file that a task reads, and what happens to rows with mistakes.

`tables.py` finds the rows, whatever the form of the file; the task names the columns. Rows that are left out, and odd
ids that are written, are listed on stderr. The consequence of a mistake depends on the use of the file:

             an empty text, no label     an id that is empty, odd or repeated        a label that is not valid
    train    the row is left out         does not matter                             stops the run
    dev      the row is left out         is written into the prediction file         stops the run
    test     the row is predicted        is written into the prediction file         does not matter
"""

import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minbert.errors import UserError
from minbert.tables import Record, Table, read_table, swallowed
from minbert.tasks import Task

SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}  # split → its name in the course's files
FORMULA = tuple("=+-@")  # a spreadsheet runs a cell that begins so; `write_predictions` puts a ' before it
UNWRITABLE = re.compile(r"[,\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # they break a prediction file's lines


class Example(NamedTuple):
    """One row of a file: its id (None where there is none), its one or two texts, its label (None in a test file)."""

    id: str | None
    texts: tuple[str, ...]
    label: float | None


class Examples(list[Example]):
    """The examples of a file. form: how predictions about them are written, a key of `evaluation.FORMS`."""

    def __init__(self, examples: Iterable[Example] = (), form: str | None = None):
        super().__init__(examples)
        self.form = form


def read_examples(path: str | Path, task: Task, limit: int | None = None, split: str = "train") -> Examples:
    """Read a file in any of the forms of `tables.py`. A label is a number or, where the task has words, its word.

    limit: keep so many examples, a fixed random draw (not the first ones, since SST's training file is ordered by
    sentiment), in the order of the file; a smaller draw is part of a larger one.

    split: the use of the file, see above. If predictions are going to be written ("dev", "test") and the file has no
    ids, or is of the form `ID,data,label`, the ids are the numbers of the rows, from 0.

    Rows that are left out, and ids that are odd, are listed on stderr with their line numbers. Raises UserError, with
    file and line, for all other mistakes: a missing column, a label that is not valid, an id that would break the
    prediction file, a row of a test file with too few or too many fields, a file without rows.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, not one of {', '.join(SPLITS)}")
    table, test = read_table(path), split == "test"
    examples, lines, numbers = Examples(form=_prediction_form(table, task)), array("q"), array("q")
    broken, empty, undecided, labelled, renumbered = [], [], 0, False, False
    for number, (line, values, problem) in enumerate(rows_of(table, task, split)):
        label = values.get(task.label)
        missing = [name for name in task.texts if not values.get(name)]
        if test:
            if problem:
                raise UserError(
                    f"{path}, line {line}: {problem}; repair the row: every row of a test file is predicted"
                )
            if missing:
                empty.append(f"line {line} (empty {', '.join(missing)})")
            labelled, label = labelled or bool(label), None
        else:
            missing += [task.label] * (label == "")
            if problem or missing:
                broken.append(f"line {line} ({problem or 'empty ' + ', '.join(missing)})")
                continue
            if label in task.undecided:
                undecided += 1
                continue
        id = values.get("id")
        if id is not None and task.form == "stanford":  # as the course's own scripts write it
            id = id.lower()
        if examples.form == "cmu2023":
            renumbered, id = renumbered or id not in (None, str(number)), str(number)
        texts = tuple(values[name] for name in task.texts)
        examples.append(Example(id, texts, read_label(label, task, path, line)))
        lines.append(line)
        numbers.append(number)
    _say(path, "left out {} broken row{s}", broken)
    _say(path, "predicts {} row{s} with an empty field", empty)
    if undecided:
        rows = "row" if undecided == 1 else "rows"
        print(f"{path}: left out {undecided:,} {rows} on whose label the annotators did not agree", file=sys.stderr)
    if labelled:
        print(f"{path}: the {task.label} of a test file is not used", file=sys.stderr)
    if not examples:
        raise UserError(f"{path}: no usable row; expected {_expected(task)}")
    if split != "train" and renumbered:
        print(
            f"{path}: its IDs are not the numbers of its rows from 0, which the prediction file has",
            file=sys.stderr,
        )
    if split != "train" and task.has_ids and examples.form in ("stanford", "csv"):
        _settle_ids(path, examples, lines, numbers)
    if limit is not None and limit < len(examples):
        drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:limit]
        examples = Examples((examples[i] for i in sorted(drawn.tolist())), examples.form)
    return examples


def read_split(path: Path, task: Task, split: str, limit: int | None = None) -> Examples:
    """The examples of a file; UserError if one of train or dev has no label. limit: of train and dev files alone."""
    examples = read_examples(path, task, None if split == "test" else limit, split)
    if split != "test" and None in [example.label for example in examples]:
        raise UserError(f"{path}: not every row has a {task.label}, but a {split} file needs labels")
    return examples


def read_texts(path: str | Path, task: Task) -> list[str]:
    """Every text of a file, also of rows that `read_examples` leaves out because of another field."""
    rows = rows_of(read_table(path), task, "test")
    return [values[name] for _, values, _ in rows for name in task.texts if values.get(name)]


def _say(path: str | Path, what: str, places: list[str]):
    """Print one line about rows, with the places of the first ten; nothing where there are none."""
    if places:
        more = f" and {len(places) - 10} more" if len(places) > 10 else ""
        what = what.format(len(places), s="" if len(places) == 1 else "s")
        print(f"{path}: {what}: {', '.join(places[:10])}{more}", file=sys.stderr)


def _expected(task: Task) -> str:
    names = ", ".join((*task.columns, task.label))
    return f"tab-separated columns {names} (no {task.label} in a test file), or commas instead of tabs, or JSON objects"


def _prediction_form(table: Table, task: Task) -> str:
    names = {name.lower() for name in table.header if name}
    if table.form == "bars":
        return "cmu2022"
    return "cmu2023" if {"id", "data"} <= names <= {"id", "data", "label"} else task.form


def rows_of(table: Table, task: Task, split: str) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """Each row's line number, its values under the task's names, and the mistake in its fields, or None.

    Values are texts without spaces around them. A value without a column in the file is absent; one that a short row
    lacks is empty.
    """
    if table.form == "bars":
        if task.is_pair:
            raise UserError(f"{table.path}, line 1: `label ||| text` holds no pairs; expected {_expected(task)}")
        columns = {task.texts[0]: "text", task.label: "label"}
    elif table.form == "columns":
        columns = _find_columns(table.path, table.line, table.header, task, split)
    known: dict[tuple[str, ...], dict[str, str]] = {}  # names in a JSON object → the columns among them
    for record in table.records:
        if table.form == "json":
            names = tuple(record.values)
            if names not in known:
                known[names] = _find_columns(table.path, record.line, names, task, split)
            columns = known[names]
            _check_json(table.path, record, columns, task)
        if record.ends and _are_rows(record.ends, columns, task):
            raise UserError(swallowed(table.path, record.line))
        values = {name: _text(record.values.get(column)) for name, column in columns.items()}
        problem = None
        needed = [column for name, column in columns.items() if name != task.label] if split == "test" else []
        too_short = any(column not in record.values for column in needed)
        if table.form == "bars":
            if record.fields < 2:
                problem = "not `label ||| text`"
            elif values[task.label] in ("", "-1") and split != "test":  # CMU's withheld label
                del values[task.label]
        elif too_short or (table.form == "columns" and record.fields > len(table.header)):
            fields = "1 field" if record.fields == 1 else f"{record.fields} fields"
            problem = f"{fields}, the header has {len(table.header)}"
        yield record.line, values, problem


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _find_columns(path: Path, line: int, names: Sequence[str], task: Task, split: str) -> dict[str, str]:
    """The task's columns → the file's, in any case. UserError if a text column is missing or one is there twice."""
    columns = {}
    for wanted in (*task.columns, task.label):
        for name in (wanted, *(other for other, ours in task.aliases.items() if ours == wanted)):
            matches = [n for n in names if n == name] or [n for n in names if n.casefold() == name.casefold()]
            if len(matches) > 1 and (wanted != "id" or split != "train"):
                raise UserError(f"{path}, line {line}: {len(matches)} columns are the {wanted}")
            if matches:
                columns[wanted] = matches[0]
                break
    missing = [name for name in task.texts if name not in columns]
    if missing:
        listing = ", ".join(repr(name) for name in names if name) or "none"
        raise UserError(
            f"{path}, line {line}: no column {missing[0]!r}; found {listing[:200]}; expected {_expected(task)}"
        )
    return columns


def _check_json(path: Path, record: Record, columns: dict[str, str], task: Task):
    """UserError unless texts are strings or null, and the label is a number, a string or null."""
    for name in task.texts:
        value = record.values[columns[name]]
        if not isinstance(value, str | None) or re.search(r"[\0\ud800-\udfff]", value or ""):
            raise UserError(f"{path}, line {record.line}: {name} is {str(value)[:40]!a}, not a text")
    label = record.values.get(columns.get(task.label))
    if isinstance(label, bool) or not isinstance(label, str | int | float | None):
        raise UserError(f"{path}, line {record.line}: {task.label} is {str(label)[:40]!r}, neither a number nor a word")


def _are_rows(ends: Sequence[dict[str, str]], columns: dict[str, str], task: Task) -> bool:
    """Whether the first and the last line of a row of several lines are rows by themselves.

    `tables.py` has checked that both have as many fields as the header. Here both need a valid label, or both none.
    """
    labels = [row[columns[task.label]].strip() for row in ends if task.label in columns]
    return all(label in ("", "-1") for label in labels) or all(_is_label(label, task) for label in labels)


def _is_label(text: str, task: Task) -> bool:
    try:
        return text in task.undecided or read_label(text, task) is not None
    except UserError:
        return False


def _word(text: str, task: Task) -> str | None:
    """The task's word that equals a label, exactly, in lower case or as a number; None if there is none."""
    for form in (text, text.lower()):
        if form in task.words:
            return form
    if not task.by_number:
        try:
            return next((word for word in task.words if float(word) == float(text)), None)
        except ValueError:
            pass
    return None


def read_label(text: str | None, task: Task, path: str | Path = "a label", line: int = 0) -> float | None:
    """A label's text as a number; None for None. Raises UserError for a label that the task does not have."""
    if text is None:
        return None
    place = f"{path}, line {line}" if line else str(path)
    word = _word(text, task)
    if word is not None:
        return float(task.words.index(word))
    if not task.by_number:
        raise UserError(
            f"{place}: {task.label} is {text[:40]!r}, which no row of the training file has; those are "
            f"{', '.join(task.words)}"
        )
    low, high = task.label_range
    try:
        label = float(text)
    except ValueError:
        label = float("nan")
    if not task.bounded and abs(label) < float("inf"):
        return label
    if not low <= label <= high or (task.whole and label != int(label)):
        kind = "a whole number" if task.whole else "a number"
        words = f", nor one of: {', '.join(task.words)}" if task.words else ""
        raise UserError(f"{place}: {task.label} is {text[:40]!r}, not {kind} from {low} to {high}{words}")
    return label


def _settle_ids(path: str | Path, examples: Examples, lines: Sequence[int], numbers: Sequence[int]):
    """Number the rows if none has an id; list the odd ids. UserError for an id that would break a prediction file."""
    ids = [example.id or "" for example in examples]
    if not any(ids):
        print(f"{path}: has no ids; the prediction file will hold the numbers of the rows, from 0", file=sys.stderr)
        ids = [str(number) for number in numbers]
        examples[:] = [example._replace(id=id) for example, id in zip(examples, ids, strict=True)]
    empty, repeated, formulas, seen = [], [], [], set()
    for id, line in zip(ids, lines, strict=True):
        if UNWRITABLE.search(id):
            raise UserError(
                f"{path}, line {line}: the id {id[:40]!a} holds a comma, a line break or another control character, "
                "which would break the prediction file; rename it"
            )
        if not id:
            empty.append(f"line {line}")
        elif id in seen:
            repeated.append(f"line {line} ({id[:40]!a})")
        elif id.startswith(FORMULA):
            formulas.append(f"line {line} ({id[:40]!a})")
        seen.add(id)
    _say(path, "{} row{s} without an id", empty)
    _say(path, "{} row{s} with a repeated id", repeated)
    _say(path, "{} row{s} with an id that a spreadsheet would run, written with an apostrophe", formulas)
