"""The tasks, as a table: a row says what a data set asks, and the rest of the program reads the row.

    sst     SST-5        how positive is a sentence from a film review, 0 to 4        5 logits   accuracy
    para    Quora        do two questions ask the same?                               1 logit    accuracy
    sts     STS-B        how alike are two sentences, 0.0 to 5.0                      1 number   Pearson's r
    cfimdb  CFIMDB       is a film review positive?                                   2 logits   accuracy
    nli     SNLI, MNLI   does the premise entail the hypothesis?                      3 logits   accuracy

The last is no task of the course's: BERT can learn from it before the others, see `pretraining.py`.
Outputs of a head are (B, outputs). Losses take them as they are: cross-entropy and BCE contain the softmax and the
sigmoid, so no head may apply its own. STS labels are real numbers (2.6 stays 2.6) and its output is read as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch.nn.functional as F
from scipy.stats import pearsonr
from torch import Tensor

from minbert.smart import bernoulli_symmetric_kl, squared_error, symmetric_kl


def classification_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy. outputs: (B, K) logits; labels: (B,) class numbers."""
    return F.cross_entropy(outputs, labels.long())


def binary_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy. outputs: (B, 1) logits; labels: (B,) 0 or 1."""
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels)


def regression_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error with both sides mapped from 0…5 to 0…1. outputs: (B, 1), labels: (B,), both 0…5.

    Not for the optimum, which is the same, but for peace: on the scale to 5 its gradients are 25 times larger, and
    Adam's running means, which all tasks share, then make every other task's steps small. (So do Mo & Ho.)
    """
    return F.mse_loss(outputs[:, 0] / 5, labels / 5)


def cosine_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine-embedding loss with graded labels: y·(1 - cos) + (1 - y)·max(0, cos), y = label/5.

    outputs: (B, 1), 5·cos(u, v). Pairs of more than half the highest label are pulled together, those of less apart to
    a right angle: labels 3 and 5 have the same optimum, cos 1, and differ only in the strength of the pull (after
    the report of Griggs). `regression_loss` is what sentence-transformers calls CosineSimilarityLoss.
    """
    cos, y = outputs[:, 0] / 5, labels / 5
    return (y * (1 - cos) + (1 - y) * cos.clamp(min=0)).mean()


STS_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": regression_loss, "cosine": cosine_loss}


def regression_divergence(a: Tensor, b: Tensor) -> Tensor:
    """How far two outputs (B, 1) of 0…5 are apart, on the scale of `regression_loss`: ((a - b)/5)², (B,)."""
    return squared_error(a / 5, b / 5)


def predict_class(outputs: Tensor) -> np.ndarray:
    """(B, K) logits → (B,) int64, the likeliest class."""
    return outputs.argmax(dim=-1).numpy()


def predict_binary(outputs: Tensor) -> np.ndarray:
    """(B, 1) logits → (B,) float32, 1.0 where p > ½, as the course writes it."""
    return outputs[:, 0].sigmoid().round().numpy()


def predict_number(outputs: Tensor) -> np.ndarray:
    """(B, 1) → (B,) float32, as it is."""
    return outputs[:, 0].numpy()


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of predictions that equal the label."""
    return float(np.mean(predictions == labels))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 where it is not defined (fewer than two rows, a constant side, a NaN)."""
    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0 or not np.isfinite(predictions).all():
        return 0.0
    return float(pearsonr(predictions.astype(np.float64), labels.astype(np.float64)).statistic)


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    name: str
    title: str
    texts: tuple[str, ...]  # the columns that hold the sentence, or the two sentences
    label: str  # the column that holds the label, absent from a test file
    label_range: tuple[float, float]  # both ends belong to it
    whole: bool  # labels are whole numbers
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    divergence: Callable[[Tensor, Tensor], Tensor]  # ℓ_s of `smart.py`
    predict: Callable[[Tensor], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray], float]
    score_name: str
    file: str  # its name in a data folder, with {} for the split
    header: str = ""  # of the prediction's column in the course's files, its spelling; "" if there are none to write
    words: tuple[str, ...] = ()  # what the labels mean
    aliases: Mapping[str, str] = field(default_factory=dict)  # other people's names of columns → ours
    undecided: tuple[str, ...] = ()  # labels that say that the annotators did not agree

    @property
    def is_pair(self) -> bool:
        return len(self.texts) == 2

    @property
    def has_ids(self) -> bool:
        """Whether its rows need ids: they do where a prediction file will name them."""
        return bool(self.header)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a file must have, labelled or not."""
        return ("id", *self.texts) if self.has_ids else self.texts

    def normalised(self, score: float) -> float:
        """The score on a scale from 0 to 1, as the course's overall score takes it: (r + 1)/2 for Pearson's r."""
        return (score + 1) / 2 if self.score is pearson else score


SENTIMENTS = ("negative", "somewhat negative", "neutral", "somewhat positive", "positive")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "sst", "SST-5 sentiment", ("sentence",), "sentiment", (0, 4), True, 5,
            classification_loss, symmetric_kl, predict_class, accuracy, "accuracy", "ids-sst-{}.csv",
            "Predicted_Sentiment", SENTIMENTS,
        ),
        Task(
            "para", "Quora paraphrase", ("sentence1", "sentence2"), "is_duplicate", (0, 1), True, 1,
            binary_loss, bernoulli_symmetric_kl, predict_binary, accuracy, "accuracy", "quora-{}.csv",
            "Predicted_Is_Paraphrase", ("different questions", "the same question"),
        ),
        Task(
            "sts", "STS-B similarity", ("sentence1", "sentence2"), "similarity", (0, 5), False, 1,
            regression_loss, regression_divergence, predict_number, pearson, "Pearson r", "sts-{}.csv",
            "Predicted_Similiary",
        ),
        Task(
            "cfimdb", "CFIMDB sentiment", ("sentence",), "sentiment", (0, 1), True, 2,
            classification_loss, symmetric_kl, predict_class, accuracy, "accuracy", "ids-cfimdb-{}.csv",
            "Predicted_Sentiment", ("negative", "positive"),
        ),
        Task(
            "nli", "NLI inference", ("premise", "hypothesis"), "label", (0, 2), True, 3,
            classification_loss, symmetric_kl, predict_class, accuracy, "accuracy", "nli-{}.csv",
            words=("entailment", "neutral", "contradiction"), undecided=("-", "-1"),
            aliases={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
        ),
    )
}  # fmt: skip
