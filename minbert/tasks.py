"""The tasks, as a table: a row describes a data set and its labels, and the rest of the program reads the row.

    sst     SST-5        how positive is a sentence from a film review, 0 to 4        5 logits   accuracy
    para    Quora        do two questions ask the same?                               1 logit    accuracy
    sts     STS-B        how alike are two sentences, 0.0 to 5.0                      1 number   Pearson's r
    cfimdb  CFIMDB       is a film review positive?                                   2 logits   accuracy
    nli     SNLI, MNLI   does the premise entail the hypothesis?                      3 logits   accuracy

The last is not one of the course's tasks; BERT can be trained on it before the others, see `pretraining/`.
A head gives K raw outputs an example, without softmax or sigmoid: the two cross-entropies compute these from the
logits, which is exact for large logits too. STS labels are real numbers (2.6 stays 2.6), and so is the output for STS.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import torch.nn.functional as F
from scipy.stats import pearsonr, rankdata
from torch import Tensor

from minbert.errors import UserError
from minbert.smart import bernoulli_symmetric_kl, squared_error, symmetric_kl


def classification_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy. outputs: (B, K) logits; labels: (B,) class numbers.

    L = -mean over examples of log softmax(z)_y
    """
    return F.cross_entropy(outputs, labels.long())


def binary_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy. outputs: (B, 1) logits; labels: (B,) 0 or 1.

    L = -mean over examples of (y·log σ(z) + (1 - y)·log(1 - σ(z)))
    """
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype))


def regression_loss(outputs: Tensor, labels: Tensor, low: float = 0.0, high: float = 5.0) -> Tensor:
    """Mean squared error of outputs and labels, both mapped from low…high to 0…1. outputs: (B, 1); labels: (B,).

        L = mean over examples of ((z - y)/(high - low))²

    The optimum does not change; this keeps the tasks' gradients at a similar size. On a scale to 5 this task's are 25
    times larger, and Adam's running means, which all tasks share, then make the other tasks' steps small. (Mo & Ho.)
    """
    return F.mse_loss((outputs[:, 0] - low) / (high - low), (labels - low) / (high - low))


def cosine_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine-embedding loss with graded labels.

        L = mean over examples of (y·(1 - cos) + (1 - y)·max(0, cos))        y = label/5

    outputs: (B, 1), 5·cos(u, v). Above half the highest label the optimum is cos 1, below it cos 0. Labels 3
    and 5 have the same optimum and differ only in the size of the gradient (after the report of Griggs).
    With the same head, `regression_loss` is the CosineSimilarityLoss of sentence-transformers.
    """
    cos, y = outputs[:, 0] / 5, labels / 5
    return (y * (1 - cos) + (1 - y) * cos.clamp(min=0)).mean()


STS_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": regression_loss, "cosine": cosine_loss}


def regression_divergence(a: Tensor, b: Tensor, low: float = 0.0, high: float = 5.0) -> Tensor:
    """The divergence of two outputs on the scale of `regression_loss`, ((a - b)/(high - low))².

    a, b: (B, 1). Returns (B,).
    """
    return squared_error(a / (high - low), b / (high - low))


def predict_class(outputs: Tensor) -> np.ndarray:
    """(B, K) logits → (B,) int64, the likeliest class."""
    return outputs.argmax(dim=-1).numpy()


def predict_binary(outputs: Tensor) -> np.ndarray:
    """(B, 1) logits → (B,) float32, 1.0 where p > ½, as the course writes it."""
    return outputs[:, 0].sigmoid().round().numpy()


def predict_number(outputs: Tensor) -> np.ndarray:
    """(B, 1) → (B,) float32, unchanged."""
    return outputs[:, 0].numpy()


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of predictions that equal the label."""
    return float(np.mean(predictions == labels))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 where it is not defined (fewer than two rows, a constant side, a NaN)."""
    if len(labels) < 2 or not np.isfinite(predictions).all() or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(pearsonr(predictions.astype(np.float64), labels.astype(np.float64)).statistic)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks; 0 where it is not defined."""
    return pearson(rankdata(predictions), rankdata(labels)) if np.isfinite(predictions).all() else 0.0


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The mean of F1 = 2·TP/(2·TP + FP + FN) over all classes that occur in the predictions or the labels."""
    both = [(predictions == k, labels == k) for k in np.union1d(predictions, labels)]
    return float(np.mean([2 * np.sum(p & y) / (np.sum(p) + np.sum(y)) for p, y in both]))


@dataclass(frozen=True)
class Kind:
    """A kind of label, with its loss, divergence, predictions and scores. A task's score is the first of `scores`."""

    loss: Callable[..., Tensor]
    divergence: Callable[..., Tensor]  # ℓ_s of `smart.py`
    predict: Callable[[Tensor], np.ndarray]
    scores: Mapping[str, Callable[[np.ndarray, np.ndarray], float]]


KINDS = {
    "classes": Kind(  # one logit a class
        classification_loss, symmetric_kl, predict_class, {"accuracy": accuracy, "macro F1": macro_f1}
    ),
    "yes_no": Kind(  # one logit
        binary_loss, bernoulli_symmetric_kl, predict_binary, {"accuracy": accuracy, "macro F1": macro_f1}
    ),
    "number": Kind(  # the number itself, on the labels' scale
        regression_loss, regression_divergence, predict_number, {"Pearson r": pearson, "Spearman ρ": spearman}
    ),
}


@dataclass(frozen=True)
class Task:
    """One row of the table, or a task of your own:

    Task("topics", texts=("headline",), label="topic", words=("sport", "science", "politics"))
    Task("ease", texts=("sentence",), label="ease", kind="number", label_range=(0, 100))
    """

    name: str
    texts: tuple[str, ...]  # the columns that hold the sentence, or the two sentences
    label: str  # the column that holds the label, absent from a test file
    kind: str = "classes"  # a row of KINDS
    label_range: tuple[float, float] = (0, 0)  # both ends included; classes get it from `words`
    words: tuple[str, ...] = ()  # the meanings of the labels 0, 1, …
    title: str = ""
    file: str = ""  # its name in a data folder, with {} for the split
    other_files: tuple[str, ...] = ()  # the names that other courses give it
    header: str = ""  # of the prediction's column in the course's files, in its spelling; "" if the course has none
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of columns → ours; used if ours are absent
    undecided: tuple[str, ...] = ()  # labels of examples on which the annotators did not agree
    by_number: bool = True  # files may hold the numbers of classes, and predictions are numbers; if False, words alone
    bounded: bool = True  # whether a label outside label_range is an error; if not, the range is the training file's
    form: str = "stanford"  # the form of predictions unless the data file sets one: a key of evaluation.FORMS

    def __post_init__(self):
        if self.label_range[0] == self.label_range[1] and len(self.words) > 1 and self.kind != "number":
            object.__setattr__(self, "label_range", (0, len(self.words) - 1))
        object.__setattr__(self, "title", self.title or self.name)
        if problem := self._problem():
            raise ValueError(f"task {self.name}: {problem}")

    def _problem(self) -> str:
        """The first mistake in this row, or ""."""
        low, high = self.label_range
        if self.kind not in KINDS:
            return f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}"
        if isinstance(self.texts, str) or not 1 <= len(self.texts) <= 2:
            return "texts must be a tuple of one or two columns"
        if self.kind == "number" and (low == high or self.words):
            return "a task of kind number needs a label_range and takes no words"
        if low == high:
            return "it needs two words or more for its labels, or a label_range"
        if low > high:
            return f"its label_range goes from {low} to {high}"
        if self.whole and (low < 0 or low != int(low) or high != int(high)):
            return f"its labels {low} to {high} must be whole numbers of at least 0"
        if self.kind == "yes_no" and (low, high) != (0, 1):
            return "the labels of a yes_no task are 0 and 1"
        if self.words and len(self.words) != high + 1:
            return f"it has {len(self.words)} words for the labels 0 to {high}"
        return ""

    @property
    def is_pair(self) -> bool:
        return len(self.texts) == 2

    @property
    def whole(self) -> bool:
        """Whether labels are whole numbers."""
        return self.kind != "number"

    @property
    def outputs(self) -> int:
        """The number of outputs of its head."""
        return int(self.label_range[1]) + 1 if self.kind == "classes" else 1

    @property
    def _scale(self) -> tuple[float, ...]:
        return self.label_range if self.kind == "number" else ()

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss. outputs: (B, K); labels: (B,)."""
        return KINDS[self.kind].loss(outputs, labels, *self._scale)

    def divergence(self, a: Tensor, b: Tensor) -> Tensor:
        """The divergence ℓ_s of two outputs. a, b: (B, K). Returns (B,)."""
        return KINDS[self.kind].divergence(a, b, *self._scale)

    def predict(self, outputs: Tensor) -> np.ndarray:
        """(B, K) → (B,): class numbers, 0.0 or 1.0, or numbers."""
        return KINDS[self.kind].predict(outputs)

    @property
    def scores(self) -> Mapping[str, Callable[[np.ndarray, np.ndarray], float]]:
        """All scores of predictions by name; the first is the task's score."""
        return KINDS[self.kind].scores

    @property
    def score_name(self) -> str:
        return next(iter(self.scores))

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        return self.scores[self.score_name](predictions, labels)

    @property
    def has_ids(self) -> bool:
        """Whether its rows need ids, for a prediction file that names them."""
        return bool(self.header)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a file besides the label. Files without ids are read, too: see `data.read_examples`."""
        return ("id", *self.texts) if self.has_ids else self.texts

    def written(self, prediction) -> str:
        """A prediction as it stands in a prediction file."""
        return f"{prediction}" if self.by_number else self.words[int(prediction)]  # as the course's f-strings write it

    def normalised(self, score: float) -> float:
        """The score on a scale from 0 to 1, as the course's overall score takes it: (r + 1)/2 for Pearson's r."""
        return (score + 1) / 2 if self.kind == "number" else score

    def plain(self) -> str | dict:
        """This row as a plain value for `task_row`: its name in the table, or all of its values."""
        return self.name if TASKS.get(self.name) == self else asdict(self)


def task_row(task: "str | Mapping | Task") -> Task:
    """The task of a name in the table, of a row's values, or `task` itself. Raises UserError for an unknown name."""
    if isinstance(task, str):
        if task not in TASKS:
            raise UserError(f"no task is called {task}; there are {', '.join(TASKS)}, and any `Task` of your own")
        return TASKS[task]
    if isinstance(task, Mapping):
        return Task(**{key: tuple(value) if isinstance(value, list) else value for key, value in task.items()})
    return task


def of_task(choice: str | Mapping[str, str], name: str) -> str:
    """The word for the task `name`. choice: one word for all tasks, or task → word. ValueError if it has none."""
    if not isinstance(choice, str) and name not in choice:
        raise ValueError(f"give one word for all tasks, or one for each: {name} has none in {dict(choice)}")
    return choice if isinstance(choice, str) else choice[name]


CMU_2023 = {"data": "sentence", "label": "sentiment"}  # the columns of CMU's files since 2023, beside ID
SENTIMENTS = ("negative", "somewhat negative", "neutral", "somewhat positive", "positive")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "sst", ("sentence",), "sentiment", words=SENTIMENTS, title="SST-5 sentiment",
            file="ids-sst-{}.csv", other_files=("sst-{}.csv", "sst-{}.txt"), header="Predicted_Sentiment",
            aliases=CMU_2023,
        ),
        Task(
            "para", ("sentence1", "sentence2"), "is_duplicate", "yes_no", title="Quora paraphrase",
            words=("different questions", "the same question"), file="quora-{}.csv", header="Predicted_Is_Paraphrase",
        ),
        Task(
            "sts", ("sentence1", "sentence2"), "similarity", "number", (0, 5), title="STS-B similarity",
            file="sts-{}.csv", header="Predicted_Similiary",
        ),
        Task(
            "cfimdb", ("sentence",), "sentiment", words=("negative", "positive"), title="CFIMDB sentiment",
            file="ids-cfimdb-{}.csv", other_files=("cfimdb-{}.csv", "cfimdb-{}.txt"), header="Predicted_Sentiment",
            aliases=CMU_2023,
        ),
        Task(
            "nli", ("premise", "hypothesis"), "label", words=("entailment", "neutral", "contradiction"),
            title="NLI inference", file="nli-{}.csv", undecided=("-", "-1"),
            aliases={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
        ),
    )
}  # fmt: skip
