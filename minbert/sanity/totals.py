"""How their training makes one loss of several, read from the syntax tree and never run.

A loss may be computed and then forgotten, and the learned weights of several losses may have no lower bound.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from minbert.sanity.source import assigned, definitions, name_of, nodes, parsed

KINDS = {  # how a loss is called → what it is
    "cross_entropy": "ce", "CrossEntropyLoss": "ce", "nll_loss": "nll", "NLLLoss": "nll",
    "binary_cross_entropy": "bce", "BCELoss": "bce", "binary_cross_entropy_with_logits": "logits",
    "BCEWithLogitsLoss": "logits", "mse_loss": "mse", "MSELoss": "mse", "l1_loss": "l1", "L1Loss": "l1",
    "smooth_l1_loss": "l1", "SmoothL1Loss": "l1", "huber_loss": "l1", "HuberLoss": "l1",
    "cosine_embedding_loss": "cosine", "CosineEmbeddingLoss": "cosine",
}  # fmt: skip
NUMBERS = ("item", "detach", "tolist", "numpy")  # what makes a number without a gradient of a loss, as float(…) does
WITHOUT = {*NUMBERS, "argmax", "round", "data"}  # what leaves a model's outputs without a gradient
BY_LIBRARY = ("training_step", "compute_loss")  # methods whose result a library calls `backward` on
HELD_BACK = ("val", "dev", "eval", "test")  # a loss of such a name is of data that nothing is learned from


@lru_cache(maxsize=512)
def kinds_of(file: Path) -> dict[str, str]:
    """Name of a loss function, or of a variable or an attribute that holds a loss module in this file → a KIND."""
    kinds: dict[str, str] = {}
    for target, value in (pair for node in nodes(file) for pair in assigned(node)):
        kind = KINDS.get(name_of(value)) if isinstance(value, ast.Call) else None
        name = getattr(target, "attr", getattr(target, "id", ""))
        if kind and name:
            kinds[name] = kind if kinds.get(name, kind) == kind else ""
    return kinds | KINDS


# ------------------------------------------------------------------------------------------------ what is learned from


def learned(project: Any) -> set[ast.AST]:
    """The expressions whose gradient a `backward` of theirs computes, as far as names tell."""
    functions: dict[str, list[Body]] = {}
    bodies = [Body(parsed(file)) for file in project.imports.reached]
    for file in project.imports.reached:
        for name, node in definitions(file):
            if isinstance(node, ast.FunctionDef) and "no_grad" not in "".join(map(ast.unparse, node.decorator_list)):
                bodies.append(Body(node))
                functions.setdefault(name.rpartition(".")[2], []).append(bodies[-1])
    todo = [(body, value, loops) for body in bodies for value, loops in body.sent_backward()]
    todo += [(body, value, loops) for name in BY_LIBRARY for body in functions.get(name, ())
             for value, loops in body.returned()]  # fmt: skip
    seen: set[ast.AST] = set()
    while todo:
        body, value, loops = todo.pop()
        for node in (n for n in _with_gradient(value) if n not in seen):
            seen.add(node)
            if isinstance(node, ast.Name | ast.Attribute):
                todo += ((body, *given) for given in body.values(ast.unparse(node), loops))
            elif isinstance(node, ast.Call):
                todo += ((f, *given) for f in functions.get(name_of(node), ()) for given in f.returned())
    return seen


class Body:
    """The statements of a function with the loops around each, without those in inner functions or below `no_grad`."""

    def __init__(self, node: ast.Module | ast.FunctionDef):
        self.statements = list(self._below(node.body, ()))

    def _below(self, block: list[ast.stmt], loops: tuple) -> Iterator[tuple[ast.stmt, tuple]]:
        for statement in block:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or _is_still(statement):
                continue
            inside = (*loops, statement) if isinstance(statement, ast.For | ast.While) else loops
            yield statement, inside
            for name in ("body", "orelse", "finalbody"):
                yield from self._below(getattr(statement, name, []), inside)
            for handler in getattr(statement, "handlers", []):
                yield from self._below(handler.body, inside)

    def sent_backward(self) -> Iterator[tuple[ast.expr, tuple]]:
        """(expression, the loops around it) of what `backward` is called on or with."""
        for statement, loops in self.statements:
            for call in (n for n in ast.walk(statement) if isinstance(n, ast.Call) and not hasattr(statement, "body")):
                if name_of(call).endswith("backward") or name_of(call) == "grad":
                    yield from ((value, loops) for value in (call.func, *call.args))

    def returned(self) -> Iterator[tuple[ast.expr, tuple]]:
        return ((s.value, loops) for s, loops in self.statements if isinstance(s, ast.Return) and s.value)

    def values(self, name: str, loops: tuple) -> Iterator[tuple[ast.expr, tuple]]:
        """What a name that is read inside these loops may be given. A loop's own variable is made anew in each pass."""
        for statement, around in self.statements:
            for target, value in assigned(statement):
                of = target.value if isinstance(target, ast.Subscript) else target
                names = [ast.unparse(n) for n in (of.elts if isinstance(of, ast.Tuple) else [of])]
                if name in names and (of is not target or loops[: len(around)] == around):
                    yield value, around
            if isinstance(statement, ast.AugAssign | ast.For) and ast.unparse(statement.target) == name:
                yield statement.iter if isinstance(statement, ast.For) else statement.value, around
            call = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(call, ast.Call) and name_of(call) in ("append", "extend", "insert"):
                added = ast.unparse(getattr(call.func, "value", call.func)) == name
                yield from ((value, around) for value in call.args if added)


def _is_still(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.With) and "no_grad" in ast.unparse(statement.items[0])


def _is_number(node: ast.AST) -> bool:
    """Whether this makes a number without a gradient: `loss.item()`, `float(loss)`; `loss.float()` does not."""
    return isinstance(node, ast.Call) and (name_of(node) in NUMBERS or getattr(node.func, "id", "") == "float")


def _with_gradient(node: ast.AST) -> Iterator[ast.AST]:
    if not _is_number(node):
        yield node
        for below in ast.iter_child_nodes(node):
            yield from _with_gradient(below)


# ------------------------------------------------------------------------------------------------ what is left out


def left_out(project: Any, learns: set[ast.AST]) -> tuple[str, int] | None:
    """(file, line) of a loss in a loop that calls `backward`: it is never read there, or overwritten before it is.

    learns: the expressions that `learned` gives.
    """
    for file in project.imports.reached:
        kinds = kinds_of(file)
        for function in (node for _, node in definitions(file) if isinstance(node, ast.FunctionDef)):
            for loop in (n for n in ast.walk(function) if isinstance(n, ast.For | ast.While)):
                statements = list(_statements(loop.body))
                if any(_calls_backward(block[i]) for block, i in statements):
                    for block, i in statements:
                        name = _name_of_loss(block[i], kinds)
                        unread = name and (name not in _reads(function) or _overwritten(name, block[i + 1 :]))
                        if unread and not _is_metric(block[i], function, kinds, learns):
                            return str(file.relative_to(project.root)), block[i].lineno
    return None


def _is_metric(statement: ast.stmt, function: ast.AST, kinds: dict[str, str], learns: set[ast.AST]) -> bool:
    """Whether a loss is of numbers without a gradient, or of outputs from which another loss learns."""
    pairs = [pair for node in ast.walk(function) for pair in assigned(node)]
    numbers: set[str] = set()  # names of what has no gradient

    def without_gradient(value: ast.AST) -> bool:
        return any(getattr(n, "attr", "") in WITHOUT or getattr(n, "id", "") in numbers for n in ast.walk(value))

    while more := {t.id for t, v in pairs if isinstance(t, ast.Name) and without_gradient(v)} - numbers:
        numbers |= more
    mine = list(_losses(statement, kinds))
    if any(without_gradient(value) for call in mine for value in _arguments(call)):
        return True

    def same_outputs(one: ast.Call, other: ast.Call) -> bool:
        outputs, (first, last) = _arguments(one)[0], sorted([one.lineno, other.lineno])
        names = {n.id for n in ast.walk(outputs) if isinstance(n, ast.Name)}
        new = {ast.unparse(target) for target, _ in pairs if first < target.lineno < last}
        return ast.dump(outputs) == ast.dump(_arguments(other)[0]) and not names & new

    others = [call for call in _losses(function, kinds) if call in learns and call not in mine]
    return any(same_outputs(one, other) for one in mine for other in others)


def _losses(node: ast.AST, kinds: dict[str, str]) -> Iterator[ast.Call]:
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Call))
    return (n for n in calls if kinds.get(name_of(n)) and len(_arguments(n)) > 1)


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(k.value for k in call.keywords)]


def _statements(block: list[ast.stmt]) -> Iterator[tuple[list[ast.stmt], int]]:
    """(block, index) of every statement of a loop's body, without those in an inner loop or below `no_grad`."""
    for i, statement in enumerate(block):
        yield block, i
        if isinstance(statement, ast.If | ast.Try | ast.With) and not _is_still(statement):
            for inner in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, inner, []))


def _calls_backward(statement: ast.stmt) -> bool:
    calls = (n for n in ast.walk(statement) if isinstance(n, ast.Call)) if isinstance(statement, ast.Expr) else ()
    return any(name_of(call).endswith("backward") for call in calls)


def _name_of_loss(statement: ast.stmt, kinds: dict[str, str]) -> str:
    """The variable that gets a loss there; "" if there is none, or if it gets a number without a gradient."""
    for target, value in assigned(statement):
        held_back = any(word in getattr(target, "id", "").lower() for word in HELD_BACK)
        losses = (n for n in _with_gradient(value) if isinstance(n, ast.Call) and kinds.get(name_of(n)))
        if isinstance(target, ast.Name) and not held_back and any(len(_arguments(loss)) > 1 for loss in losses):
            return target.id
    return ""


def _reads(node: ast.AST) -> set[str]:
    """The names that are read there, other than to print a value."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.Global | ast.Nonlocal):
        return set(node.names)
    if isinstance(node, ast.JoinedStr) or _is_number(node) or (isinstance(node, ast.Call) and name_of(node) == "print"):
        return set()
    names = set().union(*map(_reads, ast.iter_child_nodes(node)))
    return names | {node.target.id} if isinstance(getattr(node, "target", None), ast.Name) else names


def _overwritten(name: str, later: list[ast.stmt]) -> bool:
    """Whether one of these statements gives a name another value, and none up to there reads it."""
    for statement in later:
        if name in _reads(statement):
            return False
        if any(isinstance(target, ast.Name) and target.id == name for target, _ in assigned(statement)):
            return True
    return False


def unbounded(project: Any) -> tuple[str, int] | None:
    """(file, line) of exp(s)·loss + s, which falls without end as s does. Kendall et al. have exp(-s)·loss + s."""
    for file in project.imports.reached:
        for node in nodes(file):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                for product, other in ((node.left, node.right), (node.right, node.left)):
                    exps = [n for n in _factors(product) if isinstance(n, ast.Call) and name_of(n) == "exp" and n.args]
                    same = {ast.unparse(n.args[0]) for n in exps} & {ast.unparse(n) for n in _factors(other)}
                    if same and "loss" in ast.unparse(product).lower() and "-" not in ast.unparse(other):
                        return str(file.relative_to(project.root)), node.lineno
    return None


def _factors(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _factors(node.left)
        yield from _factors(node.right)
    else:
        yield node
