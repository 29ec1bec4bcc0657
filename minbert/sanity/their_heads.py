"""Their heads: the models that are probed, how their training uses the outputs, and what therefore can be wrong."""

import ast
import copy
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from minbert.sanity import losses
from minbert.sanity.answers import Answer
from minbert.sanity.core import Absent, CannotCheck, seeded
from minbert.sanity.models import METHODS, NUM_LABELS, build, little, multitask_class, single_class
from minbert.sanity.rows import their_batch
from minbert.sanity.search import optional, says
from minbert.sanity.source import parsed

IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0], [2, 12, 13, 3, 0], [2, 5, 16, 6, 3]])  # pads are 0
OTHERS = torch.tensor([[2, 14, 3, 0, 0], [2, 8, 15, 17, 3], [2, 13, 3, 0, 0], [2, 5, 16, 11, 3]])
ALL = {"sentiment", "paraphrase", "similarity", "classifier"}  # what can be called wrong, if all is known


class Model:
    """A module and what it predicts. answers: {task: function of (ids, mask) or of (ids, mask, ids, mask)}.

    inside: the BERTs in it, whose weights stay as they are. read: the ids that they were given, oldest first.
    """

    def __init__(
        self, module: nn.Module, answers: dict[str, Callable], inside: Iterable[nn.Module] = (), read: Any = None
    ):
        self.module, self.inside, self.read = module.eval(), list(inside), read
        self.answers: dict[str, Callable] = {}
        self.failed: dict[str, Exception] = {}  # why a task cannot be asked
        self._filled: tuple = ()
        self._known: dict[tuple, Tensor] = {}
        self._of_bert: dict[tuple, Any] = {}  # what the BERTs gave, while weights of other parts are changed
        self._inputs: Any = None  # of the answer that is being made, if its BERTs may be asked but once
        for bert in self.inside:
            bert.forward = self._once(bert.forward)
        for task, answer in answers.items():
            try:
                self.answers[task] = answer() if isinstance(answer, Ask) else answer
                self.outputs(tasks=(task,))
            except Exception as error:
                self.failed[task] = error
                self.answers.pop(task, None)

    def _once(self, forward: Callable) -> Callable:
        """BERT's `forward`, asked once for an answer with the same inputs, whatever the weights of the head are."""

        def known(*args: Any, **options: Any) -> Any:
            if self._inputs is None:
                return forward(*args, **options)
            self._calls += 1
            key = *self._inputs, self._calls
            if key not in self._of_bert:
                self._of_bert[key] = forward(*args, **options)
            return copy.deepcopy(self._of_bert[key])

        return known

    def can(self, task: str) -> bool:
        """True if a task can be asked; else raises the reason."""
        if task in self.failed:
            raise self.failed[task]
        if task not in self.answers:
            raise Absent(f"no {METHODS.get(task, task)}")
        return True

    def own(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that are not BERT's."""
        of_bert = {id(p) for bert in self.inside for p in bert.parameters()}
        named = self.module.named_parameters()
        return (
            (n, p) for n, p in named if id(p) not in of_bert and not n.startswith("words") and p.is_floating_point()
        )

    @torch.no_grad()
    def outputs(
        self, ids: Tensor = IDS, others: Tensor = OTHERS, seed: int = 0, scale: float = 0.3,
        shown: tuple[int, int] = (99, 99), tasks: Iterable[str] | None = None, again: bool = False,
        training: bool = False,
    ) -> dict[str, Tensor]:  # fmt: skip
        """What it predicts in evaluation, (B, ·) each, with seeded numbers for all that is not BERT.

        shown: how many tokens of the first and of the second sentences the masks show. Known outputs are computed again
        only with `again`. training: what it gives in training instead.
        """
        inputs = seed, scale, shown, str(ids.tolist()), str(others.tolist()), training
        wanted = [t for t in tasks or self.answers if again or (t, inputs) not in self._known]
        if wanted:
            self.module.train(training)
            try:
                results = self._outputs(ids, others, seed, scale, shown, wanted, again)
            finally:
                self.module.eval()
            self._known |= {(task, inputs): value for task, value in results.items()}
        return {task: self._known[task, inputs] for task in tasks or self.answers}

    def _outputs(
        self, ids: Tensor, others: Tensor, seed: int, scale: float, shown: tuple[int, int], tasks: Iterable[str],
        again: bool,
    ) -> dict[str, Tensor]:  # fmt: skip
        if self._filled != (seed, scale):
            for name, p in self.own():
                numbers = seeded(f"{name} {seed}", min(p.numel(), 1 << 18), scale=scale)
                p.copy_(numbers.repeat(-(-p.numel() // len(numbers)))[: p.numel()].reshape(p.shape))
            self._filled = seed, scale
        masks = [((x != 0) & (torch.arange(x.shape[1]) < n)).long() for x, n in zip((ids, others), shown, strict=True)]
        two = [ids, masks[0], others, masks[1]]
        results = {}
        for task in tasks:
            known = task, shown, str(ids.tolist()), str(others.tolist()), self.module.training
            self._inputs, self._calls = None if again else known, 0
            value = self.answers[task](*(two if task in ("para", "sts") else two[:2]))
            if value is None:
                raise NotImplementedError(task)
            if value.numel() % len(ids):
                raise CannotCheck(f"{METHODS.get(task, 'forward')} gives {tuple(value.shape)} for {len(ids)} examples")
            results[task] = value.float().reshape(len(ids), -1)
        self._inputs = None
        return results

    def in_training(self, task: str) -> Tensor:
        """What it gives in training, in the shape in which it gives it."""
        self.module.train()
        try:
            masks = [(x != 0).long() for x in (IDS, OTHERS)]
            two = [IDS, masks[0], OTHERS, masks[1]]
            return self.answers[task](*(two if task in ("para", "sts") else two[:2]))
        finally:
            self.module.eval()


class Ask:
    """Makes an answer only when it is called, so that a failure of one does not hide the others."""

    def __init__(self, make: Callable[[], Callable]):
        self.make = make

    def __call__(self) -> Callable:
        return self.make()


class Subject:
    """What is asked. models: with all three heads, or why there are none. classifier: classifier.py's, or why not.

    losses: of the tasks, as functions. facts: what is read from the source, {name: value or function}.
    decided: which of "sentiment", "paraphrase", "two logits" (of it), "similarity" and "classifier" can be called wrong
    at all, because the rest of the code does take logits, or does compare with labels up to 5.
    """

    def __init__(
        self, models: list[Model] | Exception, classifier: Model | Exception, losses: dict[str, Callable] | None,
        decided: set[str], facts: dict[str, Any] | None = None, places: dict | None = None,
    ):  # fmt: skip
        self.models, self.classifier, self.losses, self.decided = models, classifier, losses, decided
        self.facts, self.places = facts or {}, places or {}

    def three(self) -> list[Model]:
        if isinstance(self.models, Exception):
            raise self.models
        return self.models

    def able(self, *tasks: str) -> list[tuple[Model, str]]:
        """(model, task) of each task that can be asked; if none can, raises the reason."""
        pairs = [(m, task) for m in self.three() for task in tasks if task in m.answers]
        if not pairs:
            for model in self.three():
                model.can(next((task for task in tasks if task in model.failed), tasks[0]))
        return pairs

    def single(self) -> Model:
        if isinstance(self.classifier, Exception):
            raise self.classifier
        self.classifier.can("one")
        return self.classifier

    def fact(self, name: str) -> bool:
        if name not in self.facts:
            raise Absent("no training loop")
        fact = self.facts[name]
        return bool(fact() if callable(fact) else fact)


def within(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x >= low - 1e-4) & (x <= high + 1e-4)


OF_LABELS = r"(?i)label|score|target|similar|(\b|_)(sim|sts|cos)(\b|_)|\by(\b|_)|cosine"
NO_LABELS = r"(?i)loss|entropy|criterion|\blen\(|num_label|accuracy|f1|corr|pearson|attention|attn"
BY_FIVE = r"[/*]=?\s*5\b|(?<![-.\w])5(\.0*)?\s*\*|\*\s*0?\.2\b|(?<![\w])0?\.2\s*\*|[Cc]osine_?[Ee]mbedding"


def rescaled(project: Any) -> bool:
    """Whether anything of theirs may bring labels and outputs of similarity to one scale, as far as names tell.

    predict_similarity is left out, because its outputs are looked at, and so is attention.
    """

    def operands(node: ast.AST) -> tuple:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult | ast.Sub):
            return node.left, node.right
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div | ast.Mult | ast.Sub):
            return node.target, node.value
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Attribute) and call.attr.rstrip("_") in ("div", "mul", "sub", "true_divide"):
            return call.value, *node.args
        return ()

    def constant(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())

    def counts(node: ast.AST) -> bool:
        sides = operands(node)
        texts = [ast.unparse(side) for side in sides]
        if any(re.search(OF_LABELS, text) and not re.search(NO_LABELS, text) for text in texts):
            return True
        return any("float(" in text for text in texts) and any(constant(side) for side in sides)

    def search(node: ast.AST) -> bool:
        name = getattr(node, "name", None) or ""
        if name == "predict_similarity" or "attention" in name.lower():
            return False
        return counts(node) or any(search(below) for below in ast.iter_child_nodes(node))

    files = [f for f in project.sources if re.search("(?i)sts|similarity", f.read_text("utf-8", errors="replace"))]
    return says(project, BY_FIVE, near="similarity") or any(search(parsed(file)) for file in files)


def find(project: Any) -> Subject:
    """A package like ours, or the course's MultitaskBERT and its classifier, which CMU calls BertSentClassifier."""
    if heads := optional(project, "heads", "PAIR_HEADS"):
        return ours(project, heads)
    read = losses.losses(project)
    models: list[Model] | Exception
    try:
        cls = multitask_class(project)
        module = build(project, cls, (NUM_LABELS, 5))
        answers = {
            task: Ask(lambda name=name, task=task: Answer(project, getattr(module, name), task != "sst"))
            for task, name in METHODS.items()
            if callable(getattr(module, name, None))
        }
        models = [Model(module, answers, project.berts, project.read)]
    except Exception as error:
        models = error
    classifier: Model | Exception
    try:
        one = build(project, single_class(project), (5, NUM_LABELS))
        ask = Ask(lambda: Answer(project, one.forward, False))
        classifier = Model(one, {"one": ask}, project.berts)
    except Exception as error:
        classifier = error
    if isinstance(models, Absent) and isinstance(classifier, Absent):
        raise Absent("no MultitaskBERT and no BertSentimentClassifier or BertSentClassifier")
    subject = Subject(models, classifier, losses.as_functions(read), decided(project, read))
    subject.facts, subject.places = facts(project, read, subject)
    return subject


def decided(project: Any, read: list[losses.Loss]) -> set[str]:
    """What of the heads can be called wrong, because the losses that their training applies are known."""

    def kinds(task: str, near: str) -> set[str]:
        known = {loss.kind for loss in read if loss.task == task and loss.done <= losses.NO_LOGS}
        if known or any(loss.task == task for loss in read):
            return known
        texts = {
            "ce": r"cross_entropy\(|CrossEntropyLoss",
            "logits": "with_logits|WithLogits",
            "mse": "mse_loss|MSELoss",
        }
        if says(project, r"nll_loss|NLLLoss|\.log\(", near=near):
            del texts["ce"]
        return {kind for kind, text in texts.items() if says(project, text, near=near)}

    result = set()
    if "ce" in kinds("sst", "predict_sentiment"):
        result.add("sentiment")
    if any(loss.kind == "ce" and loss.task == "para" and loss.done <= losses.NO_LOGS for loss in read):
        result.add("two logits")
    if "ce" in kinds("one", "class BertSent"):
        result.add("classifier")
    of_a_probability = any(loss.task == "para" and loss.kind == "bce" for loss in read)
    evaluated = says(project, "sigmoid", near="def model_eval") and not of_a_probability
    if "logits" in kinds("para", "predict_paraphrase") or evaluated:
        result.add("paraphrase")
    if kinds("sts", "predict_similarity") & {"mse", "l1"} and not rescaled(project):
        result.add("similarity")
    return result


def facts(project: Any, read: list[losses.Loss], subject: Subject) -> tuple[dict[str, Any], dict[str, tuple[str, int]]]:
    """What the source says, and, with it, what the outputs are: {fact: value or function}, {mistake: place}."""
    found = losses.facts(project, read)
    values: dict[str, Any] = {name: place is not None for name, place in found.items()}
    places = {name: place for name, place in found.items() if place and place[0]}

    def outputs(task: str) -> Tensor:
        model = subject.single() if task == "one" else subject.able(task)[0][0]
        return model.outputs(tasks=(task,), training=True)[task]

    def unlike(kind: str, near: dict[str, str], like: Callable[[Tensor], Tensor]) -> Any:
        """Whether a loss gets what it does not take. near: {task: text in its file}, if no loss has a task."""
        text, unless = losses.FITS[kind]
        wrong = [loss for loss in read if loss.kind == kind and loss.task in near and loss.done <= losses.AS_IS]
        tasks = [loss.task for loss in wrong]
        if not any(loss.task in near for loss in read):
            tasks += [t for t, n in near.items() if says(project, text, near=n) and not says(project, unless, near=n)]
        if wrong:
            places[losses.OF_KIND[kind]] = wrong[0].place
        return lambda: any(not bool(like(outputs(task)).all()) for task in tasks)

    one, sst, para = {"one": "class BertSent"}, {"sst": "predict_sentiment"}, {"para": "predict_paraphrase"}
    nll = [unlike("nll", near, lambda x: x.logsumexp(-1).abs() < 1e-3) for near in (one, sst)]
    values[losses.NLL] = lambda: any([wrong() for wrong in nll])
    values[losses.BCE] = unlike("bce", para, within(0, 1))
    pairwise = list(losses.of_every_pair(project, read))
    if pairwise:
        places[losses.EVERY] = pairwise[0].place
    values[losses.EVERY] = lambda: any(_one_each(project, subject, loss.task) for loss in pairwise)
    return values, places


def _one_each(project: Any, subject: Subject, task: str) -> bool:
    """Whether a task's outputs are (B, 1), and the labels of its batches (B,)."""
    model = subject.able(task)[0][0]
    batch = their_batch(project, task, range(3), "SentencePairDataset")
    labels = batch.get("labels") if isinstance(batch, dict) else None
    if getattr(labels, "shape", None) != (3,):
        return False
    return model.in_training(task).shape == (len(IDS), 1)


def ours(project: Any, heads: Any) -> Subject:
    """A package like ours: a model for every head, with either pooling."""
    MultitaskBert, Batch = project.get("multitask", "MultitaskBert"), project.get("data", "Batch")
    TASKS = project.get("tasks", "TASKS")
    models = []
    pairs = zip_longest(*(heads.PAIR_HEADS[TASKS[task].kind] for task in ("para", "sts")))
    for i, (para, sts) in enumerate(pairs):
        chosen = {task: head for task, head in (("para", para), ("sts", sts)) if head}
        bert = little(16, 2)
        model = MultitaskBert(bert, ("sst", "para", "sts"), pooling=("mean", "cls")[i % 2], heads=chosen)

        def predict(task, *inputs, model=model):
            ids, mask = torch.cat(inputs[::2]), torch.cat(inputs[1::2])
            return model(Batch(task, list(range(len(inputs[0]))), ids, mask, torch.zeros_like(ids), None))

        answers = {t: lambda *x, t=t, f=predict: f(t, *x) for t in ("sst", "para", "sts")}
        models.append(Model(model, answers, [bert]))
    functions = {  # with a float label for every example
        "sst": TASKS["sst"].loss,
        "para": lambda logit, label: TASKS["para"].loss(logit[:, None], label),
        "sts": lambda number, label: TASKS["sts"].loss(number[:, None], label),
    }
    return Subject(models, Absent("the same model for all"), functions, ALL)
