"""What the exercise's tests do with a copy: put bodies back, look for what is left of them, ask the copy's check."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Marked = tuple[str, str]  # file, function


@cache
def defined(source: str, name: str) -> ast.FunctionDef:
    """The function or method of that name."""
    node = ast.parse(source)
    for part in name.split("."):
        node = next(n for n in node.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part)
    return node


def put_back(copy: Path, marked: list[Marked], changes: dict[str, str] | None = None):
    """Put the original bodies into a copy of either layout. changes: what to replace in them, to make a mistake."""
    for file, name in sorted(marked, key=lambda f: -defined((ROOT / f[0]).read_text("utf-8"), f[1]).lineno):
        path = copy / file
        path = path if path.exists() else copy / file.removeprefix("minbert/")
        texts = [p.read_text("utf-8") for p in (ROOT / file, path)]
        lines = [text.splitlines(keepends=True) for text in texts]
        spans = [(n.lineno - 1, n.end_lineno) for n in (defined(text, name) for text in texts)]
        text = "".join(lines[0][slice(*spans[0])])
        for before, after in (changes or {}).items():
            text = text.replace(before, after)
        lines[1][slice(*spans[1])] = [text]
        path.write_text("".join(lines[1]), "utf-8")


def statements(node: ast.AST) -> Iterator[str]:
    """Every statement of a tree without statements inside it, as its structure, whatever its layout and comments."""
    for child in ast.walk(node):
        if isinstance(child, ast.stmt) and not hasattr(child, "body") and not _says_nothing(child):
            yield ast.dump(child)


@cache
def statements_of(text: str, without: tuple[str, ...] = ()) -> frozenset[str]:
    """The statements of a source, without those of some functions."""
    tree = ast.parse(text)
    cut = {defined(text, name).lineno for name in without}
    for child in [n for n in ast.walk(tree) if isinstance(getattr(n, "body", None), list)]:
        child.body = [n for n in child.body if not isinstance(n, ast.FunctionDef) or n.lineno not in cut]
    return frozenset(statements(tree))


def _says_nothing(node: ast.stmt) -> bool:
    """Docstrings, imports, raise, and what is no longer than `return result` or `y = f(x)`."""
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute | ast.Constant)]
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Raise) or len(names) < 4


def solution(marked: list[Marked], others: list[Marked]) -> set[str]:
    """The statements of marked functions that stand nowhere else. others: all functions that are ever taken out."""
    inside, outside = set(), set()
    for path in [p for p in (ROOT / "minbert").rglob("*.py") if "sanity" not in p.parts]:
        text, file = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        outside |= statements_of(text, tuple(name for f, name in others if f == file))
        for name in (name for f, name in marked if f == file):
            inside |= set(statements(defined(text, name)))
    return inside - outside


def left_over(copy: Path, lines: set[str]) -> set[str]:
    """Those of these statements that a Python file of a copy has."""
    return {s for path in copy.rglob("*.py") for s in statements_of(path.read_text("utf-8")) if s in lines}


def ask(copy: Path, *words: str) -> tuple[int, dict[str, dict]]:
    """The copy's sanity check: its exit status, and its result by part."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "sanity_check.py", "--json", "--timeout", "60", *words]
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, encoding="utf-8")
    assert not result.stderr, result.stderr
    return result.returncode, {part["part"]: part for part in json.loads(result.stdout)[0]["parts"]}
