"""Scores and prediction files, in the course's form.

SST, Quora, CFIMDB   accuracy                STS   Pearson's r
overall              the mean of the scores, with Pearson's r taken as (r + 1)/2 (the course, from 2024 on)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from minbert.data import Dataset, Example, eval_batches
from minbert.files import atomic
from minbert.multitask import MultitaskBert
from minbert.tasks import TASKS, Task


@torch.no_grad()
def outputs(model: MultitaskBert, data: Dataset) -> torch.Tensor:
    """The model's raw outputs (N, outputs) on the CPU, in the order of the data, without gradients and dropout."""
    was_training = model.training
    model.eval()
    results, order = [], []
    try:
        with tqdm(total=len(data), desc=f"eval {data.task.name}", unit="ex", leave=False, disable=None) as bar:
            for batch in eval_batches(data):
                with model.autocast():
                    results.append(model(batch.to(model.device)).float())
                order += batch.indices
                bar.update(len(batch))
    finally:
        model.train(was_training)
    in_order = torch.cat(results).cpu()
    in_order[order] = in_order.clone()
    return in_order


def predict(model: MultitaskBert, data: Dataset) -> np.ndarray:
    """One prediction an example, in the order of the data: class numbers, 0.0/1.0, or similarities."""
    return data.task.predict(outputs(model, data))


def score(task: Task, predictions: np.ndarray, labels: Sequence[float]) -> float:
    """The task's score of predictions against labels, both (N,)."""
    return task.score(predictions, np.array(labels))


def evaluate(model: MultitaskBert, data: Mapping[str, Dataset]) -> dict[str, float]:
    """The score of every task on its labelled data: {"sst": .51, "para": .86, "sts": .87}."""
    return {name: score(d.task, predict(model, d), d.labels) for name, d in data.items()}


def overall(scores: Mapping[str, float]) -> float:
    """The course's one number: the mean over the tasks, with Pearson's r taken as (r + 1)/2."""
    return sum(TASKS[name].normalised(value) for name, value in scores.items()) / len(scores)


def chance(task: Task, labels: Sequence[float]) -> float:
    """What one would score without reading: the share of the commonest label; 0 for a correlation."""
    if task.score_name != "accuracy":
        return 0.0
    return float(np.unique(np.array(labels), return_counts=True)[1].max() / len(labels))


def write_predictions(path: str | Path, task: Task, examples: Sequence[Example], predictions: np.ndarray):
    """Write a prediction file, whole or not at all.

    The course's form, to the byte: a header, then `id , prediction` with a space at the end. Examples of CMU's
    files have no ids; theirs are rows of `prediction ||| text`.
    """
    if examples[0].id is None:
        rows = [f"{prediction} ||| {e.texts[0]}\n" for e, prediction in zip(examples, predictions, strict=True)]
    else:
        rows = [f"id \t {task.header} \n"]
        rows += [f"{e.id} , {prediction} \n" for e, prediction in zip(examples, predictions, strict=True)]
    with atomic(path) as temporary:
        temporary.write_text("".join(rows), encoding="utf-8", newline="\n")


def in_words(task: Task, output: torch.Tensor) -> str:
    """What one example's raw outputs (outputs,) say, for a person: the likeliest answers, or a number of how many."""
    if not task.words:
        low, high = task.label_range
        return f"{min(max(output.item(), low), high):.1f} of {high}"
    if len(output) == 1:
        p = output.sigmoid().item()
        probabilities = [1 - p, p]
    else:
        probabilities = output.softmax(dim=-1).tolist()
    ranked = sorted(zip(probabilities, task.words, strict=True), reverse=True)
    return ", ".join(f"{word} ({p:.0%})" for p, word in ranked[:2])
