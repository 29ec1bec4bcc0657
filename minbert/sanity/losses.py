"""What their training does with a model's outputs, read from the syntax tree and never run.

    logits = model.predict_sentiment(ids, mask)            logits: of sst
    loss = F.nll_loss(logits.softmax(-1).log(), labels)    → Loss("nll", "sst", {"softmax", "log"}, …)

Followed are names inside one function. A loss whose outputs come from elsewhere has no task; nothing is said of it.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from minbert.sanity.layout import NOT_PARTS
from minbert.sanity.source import definitions, nodes, parsed

KINDS = {  # how a loss is called → what it is
    "cross_entropy": "ce", "CrossEntropyLoss": "ce", "nll_loss": "nll", "NLLLoss": "nll",
    "binary_cross_entropy": "bce", "BCELoss": "bce", "binary_cross_entropy_with_logits": "logits",
    "BCEWithLogitsLoss": "logits", "mse_loss": "mse", "MSELoss": "mse", "l1_loss": "l1", "L1Loss": "l1",
    "smooth_l1_loss": "l1", "SmoothL1Loss": "l1", "huber_loss": "l1", "HuberLoss": "l1",
    "cosine_embedding_loss": "cosine", "CosineEmbeddingLoss": "cosine",
}  # fmt: skip
TASK_OF = {"predict_sentiment": "sst", "predict_paraphrase": "para", "predict_similarity": "sts"}
CUTS = {"round", "argmax", "detach", "item", "long", "int", "bool", "trunc", "floor", "ceil", "sign", "numpy", "data"}
LABELS = re.compile(r"(?i)label|target|score|gold|(^|_)y(_|$)|\by\b")


SQUASHED = {"sigmoid", "Sigmoid", "softmax", "Softmax"}
LOGS = {"log_softmax", "LogSoftmax", "log", "logsigmoid", "LogSigmoid"}

# What can be wrong in the training, as a mistake is called, and how it is seen.
NLL = "nll_loss of raw logits"
BCE = "binary_cross_entropy of a raw logit"
ROUNDED = "the loss is one of rounded or detached outputs"
TWICE = "the gradient is computed twice: backward beside the scaled backward"
OF_KIND = {"nll": NLL, "bce": BCE}
FITS = {  # what makes outputs fit such a loss; how the loss is written; and what speaks against it where that is all
    "nll": (LOGS, r"nll_loss|NLLLoss", r"log_softmax|LogSoftmax|\.log\(|cross_entropy|CrossEntropy"),
    "bce": (SQUASHED, r"binary_cross_entropy\(|BCELoss", r"[sS]igmoid|with_?[lL]ogits"),
}
NEVER_ZERO = "gradients are never set to zero"
NEVER_TRAINS = "the model is never put into training mode"
STAYS = "training goes on in evaluation mode after the first evaluation"
FREEZES = "BERT is frozen where it should train, and trains where it should be frozen"
FACTS = {
    NLL: "The loss that is applied to the outputs, and whether these are log-probabilities: rows of log Σ exp = 0.",
    BCE: "The loss that is applied to the output, and whether that stays within [0, 1].",
    ROUNDED: "What is done to the outputs between the model and the loss.",
    TWICE: "Whether one pass of the training loop has both `loss.backward()` and `scaler.scale(loss).backward()`.",
    NEVER_ZERO: "Whether anything in the project sets gradients to zero, while a loop computes them.",
    NEVER_TRAINS: "Whether anything in the project calls `.train()`, while a loop computes gradients.",
    STAYS: "Whether `.train()` is called only before a loop that trains and evaluates in turn.",
    FREEZES: "What `requires_grad` of BERT's parameters becomes for each word of the option.",
}
FROZEN, TRAINED = {"pretrain", "freeze", "last-linear-layer"}, {"finetune", "full-model"}
OTHER_MODES = r"(?i)\b_?(ema|swa)(_|\b)|deepcopy|\.training = |import.*\b(lightning|accelerate|transformers)\b"


@dataclass(frozen=True)
class Flow:
    """Where a value comes from: a task's outputs ("one": of the classifier's), or "labels"; and what was done to it."""

    source: str
    done: frozenset[str] = frozenset()

    def then(self, *names: str) -> "Flow":
        return Flow(self.source, self.done | set(names))


@dataclass
class Loss:
    """One call of a loss. kind: a value of KINDS. task: whose outputs; "" if not known. done, to_labels: operations."""

    kind: str
    task: str
    done: frozenset[str]
    to_labels: frozenset[str]
    place: tuple[str, int]
    labelled: bool = False  # whether it is clear that they are compared with labels


@dataclass
class Reader:
    """Reads one file. criteria: names and attributes that hold a loss module."""

    file: Path
    root: Path
    criteria: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for node in nodes(self.file):
            for target, value in _assigned(node):
                kind = KINDS.get(_name(value)) if isinstance(value, ast.Call) else None
                name = getattr(target, "attr", getattr(target, "id", ""))
                if kind and name:
                    self.criteria[name] = kind if self.criteria.get(name, kind) == kind else ""

    def losses(self) -> Iterator[Loss]:
        functions = [node for _, node in definitions(self.file) if isinstance(node, ast.FunctionDef)]
        for block in [*(f.body for f in functions), parsed(self.file).body]:
            yield from self._block(block, {}, nested=block is not parsed(self.file).body)

    def _block(self, block: list[ast.stmt], names: dict[str, Flow], nested: bool = True) -> Iterator[Loss]:
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
            for target, value in _assigned(statement):
                flow = self.flow(value, names)
                for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name)):
                    names.pop(name, None)
                    names |= {name: flow} if flow else {}
            if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                names |= {name: names[name].then("scale")} if name in names else {}
            for below in inner:
                yield from self._block(below, names)

    def _loss(self, call: ast.Call, names: dict[str, Flow]) -> Loss | None:
        kind = KINDS.get(_name(call)) or self.criteria.get(_name(call))
        if isinstance(call.func, ast.Call):
            kind = KINDS.get(_name(call.func))
        given = [*call.args, *(k.value for k in call.keywords if k.arg in ("input", "target"))]
        if kind is None or len(given) < 2:
            return None
        flows = [self.flow(value, names) for value in given[:2]]
        outputs = next((f for f in flows if f and f.source != "labels"), None)
        labels = next((f for f in flows if f and f.source == "labels"), None)
        place = str(self.file.relative_to(self.root)), call.lineno
        done, to_labels = (f.done if f else frozenset() for f in (outputs, labels))
        return Loss(kind, outputs.source if outputs else "", done, to_labels, place, labels is not None)

    def flow(self, node: ast.expr, names: dict[str, Flow]) -> Flow | None:
        """Where an expression's value comes from."""
        if isinstance(node, ast.Name):
            return names.get(node.id) or (Flow("labels") if LABELS.search(node.id) else None)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Constant) and LABELS.search(str(node.slice.value)):
                return Flow("labels")
            return self.flow(node.value, names)
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
        name = _name(node)
        if name in TASK_OF:
            return Flow(TASK_OF[name])
        if isinstance(node.func, ast.Attribute) and (flow := self.flow(node.func.value, names)):
            return flow.then(name)
        outer = _name(node.func) if isinstance(node.func, ast.Call) else name
        given = [self.flow(value, names) for value in (*node.args, *(k.value for k in node.keywords))]
        best = next((f for f in given if f and f.source != "labels"), next((f for f in given if f), None))
        if best:
            return best.then(outer)
        if re.search(r"(?i)(^|_)(model|net|classifier)$", name):
            return Flow("one")
        return None


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of what a statement assigns, element by element where both sides are tuples."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=False)
            else:
                yield target, node.value


def _name(call: Any) -> str:
    function = call.func if isinstance(call, ast.Call) else call
    return getattr(function, "attr", getattr(function, "id", ""))


def losses(project: Any) -> list[Loss]:
    """Every loss that their sources compute."""
    return [loss for file in project.sources for loss in Reader(file, project.root).losses()]


def backward_twice(project: Any) -> tuple[str, int] | None:
    """(file, line) where a loss's gradient is computed by itself and, in the same pass, scaled as well."""
    for file in project.sources:
        for node in nodes(file):
            for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if not isinstance(block, list):
                    continue
                direct = [b for s in block if isinstance(s, ast.Expr) for b in _backward(s)]
                # what an `if` further down may run as well; the two branches of one `if` do not meet here
                inner = (n for s in block if isinstance(s, ast.If | ast.With) for n in ast.walk(s))
                nested = [b for n in inner for b in _backward(n)]
                for loss, scaled, line in direct:
                    if any(other == loss and by != scaled for other, by, _ in (*direct, *nested)):
                        return str(file.relative_to(project.root)), line
    return None


def _backward(node: ast.AST) -> Iterator[tuple[str, bool, int]]:
    """(loss, whether it is scaled, line) of `loss.backward()` and `scaler.scale(loss).backward()`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and _name(call) == "backward" and isinstance(call.func, ast.Attribute):
        of = call.func.value
        scaled = isinstance(of, ast.Call) and _name(of) == "scale" and len(of.args) == 1
        yield ast.unparse(of.args[0] if scaled else of), scaled, call.lineno


def _reached(project: Any) -> list[Path]:
    return [f for f in project.imports.reached if f.stem not in NOT_PARTS and "test" not in f.stem]


def _near(project: Any) -> dict[Path, list[Path]]:
    """File → itself, the files that it imports, and those that import it."""
    files = _reached(project)
    linked = {f: {there for _, there, _ in project.imports.links(f)} for f in files}
    return {file: [f for f in files if f == file or f in linked[file] or file in linked[f]] for file in files}


def untended(project: Any, does: Callable[[ast.AST], bool]) -> tuple[str, int] | None:
    """(file, line) of a training loop where nothing near it does something, such as setting gradients to zero."""
    for file, near in _near(project).items():
        for loop in (n for n in nodes(file) if isinstance(n, ast.For | ast.While)):
            calls = {_name(n) for n in ast.walk(loop) if isinstance(n, ast.Call)}
            if not {"backward", "step"} <= calls or any(does(n) for f in near for n in nodes(f)):
                continue
            if not re.search(r"\b(LightningModule|Trainer|Accelerator)\b", ast.unparse(parsed(file))):
                return str(file.relative_to(project.root)), loop.lineno
    return None


def _zeroes(node: ast.AST) -> bool:
    stores = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "grad"
    return stores or (isinstance(node, ast.Call) and _name(node) in ("zero_grad", "zero_"))


def _trains(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "train"):
        return False
    return not node.args or getattr(node.args[0], "value", True) is True


def stays_in_evaluation(project: Any) -> tuple[str, int] | None:
    """(file, line) of the `.train()` before a loop that evaluates in every pass, where nothing near calls it as well.

    Nothing is said where a copy of the model may be evaluated, or the mode be put back in another way.
    """
    for files in _near(project).values():
        text = "\n".join(ast.unparse(parsed(f)) for f in files)
        if re.search(OTHER_MODES, text) or ".train(" not in text:
            continue
        functions: dict[str, list[ast.AST]] = {}
        for node in (n for f in files for _, n in definitions(f) if isinstance(n, ast.FunctionDef)):
            if node.name != "from_pretrained":  # it ends with model.eval()
                functions.setdefault(node.name, []).append(node)
        calls = {n for f in files for n in nodes(f) if isinstance(n, ast.Call) and _is_method(n, "train")}
        before = {
            call: str(file.relative_to(project.root))
            for file in files for f in nodes(file) if isinstance(f, ast.FunctionDef)
            for i, s in enumerate(f.body) if isinstance(s, ast.Expr) and _trains(call := s.value)
            and any(_reaches(_always(n.body), "eval", functions) and _reaches([n], "backward", functions)
                    for n in f.body[i:] if isinstance(n, ast.For | ast.While))
        }  # fmt: skip
        if calls and calls == before.keys():
            return next((path, call.lineno) for call, path in before.items())
    return None


def _is_method(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == name


def _reaches(start: list[ast.AST], method: str, functions: dict[str, list[ast.AST]]) -> bool:
    """Whether `x.method()` is called there, or in a function that is called there, as far as names tell."""
    seen, todo = set(), list(start)
    while todo:
        for call in (n for n in ast.walk(todo.pop()) if isinstance(n, ast.Call)):
            if _is_method(call, method):
                return True
            todo += functions.get(_name(call), []) if _name(call) not in seen else []
            seen.add(_name(call))
    return False


def _always(block: list[ast.stmt]) -> list[ast.AST]:
    """The statements of a loop's pass without those below an `if`, such as an evaluation in the last pass only."""
    found: list[ast.AST] = []
    for s in block:
        inner = [x for f in ("body", "finalbody") for x in getattr(s, f, None) or []]
        found += [] if isinstance(s, ast.If) else _always(inner) if inner else [s]
    return found


def freezes_backwards(project: Any) -> tuple[str, int] | None:
    """(file, line) where a word such as "pretrain" lets BERT's parameters train, and "finetune" freezes them."""
    for file in _reached(project):
        for loop in (n for n in nodes(file) if isinstance(n, ast.For) and "bert" in ast.unparse(n.iter)):
            if ast.unparse(loop.iter).endswith("parameters()"):
                found = {pair for n in ast.walk(loop) for pair in _frozen(n)}
                if found == {(True, True), (False, False)}:
                    return str(file.relative_to(project.root)), loop.lineno
    return None


def _frozen(node: ast.AST) -> Iterator[tuple[bool, bool]]:
    """(whether an option's word asks for a frozen BERT, what requires_grad becomes) of one `if` or assignment."""
    if isinstance(node, ast.If) and (frozen := _word(node.test)) is not None:
        for block, asked in ((node.body, frozen), (node.orelse, not frozen)):
            for target, value in (x for s in block for x in _assigned(s)):
                if getattr(target, "attr", "") == "requires_grad" and isinstance(value, ast.Constant):
                    yield asked, bool(value.value)
    for target, value in _assigned(node):
        if getattr(target, "attr", "") == "requires_grad" and (frozen := _word(value)) is not None:
            yield from ((frozen, True), (not frozen, False))


def _word(test: ast.expr) -> bool | None:
    """Whether `option == word` asks for a frozen BERT; None where it is no such comparison."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.NotEq):
        return None
    word = getattr(test.comparators[0], "value", None)
    if not isinstance(word, str) or word not in FROZEN | TRAINED:
        return None
    return (word in FROZEN) == isinstance(test.ops[0], ast.Eq)


def facts(project: Any, read: list[Loss]) -> dict[str, tuple[str, int] | None]:
    """The place of each thing that is wrong in their training, as far as the source alone tells; None where it is not.

    A loss counts as one of rounded outputs only if it compares them with labels.
    """
    cut = next((loss for loss in read if loss.task and loss.done & CUTS and loss.labelled), None)
    return {
        ROUNDED: cut and cut.place,
        TWICE: backward_twice(project),
        NEVER_ZERO: untended(project, _zeroes),
        NEVER_TRAINS: untended(project, _trains),
        STAYS: stays_in_evaluation(project),
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
