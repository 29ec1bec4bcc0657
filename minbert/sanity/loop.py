"""What their training loop does around the loss, read from the syntax tree and never run.

This is where gradients are computed and set to zero, where the model trains, and what of BERT is frozen.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minbert.sanity.layout import NOT_PARTS, TEST
from minbert.sanity.source import assigned, code_of, definitions, leaves, name_of, nodes

FROZEN, TRAINED = {"pretrain", "freeze", "last-linear-layer"}, {"finetune", "full-model"}
SCHEDULE = re.compile(r"LR$|OnPlateau$|WarmRestarts$|^get_\w*(schedule|warmup)\w*$")
OTHER_MODES = r"(?i)\b_?(ema|swa)(_|\b)|deepcopy|\.training = |import.*\b(lightning|accelerate|transformers)\b"


def backward_twice(project: Any) -> tuple[str, int] | None:
    """(file, line) where one pass runs both `loss.backward()` and the backward of the scaled loss."""
    for file in _reached(project):
        for node in nodes(file):
            for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if not isinstance(block, list):
                    continue
                for i, statement in enumerate(block):
                    for loss, scaled, line in _backward(statement):
                        # what an `if` may run as well; the two branches of one `if` do not meet here
                        earlier = (n for s in block[:i] for n in _inside(s, going_on=True))
                        later = (n for s in block[i + 1 :] for n in (s, *_inside(s)))
                        others = [b for n in (*block[:i], *earlier, *later) for b in _backward(n)]
                        if any(other == loss and by != scaled for other, by, _ in others):
                            return str(file.relative_to(project.root)), line
    return None


def _inside(statement: ast.stmt, going_on: bool = False) -> Iterator[ast.stmt]:
    """The statements below an `if` or `with`; going_on: without branches that leave the block around it."""
    branches = (statement.body, getattr(statement, "orelse", [])) if isinstance(statement, ast.If | ast.With) else ()
    for branch in branches:
        for below in branch if not (going_on and leaves(branch)) else ():
            yield below
            yield from _inside(below, going_on)


def _backward(node: ast.AST) -> Iterator[tuple[str, bool, int]]:
    """(loss, whether it is scaled, line) of `loss.backward()` and `scaler.scale(loss).backward()`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and name_of(call) == "backward" and isinstance(call.func, ast.Attribute):
        of = call.func.value
        scaled = isinstance(of, ast.Call) and name_of(of) == "scale" and len(of.args) == 1
        yield ast.unparse(of.args[0] if scaled else of), scaled, call.lineno


def _reached(project: Any) -> list[Path]:
    return [f for f in project.imports.reached if f.stem not in NOT_PARTS and not TEST.search(f.stem)]


def _near(project: Any) -> dict[Path, list[Path]]:
    """File → itself, the files that it imports, and those that import it."""
    files = _reached(project)
    linked = {f: {there for _, there, _ in project.imports.links(f)} for f in files}
    return {file: [f for f in files if f == file or f in linked[file] or file in linked[f]] for file in files}


def _loops(file: Path) -> Iterator[ast.For | ast.While]:
    """The loops of a file that compute gradients and step; none where a library may do a part of it."""
    if re.search(r"\b(LightningModule|Trainer|Accelerator)\b", code_of(file)):
        return
    for loop in (n for n in nodes(file) if isinstance(n, ast.For | ast.While)):
        if {"backward", "step"} <= {name_of(n) for n in _calls(loop)}:
            yield loop


def never_trains(project: Any) -> tuple[str, int] | None:
    """(file, line) of a training loop if nothing in its file or its neighbours calls `.train()`."""
    for file, near in _near(project).items():
        for loop in _loops(file):
            if not any(trains(n) for f in near for n in nodes(f)):
                return str(file.relative_to(project.root)), loop.lineno
    return None


def never_zeroed(project: Any) -> tuple[str, int] | None:
    """(file, line) of a training loop if neither it nor a loop around it, with what they call, zeroes gradients."""
    functions: dict[str, list[ast.AST]] = {}  # as they are called: "clear", ".step"
    for name, node in (pair for file in project.sources for pair in definitions(file)):
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, []).append(node)
            if name not in ("train", "eval"):  # `model.train()` does not call their function `train`
                functions.setdefault(f".{node.name}", []).append(node)
    for file in _reached(project):
        for loop in _loops(file):
            if any(map(zeroes, _run_by(loop, functions))):
                continue
            loops = (n for f in _reached(project) for n in nodes(f) if isinstance(n, ast.For | ast.While))
            around = (run for run in (_run_by(other, functions) for other in loops) if loop in run)
            if not any(map(zeroes, itertools.chain(*around))):
                return str(file.relative_to(project.root)), loop.lineno
    return None


def _run_by(start: ast.AST, functions: dict[str, list[ast.AST]]) -> set[ast.AST]:
    """The nodes of a piece of code, and of all functions that it may call, as far as names tell."""
    seen, todo, names = set(), [start], set()
    while todo:
        below = set(ast.walk(todo.pop()))
        seen |= below
        called = {n.id for n in below if isinstance(n, ast.Name)}
        called |= {f".{n.attr}" for n in below if isinstance(n, ast.Attribute)}
        new = called - names
        names |= new
        todo += [function for name in new for function in functions.get(name, ())]
    return seen


def zeroes(node: ast.AST) -> bool:
    stores = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "grad"
    return stores or (isinstance(node, ast.Call) and name_of(node) in ("zero_grad", "zero_", "_foreach_zero_"))


def zeroed_once_an_epoch(project: Any) -> tuple[str, int] | None:
    """(file, line) of a loop over batches that steps and never zeroes, where the loop around it does."""
    zeroing = {file: {f.name for f in _functions(file) if any(map(zeroes, ast.walk(f)))} for file in _reached(project)}
    for file, near in _near(project).items():
        if re.search(r"\b(LightningModule|Trainer|Accelerator)\b", code_of(file)):
            continue
        clearing = {"zero_grad", "zero_"}.union(*(zeroing[f] for f in near))
        for outer in (n for n in nodes(file) if isinstance(n, ast.For | ast.While)):
            cleared = any(name_of(n) == "zero_grad" for s in outer.body if isinstance(s, ast.Expr) for n in _calls(s))
            for loop in (s for s in outer.body if cleared and isinstance(s, ast.For)):
                names, text = {name_of(n) for n in _calls(loop)}, ast.unparse(loop)
                over_batches = re.search(r"(?i)load|batch|data|tqdm", ast.unparse(loop.iter))
                steps = "backward" in names and re.search(r"(?i)(opt\w*|scaler)\.step\(", text)
                if over_batches and steps and not names & clearing and not re.search(r"zero_grad|\.grad\b", text):
                    return str(file.relative_to(project.root)), loop.lineno
    return None


def _functions(file: Path) -> Iterator[ast.FunctionDef]:
    return (node for _, node in definitions(file) if isinstance(node, ast.FunctionDef))


def unused_schedule(project: Any) -> tuple[str, int] | None:
    """(file, line) where a function that trains makes a schedule of the learning rate and never names it again."""
    for file in _reached(project):
        for function in (n for n in nodes(file) if isinstance(n, ast.FunctionDef)):
            if not {"backward", "step"} <= {name_of(n) for n in _calls(function)}:
                continue
            names = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
            used = {n.id for n in names}.union(*(n.names for n in ast.walk(function) if isinstance(n, ast.Global)))
            for target, value in (pair for n in ast.walk(function) for pair in assigned(n)):
                made = isinstance(target, ast.Name) and isinstance(value, ast.Call) and SCHEDULE.search(name_of(value))
                if made and target.id not in used:
                    return str(file.relative_to(project.root)), value.lineno
    return None


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (n for n in ast.walk(node) if isinstance(n, ast.Call))


def trains(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "train"):
        return False
    mode = next(iter([*node.args, *(k.value for k in node.keywords)]), None)
    return not isinstance(mode, ast.Constant) or bool(mode.value)


def stays_in_evaluation(project: Any) -> tuple[str, int] | None:
    """(file, line) of the `.train()` before a loop that evaluates in every pass, if nothing else near calls `.train()`.

    None where a copy of the model may be evaluated, or the mode may be put back in another way.
    """
    for files in _near(project).values():
        text = "\n".join(code_of(f) for f in files)
        if re.search(OTHER_MODES, text) or ".train(" not in text:
            continue
        functions: dict[str, list[ast.AST]] = {}
        for node in (n for f in files for n in _functions(f)):
            if node.name != "from_pretrained":  # it ends with model.eval()
                functions.setdefault(node.name, []).append(node)
        calls = {n for f in files for n in nodes(f) if isinstance(n, ast.Call) and _is_method(n, "train")}
        before = {
            call: str(file.relative_to(project.root))
            for file in files for f in nodes(file) if isinstance(f, ast.FunctionDef)
            for i, s in enumerate(f.body) if isinstance(s, ast.Expr) and trains(call := s.value)
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
            todo += functions.get(name_of(call), []) if name_of(call) not in seen else []
            seen.add(name_of(call))
    return False


def _always(block: list[ast.stmt]) -> list[ast.AST]:
    """The statements of a loop's pass without those below an `if`, such as an evaluation in the last pass only."""
    statements: list[ast.AST] = []
    for s in block:
        inner = [x for f in ("body", "finalbody") for x in getattr(s, f, None) or []]
        statements += [] if isinstance(s, ast.If) else _always(inner) if inner else [s]
    return statements


def freezes_backwards(project: Any) -> tuple[str, int] | None:
    """(file, line) where a word such as "pretrain" lets BERT's parameters train, and "finetune" freezes them."""
    for file in _reached(project):
        for loop in (n for n in nodes(file) if isinstance(n, ast.For) and "bert" in ast.unparse(n.iter)):
            if ast.unparse(loop.iter).endswith("parameters()"):
                pairs = {pair for n in ast.walk(loop) for pair in _frozen(n)}
                if pairs == {(True, True), (False, False)}:
                    return str(file.relative_to(project.root)), loop.lineno
    return None


def _frozen(node: ast.AST) -> Iterator[tuple[bool, bool]]:
    """(whether an option's word asks for a frozen BERT, what requires_grad becomes) of one `if` or assignment."""
    if isinstance(node, ast.If) and (frozen := _word(node.test)) is not None:
        for block, freezes in ((node.body, frozen), (node.orelse, not frozen)):
            for target, value in (x for s in block for x in assigned(s)):
                if getattr(target, "attr", "") == "requires_grad" and isinstance(value, ast.Constant):
                    yield freezes, bool(value.value)
    for target, value in assigned(node):
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
