"""Their evaluation and data: the course's functions, found by name and called as the course calls them; or ours."""

import ast
import inspect
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minbert.sanity.answers import Answer
from minbert.sanity.core import Absent, CannotCheck, NotWritten
from minbert.sanity.evidence import TOUCHED
from minbert.sanity.losses import losses
from minbert.sanity.models import METHODS, NUM_LABELS, build, multitask_class
from minbert.sanity.returned import as_numbers, cells, returned
from minbert.sanity.rows import (
    CLASSES,
    LABELS,
    ROWS,
    SCORES,
    TASKS,
    Fake,
    Rows,
    at_a_half,
    batches,
    ids_of,
    in_a_batch,
    read_predictions,
    rows_unscaled,
    text,
    unscaled,
    write_data,
)  # fmt: skip
from minbert.sanity.search import optional
from minbert.sanity.source import definitions, nodes
from minbert.sanity.starter import Words


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
    """The same tokenizer, with the methods that our Dataset calls."""

    def encode(self, texts: Any, *_: Any, **options: Any) -> list[list[int]]:
        return [self.convert_tokens_to_ids(t.split()) for t in texts]

    def single(self, pieces: list[int]) -> SimpleNamespace:
        return SimpleNamespace(ids=[2, *pieces, 3], first=len(pieces) + 2)

    def pad(self, rows: list[SimpleNamespace]) -> dict[str, Tensor]:
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}


class Course:
    """The course's functions, as many of them as the project has."""

    def __init__(self, project: Any, functions: dict[str, Callable], shaped: dict[str, Callable], bent: bool):
        self.project, self.functions, self.shaped, self.bent = project, functions, shaped, bent
        self.written: dict[tuple[str, str], Rows] = {}  # what test_model_multitask wrote
        self.results: Any = None  # what model_eval_multitask returned

    def call(self, name: str, **known: Any) -> Any:
        """Call a function of theirs, arguments by their names. Defaults stay, but not of model, device and split."""
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

    def _unwritten(self, name: str) -> NotWritten:
        return NotWritten(name, *self.project.place(name))

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
            raise self._unwritten("model_eval_multitask")
        lists, scores = [], []
        for value in returned(self.results, task):
            if numbers := as_numbers(value):
                lists.append(numbers)
            elif isinstance(value, list | tuple | np.ndarray | Tensor) and np.ndim(value):
                if lists and all(isinstance(v, str) for v in value) and set(value) & set(ids_of(task, "dev")):
                    others = [x for x in lists if not np.allclose(x, LABELS[task])]  # labels may stand beside them
                    predicted = (others or lists)[-1]
                    return list(zip(value, predicted, strict=False)), scores
            else:
                scores = [*([] if lists else scores), value]
                lists = []
        raise CannotCheck(
            f"model_eval_multitask returns nothing that can be told to be the predictions and ids of {task}",
            "The course's returns a score, the predictions and their ids, three values a task. In a dictionary the "
            "keys must say of which task a value is, as sst_y_pred does.",
        )

    def predictions(self, task, split="dev"):
        rows = self.file(task, split) if split == "test" else rows_unscaled(task, self.evaluated(task)[0], self.bent)
        return at_a_half(task, split, rows)

    def score(self, task):
        scores = [float(s) for s in self.evaluated(task)[1] if isinstance(s, int | float | np.number | Tensor)]
        if not scores:
            raise CannotCheck("model_eval_multitask returns no score beside the predictions")
        right = float(SCORES[task])
        accepted = [right]
        if task == "sts" and self.bent:  # the squashed predictions have a score of their own
            rows = dict(self.evaluated(task)[0])
            accepted.append(np.corrcoef([float(rows[i]) for i in ids_of(task, "dev")], LABELS[task])[0, 1])
        return right if any(abs(s - a) < 1e-4 for s in scores for a in accepted) else scores[-1]

    def file(self, task, split):
        if (task, split) not in self.written:
            self._write()
        return at_a_half(task, split, self.written[task, split])

    def _write(self):
        """Let test_model_multitask write its files, and read them."""
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

    def _rows(self) -> list | None:
        """The rows of similarity that load_multitask_data makes of a file; None where it returns no such rows."""
        with tempfile.TemporaryDirectory() as folder:
            files = {task: str(write_data(Path(folder), task, "dev")) for task in TASKS}
            result = self.call("load_multitask_data", **{"para|quora": files["para"], "sts|simil": files["sts"],
                               "sst|sentim": files["sst"], "split": "train"})  # fmt: skip
        if result is None:
            raise self._unwritten("load_multitask_data")
        lists = result.values() if isinstance(result, dict) else result
        return next((r for r in lists if isinstance(r, list) and r and ids_of("sts", "dev")[0] in cells(r[0])), None)

    def read(self):
        TOUCHED.clear()  # earlier results are not used here
        ids, labels = ids_of("sts", "dev"), {}
        if (rows := self._rows()) is None:
            raise CannotCheck("load_multitask_data returns no rows that hold the ids of similarity")
        for row in map(cells, rows):  # those of a set that was made larger may come more than once
            numbers = [float(v) for v in row if isinstance(v, int | float)]
            labels.setdefault(next((str(v) for v in row if v in ids), ""), numbers[0] if numbers else np.nan)
        return unscaled([v for id, v in labels.items() if id in ids], LABELS["sts"])

    def labels(self, regression: bool = True):
        if "SentencePairDataset" not in self.functions:
            raise Absent("no SentencePairDataset")
        TOUCHED.clear()
        Class = self.functions["SentencePairDataset"]
        rows = list(zip(*[[text(i, "dev") for i in range(ROWS)]] * 2, LABELS["sts"], ids_of("sts", "dev"), strict=True))
        flag = {name: regression for name in inspect.signature(Class).parameters if "regression" in name.lower()}
        try:
            batch = in_a_batch(self.project, Class, rows, **flag)
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            if (own := self._rows()) is None:
                raise CannotCheck(
                    f"SentencePairDataset does not take the course's rows, and the check finds none of yours ({error})",
                    "The course's load_multitask_data returns them, (sentence, sentence, label, id) each.",
                ) from None
            if rows[0] == own[0]:
                raise
            batch = in_a_batch(self.project, Class, own, **flag)
        if not isinstance(batch, dict) or "labels" not in batch:
            raise CannotCheck("SentencePairDataset makes batches without the key 'labels'")
        return unscaled(batch["labels"].flatten().tolist(), LABELS["sts"])

    def regression(self):
        """Whether every data set of similarity is made with isRegression=True, as far as names tell, or needs none."""
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
        return all(told) or self.labels(regression=False) == list(LABELS["sts"])

    def one(self):
        TOUCHED.clear()
        name = next((n for n in ("model_eval", "model_eval_sst") if n in self.functions), "model_eval")
        file = self.project.root / self.project.judged[name] if name in self.project.judged else None
        sets = [n.rpartition(".")[0] for n, _ in definitions(file) if n.endswith(".collate_fn")] if file else []
        loader = batches(self.project, "sst", sets[0] if sets else "")
        result = self.call(name, **{"data|loader": loader}, model=Fake().train(), device=torch.device("cpu"))
        if result is None:
            raise self._unwritten(name)
        lists = []
        for value in result if isinstance(result, tuple | list) else ():
            if isinstance(value, list | np.ndarray | Tensor) and len(value) == ROWS:
                with suppress(TypeError, ValueError):
                    lists.append([float(v) for v in value])
        labels, right = list(LABELS["sst"]), CLASSES
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
    """{task: function that gives the fake outputs the form of their model's}, for tasks that can be asked."""
    shaped: dict[str, Callable[[Tensor], Any]] = {}
    before = len(project.notes)
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0], [2, 6, 5, 3]])
    inputs = (ids, (ids != 0).long()) * 2
    try:
        module = build(project, multitask_class(project), (NUM_LABELS, 5)).eval()
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
