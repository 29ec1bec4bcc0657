"""What the exercise's tests do with a copy: put bodies back, look for what is left of them, ask the copy's check."""

import ast
import io
import json
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.run.crashes import script_in_a_process

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


def hidden(copy: Path, lines: set[str]) -> list[tuple[str, str]]:
    """(file, line) for each of these lines of code that any file of a copy holds, or a member of an archive in it."""
    contents = [(path.relative_to(copy).as_posix(), path.read_bytes()) for path in copy.rglob("*") if path.is_file()]
    for name, content in list(contents):
        if zipfile.is_zipfile(io.BytesIO(content)):
            archive = zipfile.ZipFile(io.BytesIO(content))
            contents += [(f"{name}/{member}", archive.read(member)) for member in archive.namelist()]
    return [(name, line) for name, content in contents for line in lines if line.encode() in content]


def lines_of(marked: list[Marked], others: list[Marked]) -> set[str]:
    """The lines of code of marked functions, of more than 25 characters, that stand nowhere else in the package."""
    inside, outside = set(), []
    for path in [p for p in (ROOT / "minbert").rglob("*.py") if "sanity" not in p.parts]:
        text, file = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        rows = text.splitlines()
        for name in (name for f, name in others if f == file):
            node = defined(text, name)
            first = node.body[1 if ast.get_docstring(node) is not None else 0].lineno - 1
            if (file, name) in marked:
                inside |= {row.partition("  #")[0].strip() for row in rows[first : node.end_lineno]}
            rows[first : node.end_lineno] = [""] * (node.end_lineno - first)
        outside += rows
    rest = "\n".join(outside)
    return {line for line in inside if len(line) > 25 and not line.startswith("#") and line not in rest}


def ask(copy: Path, *words: str) -> tuple[int, dict[str, dict]]:
    """The copy's sanity check: its exit status, and its result by part."""
    status, answer, errors = script_in_a_process(copy, "sanity_check.py", ("--json", "--timeout", "60", *words))
    assert not errors, errors
    return status, {part["part"]: part for part in json.loads(answer)[0]["parts"]}
