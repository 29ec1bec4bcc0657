"""Scores, and prediction files in the courses' forms.

SST, Quora, CFIMDB   accuracy                STS   Pearson's r
overall              the mean of the scores, with Pearson's r taken as (r + 1)/2 (the course, from 2024 on)
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from minbert import processes
from minbert.data import CPU_TOKENS, GPU_TOKENS, Batch, Dataset, Example, eval_batches
from minbert.errors import UserError
from minbert.examples import FORMULA, UNWRITABLE
from minbert.files import atomic
from minbert.multitask import MultitaskBert
from minbert.progress import Progress
from minbert.tasks import TASKS, Task


@torch.no_grad()
def _each_batch(model: MultitaskBert, data: Dataset, title: str, do: Callable[[Batch], None]):
    """Call `do` with every batch of the data, on the model's device, without gradients and dropout.

    Each of N processes takes every N-th batch; the bar counts the others' batches too.
    """
    was_training = model.training
    with Progress(len(data), title, "example") as bar:
        model.eval()
        try:
            batches = eval_batches(data, CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
            for batch in islice(batches, processes.rank(), None, processes.size()):
                with model.autocast():
                    do(batch.to(model.device))
                bar.update(processes.size() * len(batch))
        finally:
            model.train(was_training)


def outputs(model: MultitaskBert, data: Dataset) -> torch.Tensor:
    """The model's raw outputs in the order of the data, without gradients and dropout; returns (N, K), on the CPU.

    UserError where one is not a finite number.
    """
    results, order = [], []

    def answer(batch: Batch):
        results.append(model(batch).float())
        order.extend(batch.indices)

    _each_batch(model, data, f"evaluating {data.task.name}", answer)
    in_order = torch.zeros(len(data), data.task.outputs)
    if results:  # with fewer batches than processes, some have none
        in_order[order] = torch.cat(results).cpu()
    (in_order,) = processes.summed([in_order])  # each row is from one process, and 0 in the others
    if not torch.isfinite(in_order).all():
        fp16 = ", or use --precision bf16 or fp32, since fp16 ends at 65,504" if model.precision == "fp16" else ""
        raise UserError(
            f"the model's outputs for {data.task.name} are not finite numbers; train with a lower --lr{fp16}"
        )
    return in_order


@contextmanager
def remembered(model: MultitaskBert, train: Mapping[str, Dataset], dev: Mapping[str, Dataset], draws: int):
    """Inside, a frozen BERT computes the vector of each row only once, not once an epoch, and `Dataset.vectors` has it.

    draws: the most training examples that the run draws of a task. Larger data sets are not computed in advance.
    """
    sets = [d for name, d in train.items() if model.is_fixed(name) and draws >= len(d)]
    sets += [d for name, d in dev.items() if model.is_fixed(name) and draws]
    try:
        for data in sets:
            _remember(model, data)
        yield
    finally:
        for data in sets:
            data.vectors = None  # another model makes other vectors


def _remember(model: MultitaskBert, data: Dataset):
    """Fill `data.vectors`, with the same batches in every run, since pads change a vector's last bits."""
    vectors = torch.zeros(len(data), data.parts, model.bert.config.hidden_size)  # (N, ·, C): · rows an example

    def read(batch: Batch):
        rows = model.encode(batch, model.embed(batch))[1]  # (R, C)
        vectors[batch.indices] = rows.float().cpu().unflatten(0, (data.parts, -1)).transpose(0, 1)

    _each_batch(model, data, f"computing the vectors of {data.task.name}", read)
    (vectors,) = processes.summed([vectors])  # each row is from one process, and 0 in the others
    data.vectors = vectors.flatten(0, 1)  # on the CPU, like all that batches are made from


def predict(model: MultitaskBert, data: Dataset) -> np.ndarray:
    """One prediction for each example, in the order of the data: class numbers, 0.0 or 1.0, or numbers."""
    return data.task.predict(outputs(model, data))


def score(task: Task, predictions: np.ndarray, labels: Sequence[float]) -> float:
    """The task's score of predictions against labels. predictions: (N,)."""
    return task.score(predictions, np.array(labels))


def evaluate(model: MultitaskBert, data: Mapping[str, Dataset]) -> dict[str, float]:
    """The score of every task on its labelled data: {"sst": .51, "para": .86, "sts": .87}."""
    return {name: score(d.task, predict(model, d), d.labels) for name, d in data.items()}


def all_scores(task: Task, predictions: np.ndarray, labels: Sequence[float]) -> dict[str, float]:
    """All scores of the task's kind, by name; the first is the task's score."""
    return {name: score(predictions, np.array(labels)) for name, score in task.scores.items()}


def overall(scores: Mapping[str, float], tasks: Mapping[str, Task] = TASKS) -> float:
    """The course's one number: the mean over the tasks, with Pearson's r taken as (r + 1)/2."""
    return sum(tasks[name].normalised(value) for name, value in scores.items()) / len(scores)


def chance(task: Task, labels: Sequence[float]) -> float:
    """The score of a constant prediction: the share of the commonest label; 0 for a correlation."""
    if task.kind == "number":
        return 0.0
    return float(np.unique(np.array(labels), return_counts=True)[1].max() / len(labels))


def write_predictions(path: str | Path, task: Task, examples: Sequence[Example], predictions: np.ndarray):
    """Write a prediction file, whole or not at all, in the form that goes with the file the examples come from.

    The form is `examples.form`; examples that come from no file get the task's form if they have ids, else CMU's of
    2022. Raises UserError for an id that would break the lines of Stanford's form.
    """
    has_ids = not examples or examples[0].id is not None
    form = getattr(examples, "form", None) or (task.form if has_ids else "cmu2022")
    ids = [str(number) if example.id is None else example.id for number, example in enumerate(examples)]
    texts = [example.texts[0] for example in examples]
    rows = list(zip(ids, texts, map(task.written, predictions), strict=True))
    with atomic(path) as temporary:
        temporary.write_text(FORMS[form](task, rows), encoding="utf-8", newline="\n")


def write_outputs(path: str | Path, task: Task, examples: Sequence[Example], outputs: torch.Tensor):
    """Write a line of JSON for each example: id, texts, label, prediction, raw outputs."""
    predictions = task.predict(outputs).tolist()
    rows = zip(examples, predictions, outputs.tolist(), strict=True)
    lines = [{"id": e.id, "texts": e.texts, "label": e.label, "prediction": p, "outputs": o} for e, p, o in rows]
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


Rows = Sequence[tuple[str, str, str]]  # id, first text, prediction


def stanford(task: Task, rows: Rows) -> str:
    """Stanford's form, to the byte: a header, then `id , prediction` with a space at the end."""
    for id, _, _ in rows:
        if UNWRITABLE.search(id):
            raise UserError(f"the id {id[:40]!a} would break the lines of a prediction file; rename it")
    return f"id \t {task.header} \n" + "".join(f"{_safe(id)} , {prediction} \n" for id, _, prediction in rows)


def cmu2022(task: Task, rows: Rows) -> str:
    """CMU's form until 2022, to the byte: rows of `prediction ||| text`, the text in lower case."""
    texts = [(prediction, text.lower().replace("\n", " ")) for _, text, prediction in rows]
    return "".join(f"{prediction} ||| {text}\n" for prediction, text in texts)


def cmu2023(task: Task, rows: Rows) -> str:
    """CMU's form since 2023, to the byte: what pandas writes of the columns ID, the row's number from 0, and label."""
    return _csv(["ID", "label"], ([id, prediction] for id, _, prediction in rows))


def plain_csv(task: Task, rows: Rows) -> str:
    """The form for data sets of one's own: csv with the columns id and the label's, quoted where that is needed."""
    cells = ([_safe(id), prediction if _is_number(prediction) else _safe(prediction)] for id, _, prediction in rows)
    return _csv(["id", task.label], cells)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _is_number(cell: str) -> bool:
    try:
        return isinstance(float(cell), float)
    except ValueError:
        return False


def _safe(cell: str) -> str:
    """A cell that begins with = + - or @ would be run as a formula when a spreadsheet opens the file. It gets an
    apostrophe before it, which shows a spreadsheet that it is text. The course's ids never begin so."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


FORMS = {"stanford": stanford, "cmu2022": cmu2022, "cmu2023": cmu2023, "csv": plain_csv}


def in_words(task: Task, output: torch.Tensor) -> str:
    """One example's raw outputs (outputs,) in words: the two likeliest answers, or the number and its maximum."""
    low, high = task.label_range
    if task.kind == "number":
        return f"{min(max(output.item(), low), high):.1f} of {high:g}" if task.bounded else f"{output.item():.4g}"
    if len(output) == 1:
        p = output.sigmoid().item()
        probabilities = [1 - p, p]
    else:
        probabilities = output.softmax(dim=-1).tolist()
    words = task.words or map(str, range(int(low), int(high) + 1))
    ranked = sorted(zip(probabilities, words, strict=True), reverse=True)
    return ", ".join(f"{word} ({p:.0%})" for p, word in ranked[:2])
