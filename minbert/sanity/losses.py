"""What their training does with a model's outputs, read from the syntax tree and never run.

    logits = model.predict_sentiment(ids, mask)            logits: of sst
    loss = F.nll_loss(logits.softmax(-1).log(), labels)    → Loss("nll", "sst", {"softmax", "log"}, …)

Names are followed inside one function. A loss whose outputs come from elsewhere has no task and gets no complaint.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from minbert.sanity.loop import (
    backward_twice,
    freezes_backwards,
    never_trains,
    never_zeroed,
    stays_in_evaluation,
    unused_schedule,
    zeroed_once_an_epoch,
)  # fmt: skip
from minbert.sanity.models import SINGLE
from minbert.sanity.source import assigned, code_of, definitions, leaves, name_of, nodes, parsed
from minbert.sanity.steps import (
    clipped_in_vain,
    kept_by_reference,
    log_target,
    only_bert,
    other_head,
    zeroed_before,
)  # fmt: skip
from minbert.sanity.totals import KINDS, kinds_of, learned, left_out, unbounded

TASK_OF = {"predict_sentiment": "sst", "predict_paraphrase": "para", "predict_similarity": "sts"}
CUTS = {"round", "argmax", "detach", "item", "long", "int", "bool", "trunc", "floor", "ceil", "sign", "numpy", "data"}
AS_LONG = {"to", "float", "double", "half", "cuda", "cpu", "detach", "clone", "sigmoid", "relu", "clamp"}  # shapes stay
AS_IS = {
    *AS_LONG - {"sigmoid", "relu", "clamp"},
    "index",
    "as is",
    "view",
    "reshape",
    "flatten",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "logits",
}  # numbers stay
LABELS = re.compile(r"(?i)label|target|score|gold|(^|_)y(_|$)|\by\b")


SQUASHED = {"sigmoid", "Sigmoid", "softmax", "Softmax"}
LOGS = {"log_softmax", "LogSoftmax", "log", "logsigmoid", "LogSigmoid"}
NO_LOGS = AS_IS | SQUASHED | {"scale", "clamp", "relu"}  # a logarithm is none of these; another name may be one

# The names of mistakes in the training; FACTS says how each is seen.
NLL = "nll_loss of raw logits"
BCE = "binary_cross_entropy of a raw logit"
ROUNDED = "the loss is computed from rounded or detached outputs"
EVERY = "the loss compares every output with every label: (B, 1) against (B,)"
KL = "kl_div of probabilities instead of log-probabilities"
TWICE = "the gradient is computed twice: backward beside the scaled backward"
OF_KIND = {"nll": NLL, "bce": BCE}
FITS = {  # how a loss is written, and what excuses it, where only the text is known
    "nll": (r"nll_loss|NLLLoss", r"log_softmax|LogSoftmax|\.log\(|cross_entropy|CrossEntropy"),
    "bce": (r"binary_cross_entropy\(|BCELoss", r"[sS]igmoid|with_?[lL]ogits"),
}
NEVER_ZERO = "gradients are never set to zero"
ONCE_AN_EPOCH = "gradients are set to zero once an epoch, not once a step"
UNUSED = "a schedule of the learning rate is made and never used"
LEFT_OUT = "a loss is computed and takes no part in the gradient"
UNBOUNDED = "the weights of the losses have no lower bound: exp(s)·loss + s"
NEVER_TRAINS = "the model is never put into training mode"
STAYS = "training goes on in evaluation mode after the first evaluation"
ONLY_BERT = "the optimizer has BERT's weights alone: the heads never learn"
ZERO_BEFORE = "gradients are set to zero every batch, and the step comes every few batches"
CLIPPED = "gradients are clipped after the step, or before backward"
KEPT = "the best weights are kept without a copy, and are the last ones"
OTHER_HEAD = "a task's data go through another task's head"
LOG_TARGET = "kl_div of a log-probability as the target, without log_target"
FREEZES = "BERT is frozen where it should train, and trains where it should be frozen"
FACTS = {
    NLL: "The loss that is applied to the outputs, and whether these are log-probabilities: rows of log Σ exp = 0.",
    BCE: "The loss that is applied to the output, and whether that stays within [0, 1].",
    ROUNDED: "What is done to the outputs between the model and the loss.",
    EVERY: "The shapes of the outputs and of the labels that a squared or an absolute error compares.",
    KL: "What the first argument of `kl_div` is.",
    TWICE: "Whether one pass of the training loop has both `loss.backward()` and `scaler.scale(loss).backward()`.",
    NEVER_ZERO: "Whether a loop that computes gradients, or what it calls, sets them to zero.",
    ONCE_AN_EPOCH: "Which of two loops, of epochs and of batches, sets gradients to zero.",
    UNUSED: "Whether a function that trains names the schedule that it makes again.",
    LEFT_OUT: "Whether a loop that trains reads every loss that it computes, other than to print it.",
    UNBOUNDED: "The sign of s in a sum of exp(s)·loss and s, where s is a learned weight.",
    NEVER_TRAINS: "Whether anything in the project calls `.train()`, while a loop computes gradients.",
    STAYS: "Whether `.train()` is called only before a loop that trains and evaluates in turn.",
    ONLY_BERT: "Which parameters the one optimizer of a function that trains the heads is made with.",
    ZERO_BEFORE: "Whether a loop that steps only where `n % k == 0` sets gradients to zero in every pass.",
    CLIPPED: "What stands before the clipping in a block that computes gradients, clips them and steps.",
    KEPT: "Whether `model.state_dict()` is copied where it is kept in a loop and loaded after it.",
    OTHER_HEAD: "Whose `predict_` method is called in a loop or a branch that is for one task's data.",
    LOG_TARGET: "What the second argument of `kl_div` is.",
    FREEZES: "What `requires_grad` of BERT's parameters becomes for each word of the option.",
}


@dataclass(frozen=True)
class Flow:
    """Where a value comes from: a task's outputs ("one": the classifier's), or "labels"; and what was done to it."""

    source: str
    done: frozenset[str] = frozenset()

    def then(self, *names: str) -> "Flow":
        return Flow(self.source, self.done | set(names))


@dataclass
class Loss:
    """One call of a loss. kind: a value of KINDS. task: whose outputs; "" if not known. done, to_labels: operations."""

    call: ast.Call
    kind: str
    task: str
    done: frozenset[str]
    to_labels: frozenset[str]
    place: tuple[str, int]
    labelled: bool = False  # whether it is clear that they are compared with labels


@dataclass
class Reader:
    """Reads one file."""

    file: Path
    root: Path

    def losses(self) -> Iterator[Loss]:
        functions = [node for _, node in definitions(self.file) if isinstance(node, ast.FunctionDef)]
        for block in [*(f.body for f in functions), parsed(self.file).body]:
            yield from self._block(block, {})

    def _block(self, block: list[ast.stmt], names: dict[str, Flow]) -> Iterator[Loss]:
        for statement in block:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                continue
            inner = [getattr(statement, f, []) for f in ("body", "orelse", "finalbody")]
            heads = (
                [statement]
                if not any(inner)
                else [n for n in ast.iter_child_nodes(statement) if isinstance(n, ast.expr)]
            )
            for head in heads:
                for node in ast.walk(head):
                    if isinstance(node, ast.Call) and (loss := self._loss(node, names)):
                        yield loss
            for target, value in assigned(statement):
                flow = self.flow(value, names)
                for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name)):
                    names.pop(name, None)
                    names |= {name: flow} if flow else {}
            if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                names |= {name: names[name].then("scale")} if name in names else {}
            if isinstance(statement, ast.If):
                yield from self._branches(statement, names)
                continue
            for below in inner:
                yield from self._block(below, names)

    def _branches(self, statement: ast.If, names: dict[str, Flow]) -> Iterator[Loss]:
        """The losses of both branches. Afterwards `names` has what is sure, whichever branch was taken."""
        branches = [(statement.body, dict(names)), (statement.orelse, dict(names))]
        for block, own in branches:
            yield from self._block(block, own)
        ends = [own for block, own in branches if not leaves(block)] or [dict(names)]
        names.clear()
        for name in ends[0].keys() & ends[-1].keys():
            one, other = ends[0][name], ends[-1][name]
            if one.source == other.source and one.done ^ other.done <= AS_IS:
                names[name] = one.then(*other.done)

    def _loss(self, call: ast.Call, names: dict[str, Flow]) -> Loss | None:
        kind = kinds_of(self.file).get(name_of(call))
        if isinstance(call.func, ast.Call):
            kind = KINDS.get(name_of(call.func))
        given = [*call.args, *(k.value for k in call.keywords if k.arg in ("input", "target"))]
        if kind is None or len(given) < 2:
            return None
        flows = [self.flow(value, names) for value in given[:2]]
        outputs = next((f for f in flows if f and f.source != "labels"), None)
        labels = next((f for f in flows if f and f.source == "labels"), None)
        place = str(self.file.relative_to(self.root)), call.lineno
        done, to_labels = (f.done if f else frozenset() for f in (outputs, labels))
        return Loss(call, kind, outputs.source if outputs else "", done, to_labels, place, labels is not None)

    def flow(self, node: ast.expr, names: dict[str, Flow]) -> Flow | None:
        """Where an expression's value comes from."""
        if isinstance(node, ast.Name):
            return names.get(node.id) or (Flow("labels", frozenset({"by name"})) if LABELS.search(node.id) else None)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Constant) and LABELS.search(str(node.slice.value)):
                return Flow("labels")
            flow = self.flow(node.value, names)
            return flow and flow.then("index")
        if isinstance(node, ast.Attribute):
            flow = self.flow(node.value, names) or (Flow("labels") if LABELS.search(node.attr) else None)
            return flow and flow.then(node.attr)
        if isinstance(
            node, ast.BinOp | ast.UnaryOp | ast.Compare | ast.IfExp | ast.BoolOp | ast.Starred | ast.NamedExpr
        ):
            flows = [
                f for f in (self.flow(n, names) for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)) if f
            ]
            operation = (
                "compare" if isinstance(node, ast.Compare) else "scale" if isinstance(node, ast.BinOp) else "as is"
            )
            best = next((f for f in flows if f.source != "labels"), next(iter(flows), None))
            return best and best.then(operation)
        if isinstance(node, ast.Call):
            return self._call(node, names)
        return None

    def _call(self, node: ast.Call, names: dict[str, Flow]) -> Flow | None:
        name = name_of(node)
        if name in TASK_OF:
            return Flow(TASK_OF[name])
        if isinstance(node.func, ast.Attribute) and (flow := self.flow(node.func.value, names)):
            flat = name in ("view", "reshape") and [ast.unparse(a) for a in node.args] == ["-1"]
            return flow.then("flatten" if flat else name)
        outer = name_of(node.func) if isinstance(node.func, ast.Call) else name
        given = [self.flow(value, names) for value in (*node.args, *(k.value for k in node.keywords))]
        best = next((f for f in given if f and f.source != "labels"), next((f for f in given if f), None))
        if best:
            return best.then(outer)
        if re.search(r"(?i)(^|_)(model|net|classifier)$", name) and self._has_classifier():
            return Flow("one")
        return None

    def _has_classifier(self) -> bool:
        """Whether a `model(…)` of this file is the classifier of one data set."""
        code = code_of(self.file)
        return any(name in code for name in SINGLE) and "Multitask" not in code


def losses(project: Any) -> list[Loss]:
    """Every loss in the files that their scripts use."""
    return [loss for file in project.imports.reached for loss in Reader(file, project.root).losses()]


def of_every_pair(project: Any, read: list[Loss]) -> Iterator[Loss]:
    """Losses that compare (B, 1) with (B,) where a model gives (B, 1): nothing that is done changes either shape."""
    reached = {str(f.relative_to(project.root)) for f in project.imports.reached}
    named = (n for f in project.imports.reached for n, node in definitions(f) if isinstance(node, ast.ClassDef))
    if any("Dataset" in name and not re.fullmatch(r"Sentence(Classification|Pair)\w*Dataset", name) for name in named):
        return  # labels of a data set that nobody knows
    for loss in read:
        if loss.kind in ("mse", "l1") and loss.task in ("para", "sts") and loss.place[0] in reached:
            flat = loss.labelled and loss.to_labels <= AS_LONG | {"flatten", "squeeze"}
            if flat and loss.done <= AS_LONG:
                yield loss


def kl_of_probabilities(project: Any) -> tuple[str, int] | None:
    """(file, line) of a `kl_div` whose input, the first argument, is a softmax."""
    for file in project.imports.reached:
        made = (pair for node in nodes(file) for pair in assigned(node) if name_of(pair[1]) == "KLDivLoss")
        names = {"kl_div", *(getattr(target, "attr", getattr(target, "id", "")) for target, _ in made)}
        for call in (n for n in nodes(file) if isinstance(n, ast.Call)):
            if name_of(call) in names or name_of(call.func) == "KLDivLoss":
                given = [k.value for k in call.keywords if k.arg == "input"] or call.args[:1]
                if any(isinstance(x, ast.Call) and name_of(x) == "softmax" for x in given):
                    return str(file.relative_to(project.root)), call.lineno
    return None


def facts(project: Any, read: list[Loss]) -> dict[str, tuple[str, int] | None]:
    """{mistake: its place, None where it is not made}, for all mistakes that the source alone tells.

    A loss counts as one of rounded outputs only if it compares them with labels, and something learns from it.
    """
    learns = learned(project)
    cut = next((x for x in read if x.task and x.done & CUTS and x.labelled and x.call in learns), None)
    return {
        ROUNDED: cut and cut.place,
        KL: kl_of_probabilities(project),
        TWICE: backward_twice(project),
        NEVER_ZERO: never_zeroed(project),
        ONCE_AN_EPOCH: zeroed_once_an_epoch(project),
        UNUSED: unused_schedule(project),
        LEFT_OUT: left_out(project, learns),
        UNBOUNDED: unbounded(project),
        NEVER_TRAINS: never_trains(project),
        STAYS: stays_in_evaluation(project),
        ONLY_BERT: only_bert(project),
        ZERO_BEFORE: zeroed_before(project),
        CLIPPED: clipped_in_vain(project),
        KEPT: kept_by_reference(project),
        OTHER_HEAD: other_head(project),
        LOG_TARGET: log_target(project),
        FREEZES: freezes_backwards(project),
    }


def as_functions(read: list[Loss]) -> dict[str, Callable]:
    """The losses of the three tasks, with the sigmoid or softmax that their training puts before them."""
    squash = {"softmax": lambda x: x.softmax(-1), "Softmax": lambda x: x.softmax(-1),
              "sigmoid": torch.sigmoid, "Sigmoid": torch.sigmoid}  # fmt: skip
    right = {"sst": ("ce", F.cross_entropy), "para": ("logits", F.binary_cross_entropy_with_logits),
             "sts": ("mse", F.mse_loss)}  # fmt: skip
    functions = {}
    for task, (kind, loss) in right.items():
        before = next((x.done & squash.keys() for x in read if x.task == task and x.kind == kind
                       and not x.done & LOGS and task != "sts"), set())  # fmt: skip
        name = next(iter(before), None)
        functions[task] = (lambda x, y, f=squash[name], loss=loss: loss(f(x), y)) if name else loss
    return functions
