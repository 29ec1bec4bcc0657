"""The statistics of a run's answers: confusion, precision and recall, calibration, intervals, the worst mistakes.

    precision_k = n_kk / Σ_i n_ik      recall_k = n_kk / Σ_j n_kj      F1_k = 2·n_kk / (Σ_i n_ik + Σ_j n_kj)

with n_ij the number of examples of class i that the model takes for class j. The calibration error is that of Guo et
al. 2017 (arXiv 1706.04599), eq. 3: ECE = Σ_b n_b/N·|accuracy_b - confidence_b|, over bins b of equal width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import binomtest, pearsonr

from minbert.report.folders import Answer
from minbert.tasks import Task

BINS = 10


def arrays(answers: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
    """N predictions and their N labels."""
    return np.array([a.prediction for a in answers]), np.array([a.label for a in answers])


def class_names(task: Task) -> list[str]:
    """The classes in words, where they have words; else their numbers."""
    return list(task.words) or [str(k) for k in range(int(task.label_range[1]) + 1)]


def interval(task: Task, answers: Sequence[Answer]) -> tuple[float, float] | None:
    """The 95% confidence interval of the task's score on these examples; None where it is not defined.

    Accuracy: Wilson's interval. Pearson's r: by Fisher's transform, of four examples or more that are not constant.
    """
    predictions, labels = arrays(answers)
    if task.kind != "number":
        correct = int((predictions == labels).sum())
        low, high = binomtest(correct, len(labels)).proportion_ci(0.95, "wilson")
    elif len(labels) > 3 and np.ptp(predictions) and np.ptp(labels):
        low, high = pearsonr(predictions, labels).confidence_interval(0.95)
    else:
        return None
    return (float(low), float(high)) if math.isfinite(low + high) else None


def confusion(task: Task, answers: Sequence[Answer]) -> np.ndarray:
    """K × K counts n_ij: rows are the labels, columns the predictions."""
    K = len(class_names(task))
    counts = np.zeros((K, K), dtype=int)
    predictions, labels = arrays(answers)
    np.add.at(counts, (labels.astype(int), predictions.astype(int)), 1)
    return counts


class ClassScore(NamedTuple):
    """precision, recall, f1: None where they would be 0/0."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    labels: int  # examples of the class
    predictions: int  # examples that the model takes for it


def class_scores(task: Task, answers: Sequence[Answer]) -> list[ClassScore]:
    """Precision, recall and F1 of each class."""
    counts = confusion(task, answers)

    def ratio(a: int, b: int) -> float | None:
        return float(a / b) if b else None

    return [
        ClassScore(name, ratio(n, predictions), ratio(n, labels), ratio(2 * n, labels + predictions),
                   int(labels), int(predictions))
        for name, n, labels, predictions in zip(
            class_names(task), counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0), strict=True)
    ]  # fmt: skip


def probabilities(task: Task, answers: Sequence[Answer], log: bool = False) -> np.ndarray:
    """The model's probability of each class (a column), or its logarithm, for each example (a row)."""
    outputs = np.array([a.outputs for a in answers], dtype=float)
    if task.kind == "yes_no":
        function = log_expit if log else expit
        return np.concatenate([function(-outputs), function(outputs)], axis=1)
    return (log_softmax if log else softmax)(outputs, axis=1)


class Bin(NamedTuple):
    """A bin (low, high] of confidence. accuracy, confidence: means over its examples; None where it has none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def calibration(task: Task, answers: Sequence[Answer]) -> tuple[list[Bin], float]:
    """The bins of the reliability diagram, and ECE. The confidence is the probability of the predicted class."""
    predictions, labels = arrays(answers)
    confidence = probabilities(task, answers)[np.arange(len(answers)), predictions.astype(int)]
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for b in range(BINS):
        inside = places == b
        means = (float(confidence[inside].mean()), float((predictions == labels)[inside].mean())) if inside.any() else (
            None, None)  # fmt: skip
        bins.append(Bin(b / BINS, (b + 1) / BINS, int(inside.sum()), *means))
    error = sum(b.count / len(answers) * abs(b.accuracy - b.confidence) for b in bins if b.count)
    return bins, float(error)


class NumberScore(NamedTuple):
    """How far predictions are from labels on the labels' scale. bias: the mean of prediction - label."""

    mean_error: float
    bias: float
    outside: int  # predictions beyond the range of the labels' scale


def number_score(task: Task, answers: Sequence[Answer]) -> NumberScore:
    predictions, labels = arrays(answers)
    low, high = task.label_range
    outside = int(((predictions < low) | (predictions > high)).sum())
    return NumberScore(float(abs(predictions - labels).mean()), float((predictions - labels).mean()), outside)


class Range(NamedTuple):
    """The numbers from low to high: how many labels and how many predictions lie there, and the mean and the spread
    (standard deviation) of the predictions for these labels."""

    low: float
    high: float
    labels: int
    predictions: int
    mean: float | None
    spread: float | None


def distributions(task: Task, answers: Sequence[Answer]) -> list[Range]:
    """Labels and predictions in ten equal ranges over the labels' scale; the outer ones include what is beyond it."""
    predictions, labels = arrays(answers)
    edges = np.linspace(*task.label_range, BINS + 1)
    place = {name: np.clip(np.searchsorted(edges, x, "right") - 1, 0, BINS - 1)
             for name, x in (("labels", labels), ("predictions", predictions))}  # fmt: skip
    result = []
    for b in range(BINS):
        mine = predictions[place["labels"] == b]
        moments = (float(mine.mean()), float(mine.std())) if len(mine) else (None, None)
        result.append(Range(float(edges[b]), float(edges[b + 1]), len(mine),
                            int((place["predictions"] == b).sum()), *moments))  # fmt: skip
    return result


class Mistake(NamedTuple):
    """size: -log of the probability that the true class got, or |prediction - label|."""

    answer: Answer
    size: float
    probability: float | None  # of the predicted class
    true_probability: float | None  # of the true class


def mistakes(task: Task, answers: Sequence[Answer], most: int = 10) -> list[Mistake]:
    """The worst mistakes, the worst first: the true class got the least probability, or the number is furthest off."""
    predictions, labels = arrays(answers)
    if task.kind == "number":
        sizes = abs(predictions - labels)
        return [Mistake(answers[i], float(sizes[i]), None, None) for i in np.argsort(-sizes, kind="stable")[:most]
                if sizes[i] > 0]  # fmt: skip
    logs = probabilities(task, answers, log=True)
    rows = np.arange(len(answers))
    true, predicted = logs[rows, labels.astype(int)], logs[rows, predictions.astype(int)]
    order = [i for i in np.argsort(true, kind="stable") if predictions[i] != labels[i]]
    return [Mistake(answers[i], float(-true[i]), math.exp(predicted[i]), math.exp(true[i])) for i in order[:most]]
