"""Evaluation and data, in pieces: labels in, predictions out, each beside its own id.

    sentiment    the class of the largest logit              paraphrase   1 where σ(logit) > ½
    similarity   the number as it is; labels stay real: 2.6 stays 2.6; the score is Pearson's r

The model here is a fake whose outputs are known from the word that a text starts with, `w10` to `w19`; while it is in
training mode its outputs differ, as with dropout. Theirs are the course's functions, found by name, or a package
like ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minbert.sanity.core import Part, Pieces, Probe, group
from minbert.sanity.rows import (
    LABELS,
    LENGTHS,
    LOGITS,
    NUMBERS,
    ROWS,
    Rows,
    as_they_are,
    ids_of,
    outputs_of,
)  # fmt: skip
from minbert.sanity.their_evaluation import NAMES, find

# ------------------------------------------------------------------------------------------------ the right pieces


RIGHT = {
    # for the dev sets, and for the test sets, which the course evaluates by another function
    **dict.fromkeys(("training", "test training", "one training"), False),
    **dict.fromkeys(("sst", "test sst"), lambda x: x.argmax(dim=-1).float()),
    **dict.fromkeys(("para", "test para"), lambda x: x[:, 0].sigmoid().round()),
    **dict.fromkeys(("sts", "test sts"), lambda x: x[:, 0]),
    "correlation": lambda x, y: np.corrcoef(x, y)[0, 1],
    "order": as_they_are,  # of the predictions, beside their ids
    "file ids": as_they_are,  # what stands beside a prediction in a file
    "test ids": "test",  # whose ids stand in a test set's file
    "read": float,  # a label of similarity, from a file
    "label": as_they_are,  # and in a batch
    "regression": True,  # similarity's data set is told so
}


class Reference:
    """Evaluation of these pieces."""

    def __init__(self, pieces: Pieces):
        self.pieces = pieces

    def predictions(self, task: str, split: str = "dev") -> Rows:
        """A task's predictions beside their ids, by a model that was training."""
        p, test = self.pieces, "test " * (split == "test")
        words = torch.tensor([10 + i + ROWS * (split == "test") for i in range(ROWS)])
        predicted = p[test + task](outputs_of(task, words, p[test + "training"]))
        return list(zip(ids_of(task, split), p["order"](predicted).tolist(), strict=True))

    def score(self, task: str) -> float:
        predicted = np.array([value for _, value in self.predictions(task)])
        labels = np.array(LABELS[task])
        with np.errstate(all="ignore"):
            return self.pieces["correlation"](predicted, labels) if task == "sts" else np.mean(predicted == labels)

    def file(self, task: str, split: str) -> Rows:
        """The rows of a prediction file."""
        p, predicted = self.pieces, [value for _, value in self.predictions(task, split)]
        ids = p["file ids"](ids_of(task, p["test ids"] if split == "test" else split))
        return list(zip(ids, predicted, strict=False))

    def read(self) -> list[float]:
        """The labels of similarity, from its file."""
        return [self.pieces["read"](label) for label in LABELS["sts"]]

    def labels(self) -> list[float]:
        """The labels of similarity in a batch."""
        return [self.pieces["label"](label) for label in LABELS["sts"]]

    def regression(self) -> bool:
        return self.pieces["regression"]

    def one(self) -> list[float]:
        """classifier.py's predictions."""
        words = torch.tensor([10 + i for i in range(ROWS)])
        return outputs_of("sst", words, self.pieces["one training"]).argmax(dim=-1).tolist()


# ------------------------------------------------------------------------------------------------ probes


def table(rows: Rows) -> Tensor:
    """(id, prediction), sorted by id."""
    return torch.tensor(sorted([float(id), value] for id, value in rows), dtype=torch.float64)


def predicted(task: str) -> Callable:
    return lambda s: table(s.predictions(task))


TITLES = {"sst": "sentiment", "para": "paraphrase", "sts": "similarity"}
FIVE = f"A model in training mode, five examples of lengths {LENGTHS}"
PROBES = (
    Probe("the predictions of sentiment", predicted("sst"), f"{FIVE}: (id, class), sorted by id."),
    Probe("the predictions of paraphrase", predicted("para"),
          f"{FIVE}, logits {LOGITS}: (id, 0 or 1), sorted by id."),
    Probe("the predictions of similarity", predicted("sts"),
          f"{FIVE}, outputs {NUMBERS}: (id, the number as it is), sorted by id."),
    Probe("the score of sentiment", lambda s: torch.tensor(float(s.score("sst"))), f"{FIVE}: accuracy."),
    Probe("the score of similarity", lambda s: torch.tensor(float(s.score("sts"))), f"{FIVE}: Pearson's r."),
    *[Probe(f"the {split} file of {name}", lambda s, t=task, p=split: table(s.file(t, p)),
            f"{FIVE} of the {split} set: the rows of the file that is written, (id, prediction), sorted by id.")
      for split in ("dev", "test") for task, name in TITLES.items()],
    Probe("labels of similarity, as they are read", lambda s: torch.tensor(s.read()),
          f"A file with the labels {LABELS['sts']}."),
    Probe("labels of similarity in a batch", lambda s: torch.tensor(s.labels()), f"The labels {LABELS['sts']}."),
    Probe("whether similarity's data sets are made with isRegression=True", lambda s: torch.tensor(s.regression()),
          "The lines that make a SentencePairDataset of similarity: whether they say isRegression=True."),
    Probe("the predictions of one data set", lambda s: torch.tensor(s.one()).double(), f"{FIVE}: the classes."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

COURSE = "the course's handout, on evaluation"
EVAL = ("model_eval_multitask", "model_eval_test_multitask", "outputs")


def both(piece: str, wrong: Any) -> list[Pieces]:
    """A wrong piece for dev and test sets, or for one of them."""
    return [{piece: wrong, f"test {piece}": wrong}, {piece: wrong}, {f"test {piece}": wrong}]


def ranked(x: np.ndarray, y: np.ndarray) -> float:
    return np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]


def longest_first(x: Tensor) -> Tensor:
    return x[sorted(range(ROWS), key=LENGTHS.__getitem__, reverse=True)]


def rolled(ids: list[str], by: int) -> list[str]:
    return ids[by:] + ids[:by]


MISTAKES = (
    *group("ŷ = f(x) without dropout", COURSE, EVAL,
        ("dropout is on while evaluating", (*both("training", True),),
         "The model is still in training mode, so that its answers are noisy. Call `model.eval()` before the loop, and "
         "`model.train()` before training goes on."),
        ("classifier.py evaluates with dropout on", {"one training": True},
         "The model is still in training mode. Call `model.eval()` before the loop.",
         ("model_eval", "model_eval_sst"))),
    *group("Pearson's r of ŷ and y, both from 0 to 5", COURSE, ("predict_number", *EVAL),
        ("a sigmoid on similarity",
         (*both("sts", lambda x: x[:, 0].sigmoid()), *both("sts", lambda x: 5 * x[:, 0].sigmoid())),
         "σ squeezes 0…5 into ½…1 and bends it: the correlation falls. Take the output as it is.")),
    *group("Pearson's r of ŷ and y, both real numbers", COURSE, ("predict_number", *EVAL),
        ("similarity is rounded",
         (*both("sts", lambda x: x[:, 0].round()), *both("sts", lambda x: x[:, 0].trunc()),
          *both("sts", lambda x: x[:, 0].sigmoid().round())),
         "Similarity is a real number: 2.3 is not 2. Do not round it.")),
    *group("r = cov(ŷ, y)/(σ_ŷ·σ_y)", COURSE, EVAL,
        ("similarity is scored by ranks (Spearman), not by Pearson's r", {"correlation": ranked},
         "The course's score of similarity is Pearson's correlation: `np.corrcoef(ŷ, y)[0, 1]`.")),
    *group("ŷ = 1 if p > ½", COURSE, EVAL,
        ("paraphrase's probability is taken for a logit",
         (*both("para", lambda x: x[:, 0].sigmoid().sigmoid().round()),),
         "The head already gives a probability p, and the loss expects one. p > 0 and σ(p) > ½ hold always, so that "
         "every pair is called a paraphrase. Round p itself.")),
    *group("ŷ = 1 if σ(logit) > ½", COURSE, ("predict_binary", *EVAL),
        ("paraphrase's logit is rounded without a sigmoid",
         (*both("para", lambda x: x[:, 0].round()), *both("para", lambda x: (x[:, 0] > 0.5).float())),
         "A logit is no probability: it says yes above 0, not above ½. Apply the sigmoid first.")),
    *group("ŷ = argmax_k logit_k", COURSE, ("predict_class", *EVAL),
        ("the smallest logit is taken", (*both("sst", lambda x: x.argmin(dim=-1).float()),),
         "The likeliest class has the largest logit: argmax, not argmin.")),
    *group("(id_i, ŷ_i)", COURSE, EVAL,
        ("predictions are in another order than their ids",
         ({"order": longest_first}, {"order": lambda x: x.roll(1)}, {"order": lambda x: x.roll(-1)},
          {"order": lambda x: x.flip(0)}),
         "Batches do not come in the order of the file. Put the predictions back, or collect the ids of each batch "
         "beside its predictions."),
        ("ids in the file are shifted against their predictions",
         ({"file ids": lambda ids: rolled(ids, 1)}, {"file ids": lambda ids: rolled(ids, -1)},
          {"file ids": lambda ids: ids[1:]}, {"file ids": lambda ids: [str(i) for i in range(ROWS)]},
          {"file ids": lambda ids: [str(i + 1) for i in range(ROWS)]}),
         "Every prediction must stand beside its own id. Write both from one `zip` of lists of the same length.",
         ("write_predictions", "test_model_multitask")),
        ("test predictions stand beside the dev set's ids", {"test ids": "dev"},
         "The test file is written with the ids of the dev set. Use the ids that came with the test predictions.",
         ("test_model_multitask", "write_predictions"))),
    *group("y ∈ [0, 5], real", COURSE, ("load_multitask_data", "_label"),
        ("labels of similarity are cut to integers when they are read",
         ({"read": lambda y: float(int(y))}, {"read": lambda y: float(round(y))}),
         "2.6 becomes 2: the labels lose their fractions. Read them with `float`."),
        ("labels of similarity are cut to integers in a batch",
         ({"label": lambda y: float(int(y))}, {"label": lambda y: float(round(y))}),
         "`torch.LongTensor` makes 2 of 2.6. Labels of similarity belong in a float tensor.",
         ("SentencePairDataset.pad_data", "Dataset.batch")),
        ("similarity's data set is made without isRegression=True", {"regression": False},
         "Without it SentencePairDataset puts the labels into a LongTensor, which makes 2 of 2.6. Say "
         "isRegression=True for the training set as well.", ("train_multitask", "SentencePairDataset.__init__"))),
)  # fmt: skip

PART = Part(
    name="evaluation",
    title="evaluation and data",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
    owns=tuple(NAMES),
)
