"""What stands in a file, by its syntax tree: definitions, imports, what a script makes, what is still to be written.

Nothing here runs anybody's code. What was read of a file is kept: a child reads a project once, for all of its parts.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=512)
def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file; an empty one where it cannot be read or parsed. The same text has the same tree."""
    try:
        return _tree(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return ast.Module([], [])


_tree = lru_cache(maxsize=512)(ast.parse)


def nodes(file: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree."""
    return _nodes(parsed(file))


@lru_cache(maxsize=512)
def _nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def code_of(file: Path) -> str:
    """The code of a file in one layout, without comments."""
    return _code(parsed(file))


_code = lru_cache(maxsize=512)(ast.unparse)


def definitions(file: Path) -> tuple[tuple[str, ast.AST], ...]:
    """(qualified name, node) of every class and function in a file, as `BertLayer.forward`."""
    return _all_definitions(parsed(file))


@lru_cache(maxsize=512)
def _all_definitions(tree: ast.Module) -> tuple[tuple[str, ast.AST], ...]:
    return tuple(_definitions(tree))


def _definitions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{node.name}".lstrip(".")
            yield name, node
            yield from _definitions(node, name)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(node, inside)


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, level) of what a file imports, wherever in it; level as in `from .. import x`."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


@lru_cache(maxsize=512)
def top_names(file: Path) -> set[str]:
    """The names that a file defines at its top level: classes, functions and variables."""
    names = {name for name, _ in definitions(file) if "." not in name}
    for node in parsed(file).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if hasattr(node, "target") else []
        names |= {t.id for target in targets for t in ast.walk(target) if isinstance(t, ast.Name)}
    return names


def main_block(file: Path) -> list[ast.stmt]:
    """The statements below `if __name__ == "__main__":`."""
    return [
        below
        for node in parsed(file).body
        if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        for below in node.body
    ]


def is_magic(name: str) -> bool:
    return name.startswith("__")


def called(call: ast.Call) -> str:
    """The last part of what a call calls: `predict_sentiment` of `self.model.predict_sentiment(x)`."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def calls(file: Path) -> tuple[tuple[ast.Call, tuple[ast.AST, ...]], ...]:
    """(call, the nodes around it from the module inwards) of every call in a file."""
    return _calls(parsed(file))


@lru_cache(maxsize=512)
def _calls(tree: ast.Module) -> tuple[tuple[ast.Call, tuple[ast.AST, ...]], ...]:
    return tuple(_within(tree, ast.Call, ()))


def _within(node: ast.AST, kind: type, path: tuple) -> Iterator[tuple[Any, tuple[ast.AST, ...]]]:
    if isinstance(node, kind):
        yield node, path
    path = (*path, node)
    for child in ast.iter_child_nodes(node):
        yield from _within(child, kind, path)


@lru_cache(maxsize=256)
def made_by_script(file: Path) -> dict[str, list[tuple[ast.Assign, list[ast.AST]]]]:
    """The names that a file's main block assigns, or a function that declares them global, with the assignments."""
    main = {id(n) for statement in main_block(file) for n in ast.walk(statement)}
    declared: dict[str, set[int]] = {}
    for _, function in definitions(file):
        for name in {g for s in ast.walk(function) if isinstance(s, ast.Global) for g in s.names}:
            declared.setdefault(name, set()).update(id(n) for n in ast.walk(function))
    made: dict[str, list] = {}
    if main or declared:
        for node, path in _within(parsed(file), ast.Assign, ()):
            for name in (n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                if id(node) in main or id(node) in declared.get(name, ()):
                    made.setdefault(name, []).append((node, [*path, node]))
    return made


@lru_cache(maxsize=512)
def acts(file: Path) -> bool:
    """Whether a file, such as an exported notebook, calls its own functions and classes when it is imported."""
    own = {name for name, _ in definitions(file) if "." not in name}
    defining = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)
    acting = [node for node in parsed(file).body if not isinstance(node, defining)]
    calls = [n.func for node in acting for n in ast.walk(node) if isinstance(n, ast.Call)]
    return any(isinstance(function, ast.Name) and function.id in own for function in calls)


def _computes_nothing(step: ast.FunctionDef) -> bool:
    """Whether an optimizer's step only names things, as in a starter: no arithmetic, no call but the closure's."""
    calls = [n.func for n in ast.walk(step) if isinstance(n, ast.Call)]
    harmless = [ast.unparse(call).endswith(("closure", "Error", "enable_grad", "no_grad")) for call in calls]
    return all(harmless) and not any(isinstance(n, ast.BinOp | ast.AugAssign) for n in ast.walk(step))


def unfilled(node: ast.FunctionDef) -> str:
    """How a function is still to be written: "raises", "empty", "placeholder", or "" if it is not."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    raises = [s for s in body if isinstance(s, ast.Raise) and s.exc and "NotImplementedError" in ast.unparse(s.exc)]
    if raises:
        return "raises"

    def nothing(statement: ast.stmt) -> bool:
        value = getattr(statement, "value", None)
        return isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Return | ast.Expr)
            and (value is None or (isinstance(value, ast.Constant) and value.value in (None, ...)))
        )

    if all(map(nothing, body)) or (node.name == "step" and _computes_nothing(node)):
        return "empty"
    returned = {id(s.value) for s in ast.walk(node) if isinstance(s, ast.Return)}  # `return loss` alone is no use
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in returned]
    none = [
        target.id
        for s in body
        if isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant) and s.value.value is None
        for target in s.targets
        if isinstance(target, ast.Name)
    ]

    def only_none(name: str) -> bool:
        stored = [n for n in names if n.id == name and isinstance(n.ctx, ast.Store)]
        return len(stored) == 1 and any(n.id == name and isinstance(n.ctx, ast.Load) for n in names)

    return "placeholder" if any(map(only_none, none)) else ""


def assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of what a statement assigns, element by element where both sides are tuples."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=False)
            else:
                yield target, node.value


def leaves(block: list[ast.stmt]) -> bool:
    """Whether what follows an `if` does not run after this branch of it."""
    return bool(block) and isinstance(block[-1], ast.Continue | ast.Break | ast.Return | ast.Raise)


def name_of(call: Any) -> str:
    function = call.func if isinstance(call, ast.Call) else call
    return getattr(function, "attr", getattr(function, "id", ""))
