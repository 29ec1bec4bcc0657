"""Five examples whose answers are known: as files, as batches, and a fake model that gives them.

The answers follow from the word that a text starts with, `w10` to `w19`. In training mode the model gives others, as
dropout would.
"""

import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minbert.sanity.core import CannotCheck
from minbert.sanity.evidence import NoAttribute
from minbert.sanity.models import METHODS
from minbert.sanity.source import is_magic
from minbert.sanity.starter import Batch, Words, batch_of

TASKS = ("sst", "para", "sts")
ROWS = 5
LENGTHS = (2, 4, 1, 5, 3)  # words of a text
LABELS = {"sst": (0, 2, 4, 2, 3), "para": (1, 0, 1, 0, 0), "sts": (3.0, 0.5, 5.0, 2.6, 1.4)}
LOGITS = (0.49, -0.4, 2.0, -3.0, 0.51)  # of paraphrase, two of them close to ½, where a logit is no probability
NUMBERS = (3.2, 0.4, 4.9, 2.3, 1.1)  # of similarity


def ids_of(task: str, split: str) -> list[str]:
    """101, 102, … for sentiment's dev set, 151, … for its test set, 201, … for paraphrase, 301, … for similarity."""
    return [str(100 * (1 + TASKS.index(task)) + 50 * (split == "test") + i + 1) for i in range(ROWS)]


def text(i: int, split: str) -> str:
    return " ".join([f"w{10 + i + ROWS * (split == 'test')}", *["x"] * (LENGTHS[i] - 1)])


def outputs_of(task: str, words: Tensor, training: bool) -> Tensor:
    """The fake model's outputs, (B, ·), for texts that start with these words, (B,)."""
    i = (words - 10) % ROWS
    if task == "sst":
        return torch.eye(5)[(2 * i + training) % 5]
    table = torch.tensor(LOGITS if task == "para" else NUMBERS)[i]
    return ((-table if task == "para" else 5 - table) if training else table)[:, None]


CLASSES = [float(outputs_of("sst", torch.tensor([10 + i]), False).argmax()) for i in range(ROWS)]  # right predictions
SCORES = {
    "sst": np.mean(np.array(CLASSES) == np.array(LABELS["sst"])),
    "sts": np.corrcoef(NUMBERS, LABELS["sts"])[0, 1],
}


def as_they_are(x: Any) -> Any:
    return x


Rows = list[tuple[str, float]]  # (id, prediction)


def write_data(folder: Path, task: str, split: str) -> Path:
    """A small file in the course's form."""
    columns = {"sst": ("sentence", "sentiment"), "para": ("sentence1", "sentence2", "is_duplicate"),
               "sts": ("sentence1", "sentence2", "similarity")}[task]  # fmt: skip
    lines = ["\t".join(["id", *(columns[:-1] if split == "test" else columns)])]
    for i, id in enumerate(ids_of(task, split)):
        texts = [text(i, split)] * (len(columns) - 1)
        lines.append("\t".join([id, *texts, *([] if split == "test" else [str(LABELS[task][i])])]))
    path = folder / f"{task}-{split}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_predictions(path: Path) -> Rows:
    """The rows `id , prediction` of a prediction file, after its header."""
    if not path.exists():
        raise CannotCheck(f"no {path.name} was written")
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    return [(row[0].strip(), float(re.sub(r"[^\d.eE+-]", "", row[1]))) for row in rows]


class Fake(nn.Module):
    """A model as the course's functions and ours call it. shaped: {task: function that gives outputs their form}."""

    device = torch.device("cpu")

    def __init__(self, shaped: dict[str, Callable[[Tensor], Any]] | None = None):
        super().__init__()
        self.shaped = shaped or {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if is_magic(name):
                raise
        raise NoAttribute(
            f"evaluation asks the model for `{name}`, and the check's stand-in has only the predict_… methods"
        )

    @property
    def module(self) -> "Fake":
        return self  # as nn.DataParallel has it

    def answer(self, task: str, given: tuple, options: dict[str, Any]) -> Any:
        ids = next(_ids([*given, *options.values()]), None)
        if ids is None:
            raise CannotCheck(f"evaluation calls {METHODS[task]} without a tensor of ids")
        return self.shaped.get(task, as_they_are)(outputs_of(task, ids[:, 1], self.training))

    def forward(self, *given: Any, **options: Any) -> Any:
        if given and hasattr(given[0], "task"):
            batch = given[0]
            return outputs_of(batch.task, batch.input_ids[: len(batch.indices), 1], self.training)
        return self.answer("sst", given, options)

    def predict_sentiment(self, *given: Any, **options: Any) -> Any:
        return self.answer("sst", given, options)

    def predict_paraphrase(self, *given: Any, **options: Any) -> Any:
        return self.answer("para", given, options)

    def predict_similarity(self, *given: Any, **options: Any) -> Any:
        return self.answer("sts", given, options)

    def autocast(self):
        return nullcontext()


def _ids(values: Any) -> Any:
    """The tensors of ids among a call's arguments, also in lists and dictionaries."""
    for value in values:
        if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _ids(value.values() if isinstance(value, dict) else value)


class OneOrList(Batch):
    """A batch, and, as CMU's data loaders give it, also a list that holds it: `batch[0]` is the batch itself."""

    def __missing__(self, key: Any) -> Any:
        return self if key == 0 else super().__missing__(key)


class Loader(list):
    """A data loader."""

    batch_size = 3

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(f"evaluation asks a data loader for `{name}`, which the check's stand-in does not have")


def batches(project: Any, task: str, of: str = "") -> Loader:
    """A dev set as the starter's data loaders give it, in batches of three and two, with the keys that theirs add.

    of: the name of their class whose batches these would be.
    """
    of = of or ("SentenceClassificationDataset" if task == "sst" else "SentencePairDataset")
    loader = Loader()
    for rows in (range(3), range(3, ROWS)):
        texts = [text(i, "dev") for i in rows]
        x = Words()(texts, return_tensors="pt")
        inputs = (x["input_ids"], x["attention_mask"]) * (1 if task == "sst" else 2)
        batch = OneOrList(batch_of(*inputs))
        batch |= {"labels": torch.tensor([LABELS[task][i] for i in rows]), "sents": texts}
        batch["sent_ids"] = [ids_of(task, "dev")[i] for i in rows]
        own = their_batch(project, task, rows, of)
        if own is not None and not isinstance(own, dict):
            batch = own
        elif own is not None:
            batch |= {k: v for k, v in own.items() if k not in batch}
        loader.append(batch)
    return loader


def their_batch(project: Any, task: str, rows: range, name: str) -> Any:
    """These rows as their own data set of that name batches them; None where they have none, or it fails."""
    texts = [[text(i, "dev") for i in rows]] * (1 if task == "sst" else 2)
    labels, ids = [LABELS[task][i] for i in rows], [ids_of(task, "dev")[i] for i in rows]
    with suppress(Exception):  # its own probe says what is wrong with it
        data = list(zip(*texts, labels, ids, strict=True))
        return in_a_batch(project, project.get("datasets", name), data)
    return None


def in_a_batch(project: Any, dataset_class: type, rows: list, **options: Any) -> Any:
    """Rows as their data set batches them: a DataLoader gives `collate_fn` the items, which may look otherwise."""
    flags = project.flags()
    flags.batch_size = len(rows)  # CMU's collate_fn cuts what it is given into batches of that size
    data = dataset_class(list(rows), flags, **options)
    if not hasattr(data, "collate_fn"):
        raise CannotCheck(f"{dataset_class.__name__} has no method collate_fn, and its batches are made elsewhere")
    batch = data.collate_fn([data[i] for i in range(len(rows))])
    return batch[0] if isinstance(batch, list) and len(batch) == 1 else batch


def unscaled(found: list[float], numbers: tuple[float, ...]) -> list[float]:
    """`numbers` if `found` is a·numbers + b with a > 0, else `found`: a scale is right, cutting to integers is not."""
    x, y = np.array(numbers), np.array(found)
    if len(x) != len(y):
        return found
    low, high = x.argmin(), x.argmax()
    a = (y[high] - y[low]) / (x[high] - x[low])
    return list(numbers) if a > 1e-3 and np.allclose(y, y[low] + a * (x - x[low]), atol=1e-4 * a) else found


def rows_unscaled(task: str, rows: Rows, bent: bool) -> Rows:
    """Similarity's rows, sorted by id, as if they were on the labels' scale. bent: only their order must be right."""
    if task != "sts":
        return rows
    rows = sorted(rows, key=lambda row: float(row[0]))
    found = [float(value) for _, value in rows]
    rising = bent and len(found) == ROWS and np.argsort(found).tolist() == np.argsort(NUMBERS).tolist()
    return list(zip([id for id, _ in rows], NUMBERS if rising else unscaled(found, NUMBERS), strict=True))


def at_a_half(task: str, split: str, rows: Rows) -> Rows:
    """The rows. Raises CannotCheck where paraphrase has a threshold of its own, which was chosen on the dev set."""
    values = {str(id): float(value) for id, value in rows} if task == "para" else {}
    for logit in (-1.0, 1.0):  # of the probabilities .27 and .73; the examples do not tell of thresholds near ½
        if values == {id: float(x > logit) for id, x in zip(ids_of(task, split), LOGITS, strict=True)}:
            raise CannotCheck(
                "paraphrase has a threshold of its own, and is not rounded at a probability of ½",
                "A threshold that was chosen on the dev set is no mistake; with ½ the predictions can be checked.",
            )
    return rows
