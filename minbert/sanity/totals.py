"""How their training makes one loss of several, read from the syntax tree and never run.

A loss may be computed and then forgotten, and the learned weights of several losses may have no lower bound.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from minbert.sanity.source import assigned, definitions, name_of, nodes

KINDS = {  # how a loss is called → what it is
    "cross_entropy": "ce", "CrossEntropyLoss": "ce", "nll_loss": "nll", "NLLLoss": "nll",
    "binary_cross_entropy": "bce", "BCELoss": "bce", "binary_cross_entropy_with_logits": "logits",
    "BCEWithLogitsLoss": "logits", "mse_loss": "mse", "MSELoss": "mse", "l1_loss": "l1", "L1Loss": "l1",
    "smooth_l1_loss": "l1", "SmoothL1Loss": "l1", "huber_loss": "l1", "HuberLoss": "l1",
    "cosine_embedding_loss": "cosine", "CosineEmbeddingLoss": "cosine",
}  # fmt: skip
NUMBERS = ("item", "float", "detach")  # what makes a number without a gradient of a loss
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


def left_out(project: Any) -> tuple[str, int] | None:
    """(file, line) of a loss in a loop that calls `backward`: it is never read there, or overwritten before it is."""
    for file in project.imports.reached:
        for function in (node for _, node in definitions(file) if isinstance(node, ast.FunctionDef)):
            for loop in (n for n in ast.walk(function) if isinstance(n, ast.For | ast.While)):
                statements = list(_statements(loop.body))
                if any(_calls_backward(block[i]) for block, i in statements):
                    for block, i in statements:
                        name = _name_of_loss(block[i], kinds_of(file))
                        if name and (name not in _reads(function) or _overwritten(name, block[i + 1 :])):
                            return str(file.relative_to(project.root)), block[i].lineno
    return None


def _statements(block: list[ast.stmt]) -> Iterator[tuple[list[ast.stmt], int]]:
    """(block, index) of every statement of a loop's body, without those in an inner loop or below `no_grad`."""
    for i, statement in enumerate(block):
        yield block, i
        still = isinstance(statement, ast.With) and "no_grad" in ast.unparse(statement.items[0])
        if isinstance(statement, ast.If | ast.Try | ast.With) and not still:
            for inner in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, inner, []))


def _calls_backward(statement: ast.stmt) -> bool:
    calls = (n for n in ast.walk(statement) if isinstance(n, ast.Call)) if isinstance(statement, ast.Expr) else ()
    return any(name_of(call).endswith("backward") for call in calls)


def _name_of_loss(statement: ast.stmt, kinds: dict[str, str]) -> str:
    """The variable that gets a loss there; "" if there is none, or if it gets a number without a gradient."""

    def has_loss(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and name_of(node) in NUMBERS:
            return False
        is_loss = isinstance(node, ast.Call) and bool(kinds.get(name_of(node))) and len(node.args + node.keywords) > 1
        return is_loss or any(map(has_loss, ast.iter_child_nodes(node)))

    for target, value in assigned(statement):
        if isinstance(target, ast.Name) and has_loss(value) and not any(w in target.id.lower() for w in HELD_BACK):
            return target.id
    return ""


def _reads(node: ast.AST) -> set[str]:
    """The names that are read there, other than to print a value."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.Global | ast.Nonlocal):
        return set(node.names)
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and name_of(node) in (*NUMBERS, "print")):
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
