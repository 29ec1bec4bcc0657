"""Evaluation and data, in pieces: labels in, predictions out, each beside its own id.

    sentiment    the class of the largest logit              paraphrase   1 where σ(logit) > ½
    similarity   the number as it is; labels stay real: 2.6 stays 2.6; the score is Pearson's r

The model here is a fake whose outputs are known from the word that a text starts with, `w10` to `w19`; while it is in
training mode it gives other ones, as dropout would. Theirs are the course's functions, found by name, or a package
like ours.
"""

import ast
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Mistake, Part, Pieces, Probe
from minbert.sanity.layout import parsed
from minbert.sanity.search import optional, says

TASKS = ("sst", "para", "sts")
ROWS = 5
LENGTHS = (2, 4, 1, 5, 3)  # words of a text
LABELS = {"sst": (0, 2, 4, 2, 3), "para": (1, 0, 1, 0, 0), "sts": (3.0, 0.5, 5.0, 2.6, 1.4)}
LOGITS = (0.3, -0.4, 2.0, -3.0, 0.9)  # of paraphrase
NUMBERS = (3.2, 0.4, 4.9, 2.3, 1.1)  # of similarity


def ids_of(task: str, split: str) -> list[str]:
    """101, 102, … for sentiment's dev set, 151, … for its test set, 201, … for paraphrase, 301, … for similarity."""
    return [str(100 * (1 + TASKS.index(task)) + 50 * (split == "test") + i + 1) for i in range(ROWS)]


def text(i: int, split: str) -> str:
    return " ".join([f"w{10 + i + ROWS * (split == 'test')}", *["x"] * (LENGTHS[i] - 1)])


def outputs_of(task: str, words: Tensor, training: bool) -> Tensor:
    """What the fake model says, (B, ·), of texts that start with these words, (B,)."""
    i = (words - 10) % ROWS
    if task == "sst":
        return torch.eye(5)[(2 * i + training) % 5]
    table = torch.tensor(LOGITS if task == "para" else NUMBERS)[i]
    return ((-table if task == "para" else 5 - table) if training else table)[:, None]


# ------------------------------------------------------------------------------------------------ the right pieces


def as_they_are(x: Any) -> Any:
    return x


RIGHT = {
    # for the dev sets, and for the test sets, which the course evaluates by another function
    **dict.fromkeys(("training", "test training", "one training"), False),
    **dict.fromkeys(("sst", "test sst"), lambda x: x.argmax(dim=-1).float()),
    **dict.fromkeys(("para", "test para"), lambda x: x[:, 0].sigmoid().round()),
    **dict.fromkeys(("sts", "test sts"), lambda x: x[:, 0]),
    "order": as_they_are,  # of the predictions, beside their ids
    "file ids": as_they_are,  # what stands beside a prediction in a file
    "test ids": "test",  # whose ids stand in a test set's file
    "read": float,  # a label of similarity, from a file
    "label": as_they_are,  # and in a batch
    "regression": True,  # similarity's data set is told so
}

Rows = list[tuple[str, float]]  # (id, prediction)


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
            return np.corrcoef(predicted, labels)[0, 1] if task == "sts" else np.mean(predicted == labels)

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


# ------------------------------------------------------------------------------------------------ theirs


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
    """A model as the course's functions and ours call it."""

    device = torch.device("cpu")

    def forward(self, first: Any, *_: Any, **__: Any) -> Tensor:
        if isinstance(first, Tensor):
            return self.predict_sentiment(first)
        return outputs_of(first.task, first.input_ids[: len(first.indices), 1], self.training)

    def predict_sentiment(self, ids: Tensor, *_: Any, **__: Any) -> Tensor:
        return outputs_of("sst", ids[:, 1], self.training)

    def predict_paraphrase(self, ids: Tensor, *_: Any, **__: Any) -> Tensor:
        return outputs_of("para", ids[:, 1], self.training)

    def predict_similarity(self, ids: Tensor, *_: Any, **__: Any) -> Tensor:
        return outputs_of("sts", ids[:, 1], self.training)

    def autocast(self):
        return nullcontext()


class Ours:
    """A package like ours: evaluation.py and data.py."""

    def __init__(self, project: Any, evaluation: Any, data: Any):
        self.evaluation, self.data, self.tasks = evaluation, data, project.get("tasks", "TASKS")

    def examples(self, task: str, split: str) -> list:
        with tempfile.TemporaryDirectory() as folder:
            return self.data.read_examples(write_data(Path(folder), task, split), self.tasks[task])

    def dataset(self, task: str, split: str) -> Any:
        examples = self.examples(task, split)
        if split == "dev":  # how labels are read is asked by itself
            examples = [e._replace(label=float(y)) for e, y in zip(examples, LABELS[task], strict=True)]
        return self.data.Dataset(self.tasks[task], examples, Words())

    def predictions(self, task, split="dev"):
        data = self.dataset(task, split)
        predicted = self.evaluation.predict(Fake().train(), data)
        return list(zip([e.id for e in data.examples], predicted.tolist(), strict=True))

    def score(self, task):
        return self.evaluation.evaluate(Fake().train(), {task: self.dataset(task, "dev")})[task]

    def file(self, task, split):
        data = self.dataset(task, split)
        with tempfile.TemporaryDirectory() as folder:
            path, predicted = Path(folder) / "out.csv", self.evaluation.predict(Fake().train(), data)
            self.evaluation.write_predictions(path, data.task, data.examples, predicted)
            return read_predictions(path)

    def read(self):
        return [float(e.label) for e in self.examples("sts", "dev")]

    def labels(self):
        return self.dataset("sts", "dev").batch(range(ROWS)).labels.tolist()

    def regression(self):
        raise Absent("its task says so")

    def one(self):
        raise Absent("the same function as for all")


class Words:
    """Stands for the tokenizer: `w10` is number 10, every other word number 4."""

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> "Words":
        return cls()

    def __call__(self, texts: Iterable[str], *_: Any, **options: Any) -> dict[str, Tensor]:
        return self.pad([self.single(pieces) for pieces in self.encode(texts)])

    # as our Dataset asks it

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[int(w[1:]) if re.fullmatch(r"w\d+", w) else 4 for w in t.split()] for t in texts]

    def single(self, pieces: list[int]) -> SimpleNamespace:
        return SimpleNamespace(ids=[2, *pieces, 3], first=len(pieces) + 2)

    def pad(self, rows: list[SimpleNamespace]) -> dict[str, Tensor]:
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}


class OneOrList(dict):
    """A batch, and, as CMU's data loaders give it, also a list that holds it: `batch[0]` is the batch itself."""

    def __missing__(self, key: Any) -> "OneOrList":
        if key == 0:
            return self
        raise KeyError(key)


def batches(task: str) -> list[dict[str, Any]]:
    """A dev set as the starter's data loaders give it, three examples and two."""
    found = []
    for rows in (range(3), range(3, ROWS)):
        texts = [text(i, "dev") for i in rows]
        x, labels = Words()(texts), torch.tensor([LABELS[task][i] for i in rows])
        names = {"input_ids": "token_ids", "attention_mask": "attention_mask", "token_type_ids": "token_type_ids"}
        suffixes = ("",) if task == "sst" else ("_1", "_2")
        batch = {f"{new}{suffix}": x[old] for old, new in names.items() for suffix in suffixes}
        ids = [ids_of(task, "dev")[i] for i in rows]
        found.append(OneOrList(batch | {"labels": labels, "sents": texts, "sent_ids": ids}))
    return found


def unscaled(found: list[float], numbers: tuple[float, ...]) -> list[float]:
    """These numbers where what was found is a·number + b with a > 0: a scale is free, cutting to integers is not."""
    x, y = np.array(numbers), np.array(found)
    if len(x) != len(y):
        return found
    low, high = x.argmin(), x.argmax()
    a = (y[high] - y[low]) / (x[high] - x[low])
    return list(numbers) if a > 1e-3 and np.allclose(y, y[low] + a * (x - x[low]), atol=1e-4 * a) else found


def rows_unscaled(task: str, rows: Rows) -> Rows:
    """Similarity's rows, sorted by id, as if they were on the labels' scale."""
    if task != "sts":
        return rows
    rows = sorted(rows, key=lambda row: float(row[0]))
    return list(zip([id for id, _ in rows], unscaled([float(value) for _, value in rows], NUMBERS), strict=True))


class Course:
    """The course's functions, whatever of them there is."""

    def __init__(self, project: Any, functions: dict[str, Callable], paraphrase: bool):
        self.project, self.functions, self.paraphrase = project, functions, paraphrase
        self.written: dict[tuple[str, str], Rows] = {}  # what test_model_multitask wrote

    def call(self, name: str, **known: Any) -> Any:
        """A function of theirs with arguments by what they are called."""
        if name not in self.functions:
            raise Absent(f"no {name}")
        function, values = self.functions[name], {}
        for argument, parameter in inspect.signature(function).parameters.items():
            match = next((v for key, v in known.items() if re.search(key, argument.lower())), Absent)
            if match is not Absent:
                values[argument] = match
            elif parameter.default is parameter.empty and parameter.kind < 2:
                raise Absent(f"{name} also wants {argument}")
        return function(**values)

    def evaluated(self, task: str) -> tuple[Rows, float]:
        """A task's rows and score out of what `model_eval_multitask` returns, in whatever order the years have it."""
        result = self.call(
            "model_eval_multitask", **{"para": batches("para"), "sts|sim": batches("sts"), "sst|sent": batches("sst")},
            model=Fake().train(), device=torch.device("cpu"),
        )  # fmt: skip
        predicted, score = None, None
        for value in result:
            listed = list(value) if isinstance(value, list | tuple | np.ndarray | Tensor) and np.ndim(value) else None
            if listed is None:
                score = value
            elif all(isinstance(v, str) for v in listed):
                if predicted is not None and set(listed) & set(ids_of(task, "dev")):
                    return list(zip(listed, [float(v) for v in predicted], strict=False)), score
            else:
                predicted = listed
        raise Absent(f"model_eval_multitask returns no ids for {task}")

    def predictions(self, task, split="dev"):
        if split == "test":
            return self.file(task, split)
        if task == "para" and not self.paraphrase:
            raise Absent("the head returns a probability")
        return rows_unscaled(task, self.evaluated(task)[0])

    def score(self, task):
        if task == "para" and not self.paraphrase:
            raise Absent("the head returns a probability")
        try:
            return float(self.evaluated(task)[1])
        except TypeError as error:
            raise Absent("no score beside the predictions") from error

    def file(self, task, split):
        if task == "para" and not self.paraphrase:
            raise Absent("the head returns a probability")
        if (task, split) in self.written:
            return self.written[task, split]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            args = SimpleNamespace(batch_size=2, use_gpu=False, hidden_dropout_prob=0.3, local_files_only=True)
            for t in TASKS:
                for s in ("dev", "test"):
                    setattr(args, f"{t}_{s}", str(write_data(folder, t, s)))
                    setattr(args, f"{t}_{s}_out", str(folder / f"{t}-{s}-out.csv"))
            self.call("test_model_multitask", args=args, model=Fake().train(), device=torch.device("cpu"))
            for t in TASKS:
                for s in ("dev", "test"):
                    self.written[t, s] = rows_unscaled(t, read_predictions(folder / f"{t}-{s}-out.csv"))
        return self.written[task, split]

    def read(self):
        with tempfile.TemporaryDirectory() as folder:
            files = {task: str(write_data(Path(folder), task, "dev")) for task in TASKS}
            found = self.call("load_multitask_data", **{"para": files["para"], "sts|simil": files["sts"],
                              "sst|sentim": files["sst"], "split": "train"})  # fmt: skip
        for rows in found:
            if isinstance(rows, list) and rows and ids_of("sts", "dev")[0] in rows[0]:
                found = [next(float(v) for v in row if isinstance(v, int | float)) for row in rows]
                return unscaled(found, LABELS["sts"])
        raise Absent("load_multitask_data returns no rows of similarity")

    def labels(self):
        if "SentencePairDataset" not in self.functions:
            raise Absent("no SentencePairDataset")
        Class = self.functions["SentencePairDataset"]
        rows = list(zip(*[[text(i, "dev") for i in range(ROWS)]] * 2, LABELS["sts"], ids_of("sts", "dev"), strict=True))
        flag = {name: True for name in inspect.signature(Class).parameters if "regression" in name.lower()}
        batch = Class(rows, SimpleNamespace(), **flag).collate_fn(rows)
        labels = (batch[0] if isinstance(batch, list) else batch)["labels"]
        return unscaled(labels.flatten().tolist(), LABELS["sts"])

    def regression(self):
        """Whether every data set of similarity is made with isRegression=True, as far as names tell."""
        Class = self.functions.get("SentencePairDataset")
        flags = inspect.signature(Class).parameters if Class else {}
        flag = next((p for p in flags.values() if "regression" in p.name.lower()), None)
        if flag is None or flag.default is True:
            raise Absent("it has no such argument")
        calls = [
            node
            for file in self.project.sources
            for node in ast.walk(parsed(file))
            if isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "SentencePairDataset"
            and node.args
            and re.search(r"(?i)sts|simil", ast.unparse(node.args[0]))
        ]
        told = [len(c.args) > 2 or any(k.arg is None or k.arg == flag.name for k in c.keywords) for c in calls]
        if not told:
            raise Absent("no data set of similarity is made")
        return all(told)

    def one(self):
        name = next((n for n in ("model_eval", "model_eval_sst") if n in self.functions), "model_eval")
        result = self.call(name, **{"data|loader": batches("sst")}, model=Fake().train(), device=torch.device("cpu"))
        for value in result if isinstance(result, tuple) else ():
            if isinstance(value, list | np.ndarray | Tensor) and len(value) == ROWS:
                return [float(v) for v in value]
        raise Absent(f"{name} returns no predictions")


NAMES = {
    "model_eval_multitask": "evaluation", "test_model_multitask": "evaluation", "model_eval_sst": "evaluation",
    "model_eval": "classifier", "load_multitask_data": "datasets", "SentencePairDataset": "datasets",
}  # fmt: skip


def find(project: Any) -> Ours | Course:
    """A package like ours, or the course's evaluation.py and datasets.py."""
    evaluation = optional(project, "evaluation", "predict", "evaluate", "write_predictions")
    data = optional(project, "data", "read_examples", "Dataset")
    if evaluation and data:
        return Ours(project, evaluation, data)
    functions = {}
    for name, file in NAMES.items():
        try:
            functions[name] = project.get(file, name)
        except Absent:
            continue
    if not functions:
        raise Absent("no model_eval_multitask, no load_multitask_data, no SentencePairDataset")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(project.root) and "BertTokenizer" in vars(module):
            module.BertTokenizer = Words
    # Where the loss takes no logits, evaluation need not either (and the part on heads says what is wrong).
    logits = says(project, r"with_logits|WithLogits", near="predict_paraphrase")
    bce = says(project, "BCELoss|binary_cross_entropy", near="predict_paraphrase")
    return Course(project, functions, logits or not bce)


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
    Probe("whether similarity's data sets are told", lambda s: torch.tensor(s.regression()),
          "The lines that make a SentencePairDataset of similarity: whether they say isRegression=True."),
    Probe("the predictions of one data set", lambda s: torch.tensor(s.one()).double(), f"{FIVE}: the classes."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

COURSE = "the course's handout, on evaluation"
EVAL = ("model_eval_multitask", "model_eval_test_multitask", "outputs")


def mistake(name: str, equation: str, why: str, *forms: Pieces, where: tuple[str, ...] = EVAL) -> Mistake:
    return Mistake(name, forms[0], why, equation, COURSE, where, also=forms[1:])


def both(piece: str, wrong: Any) -> list[Pieces]:
    """A wrong piece for dev and test sets, or for one of them."""
    return [{piece: wrong, f"test {piece}": wrong}, {piece: wrong}, {f"test {piece}": wrong}]


def longest_first(x: Tensor) -> Tensor:
    return x[sorted(range(ROWS), key=LENGTHS.__getitem__, reverse=True)]


def rolled(ids: list[str], by: int) -> list[str]:
    return ids[by:] + ids[:by]


MISTAKES = (
    mistake("dropout is on while evaluating", "ŷ = f(x) without dropout",
            "The model is still in training mode, so that its answers are noisy. Call `model.eval()` before the loop, "
            "and `model.train()` before training goes on.",
            *both("training", True)),
    mistake("classifier.py evaluates with dropout on", "ŷ = f(x) without dropout",
            "The model is still in training mode. Call `model.eval()` before the loop.",
            {"one training": True}, where=("model_eval", "model_eval_sst")),
    mistake("a sigmoid on similarity", "Pearson's r of ŷ and y, both from 0 to 5",
            "σ squeezes 0…5 into ½…1 and bends it: the correlation falls. Take the output as it is.",
            *both("sts", lambda x: x[:, 0].sigmoid()), *both("sts", lambda x: 5 * x[:, 0].sigmoid()),
            where=("predict_number", *EVAL)),
    mistake("similarity is rounded", "Pearson's r of ŷ and y, both real numbers",
            "Similarity is a real number: 2.3 is not 2. Do not round it.",
            *both("sts", lambda x: x[:, 0].round()), *both("sts", lambda x: x[:, 0].trunc()),
            *both("sts", lambda x: x[:, 0].sigmoid().round()), where=("predict_number", *EVAL)),
    mistake("paraphrase's logit is rounded without a sigmoid", "ŷ = 1 if σ(logit) > ½",
            "A logit is no probability: it says yes above 0, not above ½. Apply the sigmoid first.",
            *both("para", lambda x: x[:, 0].round()), *both("para", lambda x: (x[:, 0] > 0.5).float()),
            where=("predict_binary", *EVAL)),
    mistake("the smallest logit is taken", "ŷ = argmax_k logit_k",
            "The likeliest class has the largest logit: argmax, not argmin.",
            *both("sst", lambda x: x.argmin(dim=-1).float()), where=("predict_class", *EVAL)),
    mistake("predictions are in another order than their ids", "(id_i, ŷ_i)",
            "Batches do not come in the order of the file. Put the predictions back, or collect the ids of each batch "
            "beside its predictions.",
            {"order": longest_first}, {"order": lambda x: x.roll(1)}, {"order": lambda x: x.roll(-1)},
            {"order": lambda x: x.flip(0)}),
    mistake("ids in the file are shifted against their predictions", "(id_i, ŷ_i)",
            "Every prediction must stand beside its own id. Write both from one `zip` of lists of the same length.",
            {"file ids": lambda ids: rolled(ids, 1)}, {"file ids": lambda ids: rolled(ids, -1)},
            {"file ids": lambda ids: ids[1:]}, {"file ids": lambda ids: [str(i) for i in range(ROWS)]},
            {"file ids": lambda ids: [str(i + 1) for i in range(ROWS)]},
            where=("write_predictions", "test_model_multitask")),
    mistake("test predictions stand beside the dev set's ids", "(id_i, ŷ_i)",
            "The test file is written with the ids of the dev set. Use the ids that came with the test predictions.",
            {"test ids": "dev"}, where=("test_model_multitask", "write_predictions")),
    mistake("labels of similarity are cut to integers when they are read", "y ∈ [0, 5], real",
            "2.6 becomes 2, and a third of what there is to learn is gone. Read them with `float`.",
            {"read": lambda y: float(int(y))}, {"read": lambda y: float(round(y))},
            where=("load_multitask_data", "_label")),
    mistake("labels of similarity are cut to integers in a batch", "y ∈ [0, 5], real",
            "`torch.LongTensor` makes 2 of 2.6. Labels of similarity belong in a float tensor.",
            {"label": lambda y: float(int(y))}, {"label": lambda y: float(round(y))},
            where=("SentencePairDataset.pad_data", "Dataset.batch")),
    mistake("similarity's data set is made without isRegression=True", "y ∈ [0, 5], real",
            "Without it SentencePairDataset puts the labels into a LongTensor, which makes 2 of 2.6. Say "
            "isRegression=True for the training set as well.",
            {"regression": False}, where=("train_multitask", "SentencePairDataset.__init__")),
)  # fmt: skip

PART = Part(
    name="evaluation",
    title="evaluation and data",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
)
