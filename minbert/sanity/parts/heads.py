"""The heads, in pieces: from sentence vectors to sentiment, paraphrase and similarity, and to their losses.

    sentiment    5 logits; the loss adds the softmax                 cross-entropy = -log softmax(logits)_label
    paraphrase   1 logit; loss and evaluation add the sigmoid        BCE-with-logits = -log σ(±logit)
    similarity   1 number on the labels' scale, 0…5                  5·cos(u, v), or whatever reaches 5

How a head is built is free. So what is looked at is not its numbers but what must hold of any right one, with seeded
weights in it, on top of a little BERT that stands in for the pretrained one. What cannot be decided without knowing
how the outputs are used (a probability is no fault if nobody applies another sigmoid) is read from the source.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.sanity import losses
from minbert.sanity.core import DROPPED, Absent, CannotCheck, Mistake, Part, Pieces, Probe, seeded
from minbert.sanity.models import LABELS, METHODS, SINGLE, Answer, build, little, multitask_class, single_class
from minbert.sanity.search import optional, says
from minbert.sanity.source import parsed

IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0], [2, 12, 13, 3, 0], [2, 5, 16, 6, 3]])  # pads are 0
OTHERS = torch.tensor([[2, 14, 3, 0, 0], [2, 8, 15, 17, 3], [2, 13, 3, 0, 0], [2, 5, 16, 11, 3]])
SEEDS = range(3)
SCALES = (0.3, 0.02)  # of seeded weights: a probability near 1 hides much, small weights do not

# ------------------------------------------------------------------------------------------------ the right pieces


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens' vectors, pads not counted: (B, T, C), (B, T) → (B, C)."""
    mask = mask[:, :, None].to(tokens.dtype)
    return (tokens * mask).sum(dim=1) / mask.sum(dim=1)


RIGHT = {
    "pool": mean_pool,
    "sentiment": lambda logits: logits,
    "paraphrase": lambda logit: logit,
    "similarity": lambda cosine: 5 * cosine,
    "second": lambda u, v: v,
    "second mask": lambda first, second: second,
    "dropout": lambda x, training: F.dropout(x, 0.3, training),
    "batch": lambda x: x,  # every example by itself
    "classifier": lambda logits: logits,  # classifier.py's, for one data set
    "classifier dropout": lambda x, training: F.dropout(x, 0.3, training),
    **dict.fromkeys(losses.FACTS, False),  # what is read from the source
    "gradient": lambda x: x,
    "sst loss": F.cross_entropy,
    "para loss": F.binary_cross_entropy_with_logits,
    "sts loss": F.mse_loss,
}


class RightModel(nn.Module):
    """Three heads on word vectors, of these pieces."""

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.p = pieces
        self.words = nn.Embedding.from_pretrained(seeded("words", 20, 12), freeze=False)
        self.sentiments, self.same, self.labels = nn.Linear(12, 5), nn.Linear(24, 1), nn.Linear(12, 5)

    def vector(self, ids: Tensor, mask: Tensor) -> Tensor:
        p = self.p
        return p["dropout"](p["batch"](p["pool"](self.words(ids), mask)), self.training)

    def sst(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.p["gradient"](self.p["sentiment"](self.sentiments(self.vector(ids, mask))))

    def pair(self, ids: Tensor, mask: Tensor, ids2: Tensor, mask2: Tensor) -> tuple[Tensor, Tensor]:
        u, mask2 = self.vector(ids, mask), self.p["second mask"](mask, mask2)
        return u, self.p["second"](u, self.vector(ids2, mask2))

    def para(self, *inputs: Tensor) -> Tensor:
        return self.p["gradient"](self.p["paraphrase"](self.same(torch.cat(self.pair(*inputs), dim=-1))))

    def sts(self, *inputs: Tensor) -> Tensor:
        return self.p["gradient"](self.p["similarity"](F.cosine_similarity(*self.pair(*inputs), dim=-1)))

    def one(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.p["classifier dropout"](mean_pool(self.words(ids), mask), self.training)
        return self.p["classifier"](self.labels(x))


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
        for task, answer in answers.items():
            try:
                self.answers[task] = answer() if isinstance(answer, Ask) else answer
                self.outputs(tasks=(task,))
            except Exception as error:
                self.failed[task] = error
                self.answers.pop(task, None)

    def can(self, task: str) -> bool:
        """Whether a task can be asked; raises why not."""
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
    ) -> dict[str, Tensor]:  # fmt: skip
        """What it predicts in evaluation, (B, ·) each, with seeded numbers for all that is not BERT.

        shown: how many tokens of the first and of the second sentences their masks let be seen. What was asked before
        is answered as it was then, but with `again`.
        """
        inputs = seed, scale, shown, str(ids.tolist()), str(others.tolist())
        wanted = [t for t in tasks or self.answers if again or (t, inputs) not in self._known]
        if wanted:
            results = self._outputs(ids, others, seed, scale, shown, wanted)
            self._known |= {(task, inputs): value for task, value in results.items()}
        return {task: self._known[task, inputs] for task in tasks or self.answers}

    def _outputs(
        self, ids: Tensor, others: Tensor, seed: int, scale: float, shown: tuple[int, int], tasks: Iterable[str]
    ) -> dict[str, Tensor]:
        if self._filled != (seed, scale):
            for name, p in self.own():
                numbers = seeded(f"{name} {seed}", min(p.numel(), 1 << 18), scale=scale)
                p.copy_(numbers.repeat(-(-p.numel() // len(numbers)))[: p.numel()].reshape(p.shape))
            self._filled = seed, scale
        masks = [((x != 0) & (torch.arange(x.shape[1]) < n)).long() for x, n in zip((ids, others), shown, strict=True)]
        two = [ids, masks[0], others, masks[1]]
        results = {}
        for task in tasks:
            value = self.answers[task](*(two if task in ("para", "sts") else two[:2]))
            if value is None:
                raise NotImplementedError(task)
            if value.numel() % len(ids):
                raise CannotCheck(f"{METHODS.get(task, 'forward')} gives {tuple(value.shape)} for {len(ids)} examples")
            results[task] = value.float().reshape(len(ids), -1)
        return results

    def learns(self, task: str) -> bool:
        """Whether its outputs, in training, have a gradient at all."""
        self.module.train()
        try:
            masks = [(x != 0).long() for x in (IDS, OTHERS)]
            two = [IDS, masks[0], OTHERS, masks[1]]
            return bool(self.answers[task](*(two if task in ("para", "sts") else two[:2])).requires_grad)
        finally:
            self.module.eval()


class Ask:
    """How an answer is to be made, later: so that what is wrong with one does not hide the others."""

    def __init__(self, make: Callable[[], Callable]):
        self.make = make

    def __call__(self) -> Callable:
        return self.make()


class Subject:
    """What is asked. models: with all three heads, or why there are none. classifier: classifier.py's, or why not.

    losses: of the tasks, as functions. facts: what is read from the source, {name: value or function}.
    decided: which of "sentiment", "paraphrase", "similarity", "classifier" can be called wrong at all, because the rest
    of the code does take logits, or does compare with labels up to 5.
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
        """(model, task) of what can be asked; raises why, where nothing can."""
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


ALL = {"sentiment", "paraphrase", "similarity", "classifier"}


def reference(pieces: Pieces) -> Subject:
    model = RightModel(pieces)
    functions = {name: pieces[f"{name} loss"] for name in ("sst", "para", "sts")}
    three = Model(model, {"sst": model.sst, "para": model.para, "sts": model.sts})
    facts = {name: pieces[name] for name in losses.FACTS}
    return Subject([three], Model(model, {"one": model.one}), functions, ALL, facts)


# ------------------------------------------------------------------------------------------------ theirs


OF_LABELS = r"(?i)label|score|target|similar|(\b|_)(sim|sts|cos)(\b|_)|\by(\b|_)|cosine"
NO_LABELS = r"(?i)loss|entropy|criterion|\blen\(|num_label|accuracy|f1|corr|pearson|attention|attn"
BY_FIVE = r"[/*]=?\s*5\b|(?<![-.\w])5(\.0*)?\s*\*|\*\s*0?\.2\b|(?<![\w])0?\.2\s*\*|[Cc]osine_?[Ee]mbedding"


def rescaled(project: Any) -> bool:
    """Whether anything of theirs may bring labels and outputs of similarity to one scale, as far as names tell.

    What stands in predict_similarity is not read: its outputs are looked at. Nor are attention's scores.
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
        module = build(project, cls, (LABELS, 5))
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
        one = build(project, single_class(project), (5, LABELS))
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
        known = {loss.kind for loss in read if loss.task == task and not loss.done & losses.LOGS}
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
    if any(loss.kind == "ce" and loss.task == "para" and not loss.done & losses.LOGS for loss in read):
        result.add("two logits")
    if "ce" in kinds("one", "class BertSent"):
        result.add("classifier")
    if "logits" in kinds("para", "predict_paraphrase") or says(project, "sigmoid", near="def model_eval"):
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
        model, scale = (subject.single(), 0.3) if task == "one" else (subject.able(task)[0][0], 0.3)
        return model.outputs(scale=scale, tasks=(task,))[task]

    def unlike(name: str, tasks: tuple[str, ...], like: Callable[[Tensor], Tensor]) -> Any:
        wrong = [loss for loss in read if loss.kind == name and loss.task in tasks and not loss.done & losses.LOGS]
        if name == "bce":
            wrong = [loss for loss in wrong if not loss.done & {"sigmoid", "Sigmoid", "softmax", "Softmax"}]
        if not wrong:
            return False
        places[losses.NLL if name == "nll" else losses.BCE] = wrong[0].place
        return lambda: any(not bool(like(outputs(loss.task)).all()) for loss in wrong)

    values[losses.NLL] = unlike("nll", ("one", "sst"), lambda x: x.logsumexp(-1).abs() < 1e-3)
    values[losses.BCE] = unlike("bce", ("para",), within(0, 1))
    return values, places


def ours(project: Any, heads: Any) -> Subject:
    """A package like ours: a model for every head, with either pooling."""
    MultitaskBert, Batch = project.get("multitask", "MultitaskBert"), project.get("data", "Batch")
    TASKS = project.get("tasks", "TASKS")
    models = []
    pairs = zip_longest(heads.PAIR_HEADS["para"], heads.PAIR_HEADS["sts"])
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


# ------------------------------------------------------------------------------------------------ probes

PAIRWISE = ("para", "sts")
THREE = ("sst", *PAIRWISE)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether an output changed by more than rounding."""
    return a.shape != b.shape or bool((a - b).abs().max() > 1e-3 * (1e-3 + a.abs().max()))


def yes(answer: bool) -> Tensor:
    return torch.tensor(answer)


def always(holds: Callable[[Tensor], Tensor], m: Model, task: str, others: Tensor = OTHERS) -> bool:
    """Whether something holds of all outputs of a model, whatever its weights. Raises where they tell nothing.

    Of pairs of a sentence with itself (others are IDS) one number, such as a cosine of 1, does tell something.
    """
    results = [m.outputs(others=others, seed=s, scale=x, tasks=(task,))[task] for s in SEEDS for x in (5.0, *SCALES)]
    if not all(bool(holds(x).all()) for x in results):
        return False
    numbers = torch.cat(results)
    if (others is not IDS and numbers.unique().numel() <= 2) or not numbers.isfinite().all():
        raise CannotCheck(f"{METHODS.get(task, 'forward')} gives one or two numbers for all sentences and weights")
    return True


def probabilities(rows: Tensor) -> Tensor:
    return ((rows.sum(dim=-1) - 1).abs() < 1e-3) & (rows >= 0).all(dim=-1) & torch.tensor(rows.shape[-1] > 1)


def within(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x >= low - 1e-4) & (x <= high + 1e-4)


def normalised(s: Subject) -> Tensor:
    """Whether sentiment's outputs are probabilities, or a paraphrase's where it has two logits."""
    able = [(m, t) for m, t in s.able("sst", "para") if (t == "sst" and "sentiment" in s.decided) or
            (t == "para" and "two logits" in s.decided)]  # fmt: skip
    return yes(any([always(probabilities, m, t) for m, t in able]))


def squashed(s: Subject) -> Tensor:
    """Whether sentiment's outputs lie in [0, 1], and are no probabilities."""
    able = s.able("sst")
    if "sentiment" not in s.decided:
        return yes(False)
    return yes(any(always(within(0, 1), m, t) and not always(probabilities, m, t) for m, t in able))


def a_probability(s: Subject) -> Tensor:
    able = s.able("para")
    if "paraphrase" not in s.decided:
        return yes(False)
    found = [m for m, task in able if always(within(0, 1), m, task) and not always(probabilities, m, task)]
    if found and not any("igmoid" in text or "oftmax" in text for m in found for text in _sources(m.module)):
        raise CannotCheck(
            "paraphrase's logit never leaves [0, 1], and no sigmoid is in its code that would explain it",
            "The loss adds a sigmoid: below 0 a logit says no, so that it must be able to go there.",
        )
    return yes(bool(found))


def _sources(module: nn.Module) -> list[str]:
    """The code of a model's class, but for what its other heads do; of the right one, all that matters."""
    try:
        text = inspect.getsource(type(module))
    except (OSError, TypeError):
        return ["sigmoid"]
    tree = ast.parse(inspect.cleandoc("\n" + text) if text[:1].isspace() else text)
    others = ("predict_sentiment", "predict_similarity")
    return ["sigmoid"] if isinstance(module, RightModel) else [
        ast.unparse(node) for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name not in others
    ]  # fmt: skip


def pads_matter(s: Subject) -> Tensor:
    """Whether three more pads change an answer. Rows that were joined after padding are another matter."""
    longer, others, after = F.pad(IDS, (0, 3)), F.pad(OTHERS, (0, 3)), None
    for m, task in s.able(*THREE):
        before = m.outputs(tasks=(task,))[task]
        if m.read is not None:
            m.read.clear()
        if not differ(before, m.outputs(longer, others, tasks=(task,), again=True)[task]):
            continue
        joins = m.read is not None and any(ids.shape[1] > longer.shape[1] + 3 for ids in m.read)
        if not joins or differ(before, m.outputs(others=others, tasks=(task,))[task]):
            return yes(True)
        after = METHODS[task]
    if after:
        raise CannotCheck(
            f"{after} joins two padded rows, so that the second sentence's positions depend on the first one's pads",
            "Join the sentences before they are padded: then an answer does not depend on its batch.",
        )
    return yes(False)


def dropped_in_evaluation(pairs: list[tuple[Model, str]]) -> Tensor:
    DROPPED.clear()
    twice = [[m.outputs(tasks=(task,), again=True)[task] for _ in range(2)] for m, task in pairs]
    return yes(any(differ(*both) for both in twice) or bool(DROPPED))


def mixed(s: Subject) -> Tensor:
    def halves(m: Model, task: str) -> Tensor:
        return torch.cat([m.outputs(IDS[i : i + 2], OTHERS[i : i + 2], tasks=(task,))[task] for i in (0, 2)])

    return yes(any(differ(m.outputs(tasks=(task,))[task], halves(m, task)) for m, task in s.able(*THREE)))


def _moves(m: Model, task: str, scale: float, **changed: Any) -> bool:
    """Whether a change of the inputs changes the answer at all."""
    before = m.outputs(scale=scale, tasks=(task,))[task]
    return not torch.equal(before, m.outputs(scale=scale, tasks=(task,), **changed)[task])


def deaf(s: Subject) -> Tensor:
    """Whether the second sentences can be changed without any effect, and the first cannot."""
    first, second = {"ids": IDS.roll(1, dims=0)}, {"others": OTHERS.roll(1, dims=0)}
    blind = None
    for m, task in s.able(*PAIRWISE):
        if any(_moves(m, task, x, **second) for x in SCALES):
            continue
        if any(_moves(m, task, x, **first) for x in SCALES):
            return yes(True)
        blind = METHODS[task]
    if blind:
        raise CannotCheck(f"{blind} gives the same numbers whatever is changed: it is saturated, or constant")
    return yes(False)


def first_mask(s: Subject) -> Tensor:
    """Whether the second sentences are read, but only the first ones' mask changes anything."""

    def wrong(m: Model, task: str) -> bool:
        reads = [x for x in SCALES if _moves(m, task, x, others=OTHERS.roll(1, dims=0))]
        masked = any(_moves(m, task, x, shown=(2, 99)) for x in reads)
        return masked and not any(_moves(m, task, x, shown=(99, 2)) for x in SCALES)

    return yes(any(wrong(m, task) for m, task in s.able(*PAIRWISE)))


def without_gradient(s: Subject) -> Tensor:
    trained = s.facts.get("trained", THREE)
    return yes(any(not m.learns(task) for m, task in s.able(*THREE) if task in trained))


def sure(s: Subject) -> dict[str, Tensor]:
    if s.losses is None:
        raise Absent("the losses are not known")
    five, label = 100 * torch.eye(5)[[3]], torch.tensor([3])
    return {
        "sentiment, logit 100": s.losses["sst"](five, label),
        "paraphrase, logit 100": s.losses["para"](torch.tensor([100.0]), torch.tensor([1.0])),
        "similarity, 5 for 5": s.losses["sts"](torch.tensor([5.0]), torch.tensor([5.0])),
    }


def asked(task: str) -> Probe:
    return Probe(
        f"{METHODS[task]}, as your script calls it",
        lambda s: yes(all(m.can(task) for m in s.three())),
        "Whether it can be called, with the arguments that your own training or evaluation gives it.",
    )


PROBES = (
    *map(asked, THREE),
    Probe("whether logits are probabilities", normalised,
          "Four sentences and nine sets of weights: whether every row of sentiment's, or of a paraphrase's two, sums to 1."),
    Probe("whether sentiment's outputs lie between 0 and 1", squashed,
          "Four sentences and nine sets of weights: whether no output leaves [0, 1], though rows do not sum to 1."),
    Probe("whether paraphrase's output is a probability", a_probability,
          "Four pairs and nine sets of weights: whether the output never leaves [0, 1]."),
    Probe("whether similarity stays below the labels' scale",
          lambda s: yes(any([always(within(-1, 1), m, t, others=IDS) for m, t in s.able("sts")
                             if "similarity" in s.decided])),
          "Four sentences, each with itself, and nine sets of weights: whether the output never leaves [-1, 1]."),
    Probe("whether pads change the answer", pads_matter, "The same sentences with three more pads at the end."),
    Probe("whether dropout is on in evaluation", lambda s: dropped_in_evaluation(s.able(*THREE)),
          "The same sentences twice after `model.eval()`."),
    Probe("whether a batch's examples are mixed", mixed, "Four examples at once, and two and two."),
    Probe("whether the second sentence goes unread", deaf, "The same pairs with the second sentences exchanged."),
    Probe("whether the second sentence's mask goes unread", first_mask,
          "The same pairs with all but two tokens masked in the second sentences, or in the first."),
    Probe("whether the outputs have no gradient", without_gradient, "The outputs in training: whether they need none."),
    Probe("the loss of a sure and right answer", sure,
          "Logits of 100 for the right label, and a similarity of 5 where 5 is right: each loss is 0."),
    Probe("whether classifier.py's outputs are probabilities",
          lambda s: yes(always(probabilities, s.single(), "one") and "classifier" in s.decided),
          "The classifier of one data set, four sentences and nine sets of weights: whether every row sums to 1."),
    Probe("whether classifier.py drops out in evaluation", lambda s: dropped_in_evaluation([(s.single(), "one")]),
          "The classifier of one data set, the same sentences twice after `eval()`."),
    *(Probe(f"read from the source: {name}", lambda s, name=name: yes(s.fact(name)), says)
      for name, says in losses.FACTS.items()),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

CROSS_ENTROPY, BCE = "loss = -log softmax(logits)_label", "loss = -log σ(logit)   for a paraphrase"
COURSE, SBERT = "the course's handout: the outputs are logits", "Reimers & Gurevych 2019, §3"
DROPOUT = "Srivastava et al. 2014, §4: at test time no unit is dropped"


def mistake(name: str, equation: str, source: str, why: str, *forms: Pieces, where: tuple[str, ...]) -> Mistake:
    return Mistake(name, forms[0], why, equation, source, where, also=forms[1:])


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def on(x: Tensor, training: bool) -> Tensor:
    return F.dropout(x, 0.3)


def with_pads(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.mean(dim=1)


PAIRS = ("MultitaskBERT.predict_paraphrase", "MultitaskBert.logits")
ONE = tuple(f"{name}.forward" for name in SINGLE)
PREDICTS = ("MultitaskBERT.forward", "MultitaskBERT.predict_sentiment", "LinearHead.forward")
TRAINING = ("train_multitask", "train")


def written(fact: str, equation: str, why: str) -> Mistake:
    """A mistake that is read from the source."""
    return mistake(fact, equation, COURSE, why, {fact: True}, where=TRAINING)


MISTAKES = (
    mistake("softmax before the cross-entropy", CROSS_ENTROPY, COURSE,
            "The loss has a softmax inside. A second one squeezes the logits into [0, 1]: with five classes the loss "
            "cannot fall below .9048. Return the logits.",
            {"sentiment": softmax},
            where=("MultitaskBERT.predict_sentiment", "MultitaskBERT.predict_paraphrase", "LinearHead.forward")),
    mistake("sigmoid twice for paraphrase", BCE, COURSE,
            "What comes out is a probability already, and BCE-with-logits and the evaluation apply a sigmoid: a pair "
            "can never look different (σ(0) = ½), and the loss cannot fall below .3133. Return the logit.",
            {"paraphrase": torch.sigmoid}, where=("MultitaskBERT.predict_paraphrase", "LinearHead.forward")),
    mistake("similarity is not on the labels' scale", "similarity = 5·cos(u, v)", SBERT,
            "Labels go from 0 to 5, and the output never leaves [-1, 1]: the squared error pulls all pairs to their "
            "largest value. Multiply by 5, or divide the labels by 5.",
            {"similarity": lambda cosine: cosine}, {"similarity": torch.sigmoid},
            where=("MultitaskBERT.predict_similarity", "CosineHead.forward")),
    mistake("pads are part of the sentence's vector", "u = Σₜ maskₜ·hₜ / Σₜ maskₜ", SBERT,
            "Adding pads changes the answer, so it depends on what else is in the batch. Multiply by the mask before "
            "summing and divide by the number of real tokens; and do not concatenate padded rows of ids.",
            {"pool": with_pads}, where=("mean_pool", *PREDICTS)),
    mistake("dropout is on in evaluation", "u at test time = E[u in training]", DROPOUT,
            "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.",
            {"dropout": on}, where=PREDICTS),
    mistake("the examples of a batch are mixed", "f(x)ᵢ = f(xᵢ)", COURSE,
            "An answer depends on the other examples of its batch: a softmax, a cosine, a mean or a norm is taken over "
            "dim 0. Use dim=-1 (the default of `cosine_similarity` is 1, of a squeezed vector that is wrong).",
            {"batch": lambda x: x - x.mean(dim=0)}, where=PREDICTS),
    mistake("the second sentence is not read", "f(u, v)", SBERT,
            "Exchanging the second sentences changes nothing: a copied line still has the first one's name.",
            {"second": lambda u, v: u}, where=PAIRS),
    mistake("the first sentence's mask is used for the second", "v = Σₜ mask'ₜ·h'ₜ / Σₜ mask'ₜ", SBERT,
            "Masking the second sentences changes nothing: they are read with `attention_mask_1`, so that their words "
            "are hidden and their pads are read. Use `attention_mask_2` for `input_ids_2`.",
            {"second mask": lambda first, second: first}, where=PAIRS),
    mistake("softmax inside the loss of sentiment", CROSS_ENTROPY, COURSE,
            "`F.cross_entropy` takes logits. With a softmax before it the loss cannot fall below .9048.",
            {"sst loss": lambda x, label: F.cross_entropy(softmax(x), label)}, where=("classification_loss",)),
    mistake("sigmoid inside the loss of paraphrase", BCE, COURSE,
            "`binary_cross_entropy_with_logits` takes the logit. With a sigmoid before it the loss cannot fall below "
            ".3133.",
            {"para loss": lambda x, label: F.binary_cross_entropy_with_logits(x.sigmoid(), label)},
            where=("binary_loss",)),
    mistake("outputs and labels of similarity have different scales", "loss = mean (ŷ - y)²", SBERT,
            "One side is divided by 5 and the other is not: identical sentences are pulled away from their label.",
            {"sts loss": lambda x, label: F.mse_loss(x / 5, label)},
            {"sts loss": lambda x, label: F.mse_loss(x, label / 5)}, where=("regression_loss",)),
    mistake("classifier.py: softmax before the cross-entropy", CROSS_ENTROPY, COURSE,
            "The loss has a softmax inside. Return the logits as they are.",
            {"classifier": softmax}, where=ONE),
    mistake("classifier.py: dropout is on in evaluation", "u at test time = E[u in training]", DROPOUT,
            "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.",
            {"classifier dropout": on}, where=ONE),
    mistake("sigmoid before the cross-entropy", CROSS_ENTROPY, COURSE,
            "Five numbers between 0 and 1 are no logits: the softmax of the loss can make no class likelier than .405. "
            "Return the logits.",
            {"sentiment": torch.sigmoid}, where=("MultitaskBERT.predict_sentiment", "LinearHead.forward")),
    mistake("the outputs have no gradient", "∂loss/∂θ", COURSE,
            "Nothing can be learned from outputs that are detached, rounded, or computed under `torch.no_grad()`.",
            {"gradient": lambda x: x.detach()}, where=PREDICTS),
    written(losses.NLL, "nll_loss(log p) = -log p_label",
            "`F.nll_loss` takes log-probabilities. Of raw logits it has no lower bound, and the loss runs away to -∞. "
            "Return `F.log_softmax(logits, dim=-1)`, or use `F.cross_entropy`."),
    written(losses.BCE, BCE,
            "`F.binary_cross_entropy` takes a probability and fails on anything outside [0, 1]. Use "
            "`F.binary_cross_entropy_with_logits`."),
    written(losses.ROUNDED, "∂ round(x)/∂x = 0",
            "Rounding, `argmax` and `detach` have no gradient: nothing is learned from such a loss. Take the loss of "
            "the raw outputs, and round only for the predictions."),
    written(losses.TWICE, "θ ← θ - α·∇loss, once a batch",
            "`loss.backward()` and `scaler.scale(loss).backward()` both run: the gradient is added twice, once scaled "
            "by thousands and once not. Keep the scaled one alone, and step with `scaler.step(optimizer)`."),
    written(losses.NEVER_ZERO, "g = ∇loss of this batch",
            "`backward` adds to the gradients that are there, so that every batch is pulled by all batches before. "
            "Call `optimizer.zero_grad()` before each `backward`."),
    written(losses.NEVER_TRAINS, "f(x) with dropout while training",
            "BERT comes out of `from_pretrained` in evaluation mode, and evaluating puts the model there: without "
            "`model.train()` at the start of each epoch nothing is dropped."),
)  # fmt: skip

PART = Part(
    name="heads",
    title="the heads of the tasks",
    right=RIGHT,
    reference=reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
    owns=("MultitaskBERT", *SINGLE),
)
