"""What a copy has of the sanity check: its questions, and recorded numbers in place of the right pieces.

A part of the check has three things. How to find a student's code and what to ask of it stays. The right pieces, the
mistakes and what is built of them are a solution and are left out. What these answer is written into a file of numbers
by `minbert.sanity.recorded`.
"""

import ast
import dis
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType

from minbert.exercise.parts import PARTS
from minbert.sanity import parts
from minbert.sanity.recorded import record

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "minbert/sanity/parts/"
ROOTS = {"find", "PROBES"}


@cache
def numbers(names: tuple[str, ...] = parts.NAMES) -> dict[str, bytes]:
    """The files of recorded numbers of these parts, by their names; they take some seconds to make."""
    owns = {part.check: [f"{Path(file).name}:{name}" for file, name in part.functions] for part in PARTS.values()}
    return {f"{FOLDER}{name}.safetensors": record(parts.load(name), owns[name]) for name in names}


def questions(sources: dict[str, str]) -> dict[str, str]:
    """The sources of the parts, by part, without their right pieces: `find`, `PROBES` and what these need."""
    roots = {name: ROOTS | set(_at_base(source)) for name, source in sources.items()}
    while True:
        texts = {name: _only(source, roots[name]) for name, source in sources.items()}
        needed = {name: set(roots[name]) for name in sources}
        for text in texts.values():
            for part, name in _asked_of_others(text):
                needed[part].add(name)
        if needed == roots:
            return {name: f"{text}\n\n{_part(sources[name])}\n" for name, text in texts.items()}
        roots = needed


def _only(source: str, roots: set[str]) -> str:
    """The source with no more definitions than those that `roots` need, and the imports that these need."""
    tree, lines = ast.parse(source), source.splitlines()
    defined = {id(node): set(_binds(node)) for node in tree.body}
    used = {id(node): set(_globals(compile(ast.Module([node], []), "", "exec"))) for node in tree.body}
    needed, before = set(roots), set()
    while needed != before:
        before = set(needed)
        needed |= {name for node in tree.body if defined[id(node)] & before for name in used[id(node)]}
    kept = lines[: tree.body[0].end_lineno]  # the docstring
    for node in tree.body[1:]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in needed]
            if node.names:
                kept += [*[""] * (kept[-1][:4] not in ("from", "impo")), ast.unparse(node)]
        elif defined[id(node)] & needed:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            space = 2 if isinstance(node, ast.FunctionDef | ast.ClassDef) or kept[-1].startswith(" ") else 0
            kept += [*[""] * (space or kept[-1][:4] in ("from", "impo")), *lines[first - 1 : node.end_lineno]]
    return "\n".join(kept) + "\n"


def _binds(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines; none for imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()


def _globals(code: CodeType) -> Iterator[str]:
    """The names of a module that some code looks up."""
    yield from (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def _asked_of_others(text: str) -> Iterator[tuple[str, str]]:
    """(part, name) for each name that a part's source takes from another part."""
    imported = {
        name for line in re.findall(r"from minbert\.sanity\.parts import (.*)", text) for name in line.split(", ")
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minbert.sanity.parts."):
            yield from ((node.module.rpartition(".")[2], alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            yield node.value.id, node.attr


def _at_base(source: str) -> list[str]:
    """The name of the part's function for bert-base's sizes, if it has one."""
    return re.findall(r"\bat_base=(\w+)", source)


def _part(source: str) -> str:
    options = "".join(f", at_base={name}" for name in _at_base(source))
    return f"from minbert.sanity.recorded import load  # noqa: E402\n\nPART = load(__file__, find, PROBES{options})"
