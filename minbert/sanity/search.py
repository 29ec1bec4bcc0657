"""Searches somebody's project for techniques, which have no fixed names."""

import ast
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from minbert.sanity.core import Absent, CannotCheck
from minbert.sanity.project import Project
from minbert.sanity.source import definitions


def named(project: Project, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """(name, object) of the functions and classes of theirs whose qualified name `wanted` accepts.

    Only files that define one are imported, and the object is the outermost: for `PCGrad.pc_backward`, the class.
    """
    for file in project.sources:
        tops = dict.fromkeys(name.partition(".")[0] for name, _ in definitions(file) if wanted(name))
        if tops:
            module = project.load(file)
            yield from ((name, getattr(module, name)) for name in tops if hasattr(module, name))


def optional(project: Project, name: str, *needs: str) -> ModuleType | None:
    """Their module of that name if it has all the names in `needs`, as ours has, else None."""
    try:
        module = project.module(name)
    except Absent:
        return None
    return module if all(hasattr(module, need) for need in needs) else None


def says(project: Project, pattern: str, *, near: str = "") -> bool:
    """Whether a regular expression is found in their sources, comments left out. near: only in files that hold it."""
    for file in project.sources:
        text = re.sub(r"#.*", "", file.read_text(encoding="utf-8", errors="replace"))
        if near in text and re.search(pattern, text):
            return True
    return False


def unlike(project: Project, pattern: str, known: str) -> None:
    """Raise CannotCheck if a class or function of theirs seems to be a technique in a form of its own, else Absent.

    pattern: found in its name or its docstring. known: the forms that the check does know.
    """
    for file in project.sources:
        for name, node in definitions(file):
            text = f"{name.rpartition('.')[2]}\n{ast.get_docstring(node) or ''}"
            if re.search(pattern, text) and not re.match(r"(train|test|main|get_args|evaluate)", name):
                place = f"{file.relative_to(project.root)}:{node.lineno}"
                raise CannotCheck(f"{name} ({place}) has a form of its own; the check knows {known}")
    raise Absent(f"no {known}")
