"""Which tests prove a function: those of tests/ whose source names it, the ones that name few other things first."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MOST = 3  # tests of one function that are shown
FOLDERS = ("model", "techniques", "tasks", "pretraining", "run", "cli")  # in the order in which a reader wants them


def tests_of(root: Path, names: set[str]) -> dict[str, list[tuple[str, int, str]]]:
    """For each of these names, [(file, line, name of the test)] of the tests that use it. root: the project's folder.

    A name is that of a function or a class, as it is written where it is used: "pcgrad", "BertLayer".
    """
    uses: dict[str, list[tuple[tuple, tuple[str, int, str]]]] = {name: [] for name in names}
    for path, file in _files(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        helpers = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        for test in (n for n in helpers.values() if n.name.startswith("test_")):
            used = _used(test)
            through = used | {name for helper in used & set(helpers) for name in _used(helpers[helper])}
            for name in names & through:
                about = re.search(rf"test_.*{name.lower()}", path.stem) is None
                place = FOLDERS.index(path.parent.name) if path.parent.name in FOLDERS else len(FOLDERS)
                uses[name].append(((name not in used, place, about, len(used)), (file, test.lineno, test.name)))
    return {name: [test for _, test in sorted(those)[:MOST]] for name, those in uses.items()}


def tests_in(root: Path, file: str) -> list[tuple[str, int, str]]:
    """The first tests of one file, as `tests_of` gives them."""
    tree = ast.parse((root / file).read_text(encoding="utf-8"))
    tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return [(file, test.lineno, test.name) for test in tests[:MOST]]


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((root / "tests").rglob("test_*.py")):
        if "sanity" not in path.as_posix():  # its projects are other people's code
            yield path, path.relative_to(root).as_posix()


def _used(node: ast.AST) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
