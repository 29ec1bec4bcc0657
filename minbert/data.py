"""From the course's files to batches.

A file has named columns, separated by tabs (or commas; or it has a JSON object a line); which ones matter, the task's
row of the table says. A test file is the same thing without labels. Every text is tokenised once, when its file is
read. Then two ways to batch:

    Batches       for training: endless, every example once a pass, like lengths together, still random
    eval_batches  for evaluation: every example once, longest first, as many as fit a budget of tokens

Why like lengths? A batch is padded to its longest row, and the longest of 32 random sentences is about twice the
mean: half of the work would be done on pads.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from minbert.errors import UserError
from minbert.tasks import Task
from minbert.tokenizer import BertTokenizer, Row

POOL = 50  # batches that are sorted by length together
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}  # split → how the course's files call it


class Example(NamedTuple):
    """One row of a file: its id (None in CMU's files), its one or two texts, and its label (None in a test file)."""

    id: str | None
    texts: tuple[str, ...]
    label: float | None


# ---------------------------------------------------------------------------------------------- reading


def read_examples(path: str | Path, task: Task, limit: int | None = None) -> list[Example]:
    """Read a file of the course's (tab-separated, a header), of CMU's (`label ||| text`), or of JSON objects, one a
    line. A label may be its number or, where the task has words for them, its word.

    limit: keep so many examples, drawn evenly and always the same (the first would not do: SST's training file is
    ordered by sentiment), in the order of the file; a smaller draw is part of a larger one. Rows with an empty field,
    an odd id or one seen before are left out, and said so on stderr with their line numbers. Raises UserError, naming
    file and line, for everything else: a missing column, a label that is none, bytes that are not UTF-8, a NUL, a
    quote left open, a file without rows.
    """
    lines = _read_lines(Path(path))
    examples, skipped, undecided = [], [], 0
    seen = set()
    for number, example, problem in _rows(path, lines, task):
        if problem == UNDECIDED:
            undecided += 1
            continue
        if problem is None and example.id is not None:
            if example.id in seen:
                problem = f"id {example.id[:40]} again"
            seen.add(example.id)
        if problem:
            skipped.append(f"line {number} ({problem})")
            continue
        examples.append(example)
    if skipped:
        more = f" and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        rows = "row" if len(skipped) == 1 else "rows"
        print(f"{path}: left out {len(skipped)} broken {rows}: {', '.join(skipped[:10])}{more}", file=sys.stderr)
    if undecided:
        rows = "row" if undecided == 1 else "rows"
        print(f"{path}: left out {undecided:,} {rows} on whose label the annotators did not agree", file=sys.stderr)
    if not examples:
        raise UserError(f"{path}: no usable row; expected {_columns(task)}")
    if limit is not None and limit < len(examples):
        drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:limit]
        examples = [examples[i] for i in sorted(drawn.tolist())]
    return examples


def read_texts(path: str | Path, task: Task) -> list[str]:
    """Every text of a file, also of rows that `read_examples` leaves out for another field's sake."""
    rows = _rows(path, _read_lines(Path(path)), task)
    return [text for _, example, _ in rows if example for text in example.texts if text]


def _read_lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file (data/download.py fetches the course's; --data names their folder)"
        ) from error
    try:
        text = raw.decode("utf-8-sig")  # with or without the byte-order mark that Windows likes
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise UserError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}); save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: holds a NUL byte")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").split("\n")


def _columns(task: Task) -> str:
    return f"tab-separated columns {', '.join((*task.columns, task.label))} (no {task.label} in a test file)"


Rows = Iterator[tuple[int, Example | None, str | None]]  # line number, the example or None, what is wrong or None
UNDECIDED = "the annotators did not agree"


def _rows(path: str | Path, lines: list[str], task: Task) -> Rows:
    """The rows of a file in whichever of the three forms its first line shows."""
    first = next(line for line in lines if line.strip())
    if first.startswith("{"):
        return _json_rows(path, lines, task)
    if "|||" in first and "\t" not in first:
        return _cmu_rows(path, lines, task)
    return _table_rows(path, lines, task)


def _fields(path: str | Path, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file with separators as the `csv` module quotes them, each with the number of its first line.

    SNLI's and MultiNLI's own files, whose labels are called gold_label, know no quoting.
    """
    first = next(line for line in lines if line.strip())
    delimiter = "\t" if "\t" in first else ","
    quoting = csv.QUOTE_NONE if "gold_label" in first and delimiter == "\t" else csv.QUOTE_MINIMAL
    lines = (line + "\n" for line in lines)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=delimiter == ",")
    line = 1
    try:
        for row in reader:
            if any("\n" in field and delimiter in field for field in row):
                raise UserError(f'{path}, line {line}: a quote (") is opened and swallows the rows that follow')
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:  # a lone carriage return, or a field of over 128 KiB
        raise UserError(f'{path}, line {line}: {error}; a quote (") left open?') from error


def _table_rows(path: str | Path, lines: list[str], task: Task) -> Rows:
    rows = _fields(path, lines)
    first, header = next(rows)
    header = [task.aliases.get(column, column) for column in header]
    for column in (*task.columns, task.label):
        if header.count(column) > 1:
            raise UserError(f"{path}, line {first}: {header.count(column)} columns are the {column}")
    missing = [column for column in task.columns if column not in header]
    if missing:
        found = ", ".join(repr(column) for column in header if column) or "none"
        raise UserError(
            f"{path}, line {first}: no column {missing[0]!r}; found {found[:200]}; expected {_columns(task)}"
        )
    for line, row in rows:
        fields = len(row)
        row += [""] * (len(header) - fields)
        example, problem = _example(dict(zip(header, row, strict=False)), task, path, line)
        if fields > len(header) and not problem:
            problem = f"{fields} fields, the header has {len(header)}"
        yield line, example, problem


def _json_rows(path: str | Path, lines: list[str], task: Task) -> Rows:
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            row = {task.aliases.get(name, name): value for name, value in json.loads(text).items()}
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {line}: not a JSON object ({str(error)[:80]})") from error
        for name in task.columns:
            if name not in row:
                raise UserError(f"{path}, line {line}: no {name!r}; expected {', '.join((*task.columns, task.label))}")
            if not isinstance(row[name], str) or re.search(r"[\0\ud800-\udfff]", row[name]):
                raise UserError(f"{path}, line {line}: {name} is {str(row[name])[:40]!a}, not a text")
        label = row.get(task.label)
        if isinstance(label, bool) or not isinstance(label, str | int | float | None):
            raise UserError(f"{path}, line {line}: {task.label} is {str(label)[:40]!r}, neither a number nor a word")
        fields = {name: row[name] for name in task.columns} | ({} if label is None else {task.label: str(label)})
        yield line, *_example(fields, task, path, line)


def _example(row: dict[str, str], task: Task, path: str | Path, line: int) -> tuple[Example, str | None]:
    """What one row of named fields holds, and what is wrong with it or None; in the first case it has no label."""
    texts, label = tuple(row[column].strip() for column in task.texts), row.get(task.label)
    named = dict(zip(task.texts, texts, strict=True)) | ({} if label is None else {task.label: label.strip()})
    id = None
    if task.has_ids:  # it becomes a cell of the prediction file
        id = row["id"].strip().lower()
        named = {"id": id} | named
    empty = [name for name, value in named.items() if value == ""]
    if empty:
        return Example(id, texts, None), f"empty {', '.join(empty)}"
    if id and not re.fullmatch(r"[0-9a-z][\w.:-]*", id):
        return Example(id, texts, None), f"id {id[:40]!r} is not one word of letters and digits"
    if label is not None and label.strip() in task.undecided:
        return Example(id, texts, None), UNDECIDED
    return Example(id, texts, _label(label, task, path, line)), None


def _cmu_rows(path: str | Path, lines: list[str], task: Task) -> Rows:
    if task.is_pair:
        raise UserError(f"{path}, line 1: `label ||| text` holds no pairs; expected {_columns(task)}")
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        label, separator, sentence = text.partition("|||")
        if not separator or not sentence.strip():
            yield line, None, "not `label ||| text`"
            continue
        label = label.strip() if label.strip() not in ("", "-1") else None  # both mean: withheld
        yield line, Example(None, (sentence.strip(),), _label(label, task, path, line)), None


def _label(text: str | None, task: Task, path: str | Path, line: int) -> float | None:
    if text is None:
        return None
    text = text.strip()
    if text.lower() in task.words:
        return float(task.words.index(text.lower()))
    low, high = task.label_range
    try:
        label = float(text)
    except ValueError:
        label = float("nan")
    if not low <= label <= high or (task.whole and label != int(label)):
        kind = "a whole number" if task.whole else "a number"
        words = f", nor one of: {', '.join(task.words)}" if task.words else ""
        raise UserError(f"{path}, line {line}: {task.label} is {text[:40]!r}, not {kind} from {low} to {high}{words}")
    return label


# ---------------------------------------------------------------------------------------------- encoding


class Dataset:
    """A file, tokenised: for every example its rows of BERT's input.

    pairs: "separate" makes a row of each sentence, "joint" one row of both; single sentences are single rows.
    """

    def __init__(self, task: Task, examples: Sequence[Example], tokenizer: BertTokenizer, pairs: str = "separate"):
        self.task, self.examples, self.tokenizer = task, list(examples), tokenizer
        unique = list(dict.fromkeys(text for example in examples for text in example.texts))
        pieces = dict(zip(unique, tokenizer.encode(unique), strict=True))
        join = pairs == "joint" and task.is_pair
        self.rows: list[tuple[Row, ...]] = []
        for example in examples:
            texts = [pieces[text] for text in example.texts]
            self.rows.append((tokenizer.pair(*texts),) if join else tuple(map(tokenizer.single, texts)))
        self.lengths = [max(len(row.ids) for row in rows) for rows in self.rows]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> list[float | None]:
        return [example.label for example in self.examples]

    def batch(self, indices: Sequence[int]) -> "Batch":
        """The examples with these indices, padded to their longest row."""
        rows = [self.rows[i][part] for part in range(len(self.rows[indices[0]])) for i in indices]
        labels = [self.examples[i].label for i in indices]
        return Batch(
            task=self.task.name,
            indices=list(indices),
            **self.tokenizer.pad(rows),
            labels=None if None in labels else torch.tensor(labels, dtype=torch.float32),
        )


@dataclass
class Batch:
    """B examples as tensors. Two rows an example (separate pairs) stand as B first sentences, then B second ones."""

    task: str
    indices: list[int]  # of the examples in their data set
    input_ids: Tensor  # (R, T), R = B or 2B
    attention_mask: Tensor  # (R, T), 1 for a token, 0 for a pad
    token_type_ids: Tensor  # (R, T)
    labels: Tensor | None  # (B,) float, None in a test set

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; to a GPU from pinned memory, so that the copy need not be waited for."""
        if device.type == "cpu":
            return self
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in tensors.items()}
        return replace(self, **moved)


# ---------------------------------------------------------------------------------------------- batching


class Batches:
    """An endless stream of training batches: pass after pass over the data, every example once in each.

    The order of a pass depends on (seed, pass) alone, so the stream's whole state is two numbers.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int):
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.passes, self.position = 0, 0
        self._order = self.order(0)

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self._order)

    def order(self, passes: int) -> list[list[int]]:
        """The batches of one pass: shuffle; sort by length within pools of 50 batches; cut; shuffle the batches."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + passes)
        shuffled = torch.randperm(len(self.data), generator=random).tolist()
        size, batches = self.batch_size, []
        for start in range(0, len(shuffled), POOL * size):
            pool = sorted(shuffled[start : start + POOL * size], key=self.data.lengths.__getitem__)
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]

    def next(self) -> Batch:
        """The next batch; after the last of a pass comes the first of another."""
        if self.position == len(self._order):
            self.passes, self.position = self.passes + 1, 0
            self._order = self.order(self.passes)
        indices = self._order[self.position]
        self.position += 1
        return self.data.batch(indices)

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "position": self.position}

    def load_state_dict(self, state: dict[str, int]):
        self.passes, self.position = state["passes"], state["position"]
        self._order = self.order(self.passes)


def eval_batches(data: Dataset, tokens: int = 8192) -> Iterator[Batch]:
    """Every example once, longest first (so that what does not fit memory fails at once), ≤ `tokens` a batch."""
    order = sorted(range(len(data)), key=data.lengths.__getitem__, reverse=True)
    while order:
        width = data.lengths[order[0]] * len(data.rows[order[0]])
        size = max(1, tokens // width)
        yield data.batch(order[:size])
        order = order[size:]
