"""What their training does around a step, read from the syntax tree and never run.

Which weights the optimizer has, when gradients are cut off at a norm and set to zero, whose head a task's data go
through, and how the best weights are kept.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minbert.sanity.layout import NOT_PARTS, TEST
from minbert.sanity.source import assigned, name_of, nodes

OPTIMIZER = re.compile(r"^(AdamW?|AdamW\w+|SGD\w*|Lion|RAdam|NAdam|Adagrad|RMSprop|Adamax|Adafactor|Sophia\w*)$")
CLIPS = ("clip_grad_norm_", "clip_grad_value_", "clip_grad_norm")
OF_TASK = {"predict_paraphrase": r"(?i)para|quora", "predict_similarity": r"(?i)\bsts|_sts|simil",
           "predict_sentiment": r"(?i)\bsst|_sst|sentiment"}  # fmt: skip
LOSSES_OF = {  # what compares outputs of a head with the labels of its task, and is not used for the others
    "predict_paraphrase": r"^(binary_cross_entropy(_with_logits)?|BCE(WithLogits)?Loss)$",
    "predict_similarity": r"^(mse_loss|MSELoss)$",
    "predict_sentiment": r"^(cross_entropy|CrossEntropyLoss)$",
}

Place = tuple[str, int] | None


def _reached(project: Any) -> Iterator[Path]:
    return (f for f in project.imports.reached if f.stem not in NOT_PARTS and not TEST.search(f.stem))


def _placed(project: Any, found: Callable[[Path], Iterator[ast.AST]]) -> Place:
    """(file, line) of the first node that `found` gives for one of their files."""
    for file in _reached(project):
        if node := next(found(file), None):
            return str(file.relative_to(project.root)), node.lineno
    return None


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (n for n in ast.walk(node) if isinstance(n, ast.Call))


def _trainings(file: Path) -> Iterator[ast.FunctionDef]:
    """The functions that compute gradients and step."""
    for node in nodes(file):
        if isinstance(node, ast.FunctionDef) and {"backward", "step"} <= {name_of(n) for n in _calls(node)}:
            yield node


def only_bert(project: Any) -> Place:
    """Where the one optimizer of a training that uses the heads has nothing but `….bert.parameters()`."""

    def found(file: Path) -> Iterator[ast.AST]:
        for function in _trainings(file):
            calls = list(_calls(function))
            made = [c for c in calls if OPTIMIZER.match(name_of(c))]
            heads = any(name_of(c) in OF_TASK for c in calls)
            stepped = {ast.unparse(c.args[0] if c.args else c.func.value) for c in calls if _steps(c)}
            alone = len(made) == len(stepped) == 1 and made[0].args and "add_param_group" not in map(name_of, calls)
            others = (c for other in _trainings(file) if other is not function for c in _calls(other))
            if (
                alone
                and heads
                and not any(OPTIMIZER.match(name_of(c)) for c in others)
                and re.fullmatch(r"[\w.]+\.bert\.parameters\(\)", ast.unparse(made[0].args[0]))
            ):
                yield made[0]

    return _placed(project, found)


def zeroed_before(project: Any) -> Place:
    """Where a loop sets gradients to zero in every pass, and steps only in some passes, `if n % 4 == 0`."""

    def found(file: Path) -> Iterator[ast.AST]:
        for loop in (n for n in nodes(file) if isinstance(n, ast.For | ast.While)):
            kinds = [_kind(s) for s in loop.body]
            steps = [c for c in _calls(loop) if _steps(c)]
            by_hand = any(isinstance(n, ast.Attribute) and n.attr == "grad" for n in ast.walk(loop))  # kept elsewhere
            rare = [c for s in loop.body if isinstance(s, ast.If) and _is_modulo(s.test)
                    for below in s.body for c in _calls(below) if _is_step(c)]  # fmt: skip
            if {"zero", "backward"} <= {*kinds} and rare and len(rare) == len(steps) and not by_hand:
                yield loop.body[kinds.index("zero")]

    return _placed(project, found)


def _is_modulo(test: ast.expr) -> bool:
    return any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod) for n in ast.walk(test))


def _steps(call: ast.Call) -> bool:
    """A step of anything but a schedule."""
    return name_of(call) == "step" and isinstance(call.func, ast.Attribute) and not re.search("(?i)sched", _owner(call))


def _is_step(call: ast.Call) -> bool:
    """`optimizer.step()` or `scaler.step(optimizer)`."""
    return _steps(call) and bool(re.search(r"(?i)opt|scaler", _owner(call)))


def _kind(statement: ast.stmt) -> str:
    """ "backward", "step", "clip" or "zero" of a statement that is one call; "" for others."""
    call = getattr(statement, "value", None) if isinstance(statement, ast.Expr | ast.Assign) else None
    if not isinstance(call, ast.Call):
        return ""
    name = name_of(call)
    if name == "backward" or name == "zero_grad":
        return {"backward": "backward", "zero_grad": "zero"}[name]
    return "clip" if name in CLIPS else "step" if _is_step(call) else ""


def clipped_in_vain(project: Any) -> Place:
    """Where gradients are clipped after the step that used them, or before `backward` makes the next ones.

    All of the three stand in one block, so that their order is known. Where a step comes before and after, there are
    several optimizers.
    """

    def found(file: Path) -> Iterator[ast.AST]:
        for node in nodes(file):
            for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if not isinstance(block, list):
                    continue
                order = [(kind, s) for s in block if (kind := _kind(s)) in ("backward", "step", "clip")]
                known = [kind for kind, _ in order]
                inner = {name_of(c) for s in block if not _kind(s) for c in _calls(s)}
                if {"backward", "step", "clip"} <= {*known} and not inner & {"backward", "step", *CLIPS}:
                    yield from (
                        s
                        for i, (kind, s) in enumerate(order)
                        if kind == "clip" and _before(known, i) == "step" != _before(known[::-1], len(known) - 1 - i)
                    )

    return _placed(project, found)


def _before(kinds: list[str], i: int) -> str:
    """What came last before this clipping: `backward`, or `step`, perhaps in the pass before."""
    return next(kind for kind in (*reversed(kinds[:i]), *reversed(kinds)) if kind != "clip")


def kept_by_reference(project: Any) -> Place:
    """Where `best = model.state_dict()` is set while the model trains, and loaded into the same model afterwards.

    A name that is given anything else too, such as what a file has, may hold a copy.
    """

    def found(file: Path) -> Iterator[ast.AST]:
        for function in _trainings(file):
            loops = [n for n in ast.walk(function) if isinstance(n, ast.For | ast.While)]
            loops = [n for n in loops if any(map(_is_step, _calls(n)))]
            loads = {(ast.unparse(c.func.value), ast.unparse(c.args[0]), c) for c in _calls(function)
                     if name_of(c) == "load_state_dict" and isinstance(c.func, ast.Attribute) and c.args}  # fmt: skip
            for loop in loops:
                inside = set(ast.walk(loop))
                for target, value in (pair for n in inside for pair in assigned(n)):
                    if isinstance(value, ast.Call) and name_of(value) == "state_dict" and _owner(value):
                        pair = _owner(value), ast.unparse(target)
                        given = [v for n in ast.walk(function) for t, v in assigned(n) if ast.unparse(t) == pair[1]]
                        kept = all(isinstance(v, ast.Constant) or name_of(v) == "state_dict" for v in given)
                        if kept and any(load[:2] == pair and load[2] not in inside for load in loads):
                            yield value

    return _placed(project, found)


def _owner(call: ast.Call) -> str:
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def other_head(project: Any) -> Place:
    """Where the loop over one task's data computes that task's loss of another task's head, and its own is not trained.

    Whose data they are is told by the names in `for batch in para_loader`, or in `if task == "para"`.
    """

    def found(file: Path) -> Iterator[ast.AST]:
        for function in _trainings(file):
            used = {name_of(c) for c in _calls(function)} | {n.attr for n in ast.walk(function)
                                                             if isinstance(n, ast.Attribute)}  # fmt: skip
            for mine in OF_TASK.keys() - used:
                for block in _of_task(function, mine):
                    calls = [c for s in block for c in _calls(s)]
                    of_others = [c for c in calls if name_of(c) in OF_TASK]
                    made = [pair for s in block for n in ast.walk(s) for pair in assigned(n)]
                    outputs = {ast.unparse(t) for t, v in made if any(name_of(c) in OF_TASK for c in _calls(v))}
                    losses = [c for c in calls if re.search(LOSSES_OF[mine], name_of(c) or name_of(c.func))]
                    if any(_is_of(c, outputs) for c in losses):
                        yield of_others[0]

    return _placed(project, found)


def _is_of(loss: ast.Call, outputs: set[str]) -> bool:
    """Whether a loss is of a head's outputs: of a call of `predict_…`, or of a name for what that gave."""
    inside = (n for x in (*loss.args, *(k.value for k in loss.keywords)) for n in ast.walk(x))
    return any((isinstance(n, ast.Call) and name_of(n) in OF_TASK) or (isinstance(n, ast.Name) and n.id in outputs)
               for n in inside)  # fmt: skip


def _of_task(function: ast.AST, head: str) -> Iterator[list[ast.stmt]]:
    """The blocks of a function that are for a task's data alone."""
    for node in ast.walk(function):
        about = node.iter if isinstance(node, ast.For) else node.test if isinstance(node, ast.If) else None
        if about is not None and [h for h in OF_TASK if re.search(OF_TASK[h], ast.unparse(about))] == [head]:
            negated = any(isinstance(n, ast.NotEq | ast.NotIn | ast.Not) for n in ast.walk(about))
            yield from () if negated else (node.body,)


def log_target(project: Any) -> Place:
    """Where PyTorch's `kl_div` gets log-probabilities as its target, and is not told so."""

    def found(file: Path) -> Iterator[ast.AST]:
        imported = any(isinstance(n, ast.ImportFrom) and n.module == "torch.nn.functional"
                       and any(a.name == "kl_div" and not a.asname for a in n.names) for n in nodes(file))  # fmt: skip
        names = r"(\w+\.)*(F|functional)\.kl_div" + ("|kl_div" if imported else "")
        for call in (n for n in nodes(file) if isinstance(n, ast.Call) and re.fullmatch(names, ast.unparse(n.func))):
            options = {k.arg: k.value for k in call.keywords}
            target = options.get("target") or next(iter(call.args[1:2]), None)
            logs = isinstance(target, ast.Call) and name_of(target) == "log_softmax"
            if logs and not {"log_target", None} & options.keys() and len(call.args) < 6:
                yield call

    return _placed(project, found)
