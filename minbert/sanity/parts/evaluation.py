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
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Mistake, Part, Pieces, Probe
from minbert.sanity.evidence import NoAttribute
from minbert.sanity.losses import losses
from minbert.sanity.models import LABELS as CLASSES
from minbert.sanity.models import METHODS, Answer, Batch, batch_of, build, multitask_class
from minbert.sanity.search import optional
from minbert.sanity.source import definitions, is_magic, nodes
from minbert.sanity.standins import Words

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
    "correlation": lambda x, y: np.corrcoef(x, y)[0, 1],
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
    """A model as the course's functions and ours call it. shaped: {task: what gives an output theirs's form}."""

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
            f"evaluation asks the model for `{name}`, and the check's stand-in for it has the predict_… methods alone"
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
        return self.data.Dataset(self.tasks[task], examples, OurWords())

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


class OurWords(Words):
    """The same as our Dataset asks it."""

    def encode(self, texts: Any, *_: Any, **options: Any) -> list[list[int]]:
        return [self.convert_tokens_to_ids(t.split()) for t in texts]

    def single(self, pieces: list[int]) -> SimpleNamespace:
        return SimpleNamespace(ids=[2, *pieces, 3], first=len(pieces) + 2)

    def pad(self, rows: list[SimpleNamespace]) -> dict[str, Tensor]:
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}


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
        raise NoAttribute(f"evaluation asks a data loader for `{name}`, and the check's stand-in for it has none")


def batches(project: Any, task: str, of: str = "") -> Loader:
    """A dev set as the starter's data loaders give it, three examples and two; with what their own batches add.

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
        batch = project.get("datasets", name)(data, project.flags()).collate_fn(data)
        return batch[0] if isinstance(batch, list) and len(batch) == 1 else batch
    return None


def unscaled(found: list[float], numbers: tuple[float, ...]) -> list[float]:
    """These numbers where what was found is a·number + b with a > 0: a scale is free, cutting to integers is not."""
    x, y = np.array(numbers), np.array(found)
    if len(x) != len(y):
        return found
    low, high = x.argmin(), x.argmax()
    a = (y[high] - y[low]) / (x[high] - x[low])
    return list(numbers) if a > 1e-3 and np.allclose(y, y[low] + a * (x - x[low]), atol=1e-4 * a) else found


def rows_unscaled(task: str, rows: Rows, bent: bool) -> Rows:
    """Similarity's rows, sorted by id, as if they were on the labels' scale. bent: as training bends outputs too."""
    if task != "sts":
        return rows
    rows = sorted(rows, key=lambda row: float(row[0]))
    found = [float(value) for _, value in rows]
    rising = bent and len(found) == ROWS and np.argsort(found).tolist() == np.argsort(NUMBERS).tolist()
    return list(zip([id for id, _ in rows], NUMBERS if rising else unscaled(found, NUMBERS), strict=True))


class Course:
    """The course's functions, whatever of them there is."""

    def __init__(self, project: Any, functions: dict[str, Callable], shaped: dict[str, Callable], bent: bool):
        self.project, self.functions, self.shaped, self.bent = project, functions, shaped, bent
        self.written: dict[tuple[str, str], Rows] = {}  # what test_model_multitask wrote
        self.results: Any = None  # what model_eval_multitask returned

    def call(self, name: str, **known: Any) -> Any:
        """A function of theirs with arguments by what they are called; what has a default keeps it."""
        if name not in self.functions:
            raise Absent(f"no {name}")
        function, values = self.functions[name], {}
        known |= {"^(arg|opt|param|flag|hparam|config|cfg)": known.get("args", self.project.flags()),
                  "tokenizer": Words()}  # fmt: skip
        parameters = inspect.signature(function).parameters.values()
        needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for parameter in [*needed, *(p for p in parameters if p.name in ("model", "device", "split"))]:
            match = next((v for key, v in known.items() if re.search(key, parameter.name.lower())), Absent)
            if match is Absent:
                raise CannotCheck(
                    f"{name} also takes `{parameter.name}`, which the course's does not",
                    f"Give `{parameter.name}` a default.",
                )
            values[parameter.name] = match
        positional = [values.pop(p.name) for p in needed if p.kind is p.POSITIONAL_ONLY]
        return function(*positional, **values)

    def model(self) -> Fake:
        return Fake(self.shaped).train()

    def evaluated(self, task: str) -> tuple[Rows, list[float]]:
        """A task's rows and scores out of what `model_eval_multitask` returns, in whatever order the years have it."""
        if self.results is None:
            loaders = {"para|quora": "para", "sts|sim": "sts", "sst|sent": "sst"}
            self.results = self.call(
                "model_eval_multitask", **{key: batches(self.project, t) for key, t in loaders.items()},
                model=self.model(), device=torch.device("cpu"),
            )  # fmt: skip
        if self.results is None:
            raise NotImplementedError("model_eval_multitask")
        predicted, scores = None, []
        for value in self.results if isinstance(self.results, tuple | list) else ():
            listed = list(value) if isinstance(value, list | tuple | np.ndarray | Tensor) and np.ndim(value) else None
            if listed is None:
                scores = [*(scores if predicted is None else ()), value]
                predicted = None
            elif all(isinstance(v, str) for v in listed):
                if predicted is not None and set(listed) & set(ids_of(task, "dev")):
                    return list(zip(listed, [float(v) for v in predicted], strict=False)), scores
            else:
                predicted = listed
        raise CannotCheck(
            f"model_eval_multitask returns nothing that can be told to be the predictions and ids of {task}",
            "The course's returns a score, the predictions and their ids, three values a task.",
        )

    def predictions(self, task, split="dev"):
        if split == "test":
            return self.file(task, split)
        return rows_unscaled(task, self.evaluated(task)[0], self.bent)

    def score(self, task):
        scores = [float(s) for s in self.evaluated(task)[1] if isinstance(s, int | float | np.number | Tensor)]
        if not scores:
            raise CannotCheck("model_eval_multitask returns no score beside the predictions")
        right = float(Reference(RIGHT).score(task))
        accepted = [right]
        if task == "sts" and self.bent:  # as bent as the predictions are
            rows = dict(self.evaluated(task)[0])
            accepted.append(np.corrcoef([float(rows[i]) for i in ids_of(task, "dev")], LABELS[task])[0, 1])
        return right if any(abs(s - a) < 1e-4 for s in scores for a in accepted) else scores[-1]

    def file(self, task, split):
        if (task, split) in self.written:
            return self.written[task, split]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            args = self.project.flags()
            for t in TASKS:
                for s in ("dev", "test"):
                    setattr(args, f"{t}_{s}", str(write_data(folder, t, s)))
                    setattr(args, f"{t}_{s}_out", str(folder / f"{t}-{s}-out.csv"))
            self.call("test_model_multitask", args=args, model=self.model(), device=torch.device("cpu"))
            for t in TASKS:
                for s in ("dev", "test"):
                    self.written[t, s] = rows_unscaled(t, read_predictions(folder / f"{t}-{s}-out.csv"), self.bent)
        return self.written[task, split]

    def read(self):
        with tempfile.TemporaryDirectory() as folder:
            files = {task: str(write_data(Path(folder), task, "dev")) for task in TASKS}
            found = self.call("load_multitask_data", **{"para|quora": files["para"], "sts|simil": files["sts"],
                              "sst|sentim": files["sst"], "split": "train"})  # fmt: skip
        if found is None:
            raise NotImplementedError("load_multitask_data")
        ids = ids_of("sts", "dev")
        for rows in found:  # those of a set that was made larger may come more than once
            if isinstance(rows, list) and rows and isinstance(rows[0], tuple | list) and ids[0] in rows[0]:
                labels: dict[str, float] = {}
                for row in rows:
                    numbers = [float(v) for v in row if isinstance(v, int | float)]
                    labels.setdefault(next((str(v) for v in row if v in ids), ""), numbers[0] if numbers else np.nan)
                return unscaled([v for id, v in labels.items() if id in ids], LABELS["sts"])
        raise CannotCheck("load_multitask_data returns no rows that hold the ids of similarity")

    def labels(self):
        if "SentencePairDataset" not in self.functions:
            raise Absent("no SentencePairDataset")
        Class = self.functions["SentencePairDataset"]
        rows = list(zip(*[[text(i, "dev") for i in range(ROWS)]] * 2, LABELS["sts"], ids_of("sts", "dev"), strict=True))
        flag = {name: True for name in inspect.signature(Class).parameters if "regression" in name.lower()}
        batch = Class(rows, self.project.flags(), **flag).collate_fn(rows)
        batch = batch[0] if isinstance(batch, list) and batch else batch
        if not isinstance(batch, dict) or "labels" not in batch:
            raise CannotCheck("SentencePairDataset makes batches without the key 'labels'")
        return unscaled(batch["labels"].flatten().tolist(), LABELS["sts"])

    def regression(self):
        """Whether every data set of similarity is made with isRegression=True, as far as names tell."""
        Class = self.functions.get("SentencePairDataset")
        flags = inspect.signature(Class).parameters if Class else {}
        flag = next((p for p in flags.values() if "regression" in p.name.lower()), None)
        if flag is None or flag.default is True:
            raise Absent("it has no such argument")
        calls = [
            node
            for file in self.project.imports.reached or self.project.sources
            for node in nodes(file)
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
        file = self.project.root / self.project.judged[name] if name in self.project.judged else None
        sets = [n.rpartition(".")[0] for n, _ in definitions(file) if n.endswith(".collate_fn")] if file else []
        loader = batches(self.project, "sst", sets[0] if sets else "")
        result = self.call(name, **{"data|loader": loader}, model=Fake().train(), device=torch.device("cpu"))
        if result is None:
            raise NotImplementedError(name)
        lists = []
        for value in result if isinstance(result, tuple | list) else ():
            if isinstance(value, list | np.ndarray | Tensor) and len(value) == ROWS:
                with suppress(TypeError, ValueError):
                    lists.append([float(v) for v in value])
        labels, right = list(LABELS["sst"]), Reference(RIGHT).one()
        if lists:  # the labels may come first
            return next((x for x in lists if x == right), next((x for x in lists if x != labels), lists[0]))
        raise CannotCheck(f"{name} returns no list of {ROWS} predictions for {ROWS} sentences")


NAMES = {
    "model_eval_multitask": "evaluation", "test_model_multitask": "evaluation", "model_eval_sst": "evaluation",
    "model_eval": "classifier", "load_multitask_data": "datasets", "SentencePairDataset": "datasets",
}  # fmt: skip


def find(project: Any) -> Ours | Course:
    """A package like ours, or the course's evaluation.py and datasets.py."""
    project.real.add("pandas")  # it reads the files
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
    own = [n for f in project.sources for n, node in definitions(f) if isinstance(node, ast.ClassDef)
           and any("Dataset" in ast.unparse(base) for base in node.bases)]  # fmt: skip
    if own and "SentencePairDataset" not in functions and "model_eval_multitask" in functions:
        reason = f"its data sets ({', '.join(own[:3])}) are its own, and so may its batches be"
        project.notes.append(CannotCheck(reason))
    read = losses(project)
    bent = any(loss.task == "sts" and loss.done & {"sigmoid", "Sigmoid", "tanh", "Tanh"} for loss in read)
    return Course(project, functions, shapes(project, read), bent)


def shapes(project: Any, read: list) -> dict[str, Callable[[Tensor], Any]]:
    """How the outputs of their model look, where they look otherwise than the course's: {task: function}."""
    shaped: dict[str, Callable[[Tensor], Any]] = {}
    before = len(project.notes)
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0], [2, 6, 5, 3]])
    inputs = (ids, (ids != 0).long()) * 2
    try:
        module = build(project, multitask_class(project), (CLASSES, 5)).eval()
    except Exception:  # absent, or still to be written
        return shaped
    for task, name in METHODS.items():
        with suppress(Exception), torch.no_grad():
            answer = Answer(project, getattr(module, name), task != "sst")
            found = answer(*inputs[: 2 if task == "sst" else 4])
            probable = task == "para" and any(
                loss.task == "para" and loss.kind == "bce" and not loss.done & {"sigmoid", "Sigmoid"} for loss in read
            )
            shaped[task] = lambda x, t=task, a=answer, f=found, p=probable: _like(t, x.sigmoid() if p else x, f, a)
    del project.notes[before:]  # what was guessed on the way changes no shape
    return shaped


def _like(task: str, x: Tensor, found: Tensor, answer: Answer) -> Any:
    """The fake outputs x, (B, 5) or (B, 1), in the form of theirs."""
    columns = found.numel() // 3
    if task == "para" and columns == 2:
        x = torch.cat([-x / 2, x / 2], dim=-1)
    if x.shape[1] != columns:
        raise CannotCheck(f"{METHODS[task]} gives {columns} numbers for an example, the course's {x.shape[1]}")
    x = x.flatten() if found.dim() == 1 else x
    if isinstance(answer.output, tuple):
        return (x, *answer.output[1:])
    if isinstance(answer.output, dict):
        key = "logits" if "logits" in answer.output else next(iter(answer.output))
        return answer.output | {key: x}
    return x


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


def ranked(x: np.ndarray, y: np.ndarray) -> float:
    return np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]


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
    mistake("similarity is scored by ranks (Spearman), not by Pearson's r", "r = cov(ŷ, y)/(σ_ŷ·σ_y)",
            "The course's score of similarity is Pearson's correlation: `np.corrcoef(ŷ, y)[0, 1]`.",
            {"correlation": ranked}),
    mistake("a second sigmoid on paraphrase", "ŷ = 1 if p > ½",
            "The head gives a probability already, which the loss takes as one: σ of it is above ½ always, and every "
            "pair is called a paraphrase. Round the probability itself.",
            *both("para", lambda x: x[:, 0].sigmoid().sigmoid().round())),
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
    owns=tuple(NAMES),
)
