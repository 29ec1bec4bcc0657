"""The modules read as a tutorial in one order: each imports only from the levels above it.

Level 0 stands on torch alone, the last on everything. The imports are read with `ast`, without running them, so those
inside a function count as well. Both tables of exceptions are complete: an entry that nobody needs is a failure too.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minbert"

LEVELS = (
    ("config", "errors", "files", "optimizer", "lora", "smart", "pcgrad", "sampling"),
    ("bert", "tokenizer", "tasks"),
    ("pretrained", "pals", "heads", "data"),
    ("multitask",),
    ("evaluation", "checkpoint", "report", "sanity", "experiments"),
    ("pretraining",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

ALONE = ("optimizer", "lora", "smart", "pcgrad", "sampling")  # techniques: each works on a toy nn.Linear

SAME_LEVEL = {("config", "errors"), ("files", "errors")}  # (who, whom)
LOOK_AHEAD = {  # (who, whom, inside what)
    ("bert", "pretrained", "BertModel.from_pretrained"),
    ("tokenizer", "pretrained", "BertTokenizer.from_pretrained"),
}


def sources() -> dict[str, str]:
    """Every module of the package, by its dotted name inside it, `__init__` as the name of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def imports(source: str) -> list[tuple[str, str]]:
    """(part of minbert that is imported, "" for the package itself; class and function in which that happens)."""
    found = []

    def visit(node: ast.AST, inside: str):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{inside}.{node.name}".lstrip(".")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write `from minbert.… import …`"
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}: a star import"
            names = [node.module]
            if node.module == "minbert":  # `from minbert import bert` imports minbert.bert
                names = [f"minbert.{alias.name}" if alias.name in LEVEL else "minbert" for alias in node.names]
        paths = [name.split(".") for name in names]
        found.extend((path[1] if path[1:] else "", inside) for path in paths if path[0] == "minbert")
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), "")
    return found


def violation(module: str, target: str, inside: str) -> str | None:
    """What is wrong with `module` importing `target`, or None."""
    who = module.split(".")[0]
    if who == "":
        return f"minbert/__init__.py imports {target}: it should name the parts, not load them"
    if target == who or target == "":  # the package's own parts; its version
        return "a technique imports the package" if who in ALONE else None
    if who in ALONE:
        return f"{module} imports {target}: this technique must work without the rest of minbert"
    if target not in LEVEL:
        return f"{module} imports {target}, which has no level"
    if (who, target, inside) in LOOK_AHEAD or (who, target) in SAME_LEVEL:
        return None
    if LEVEL[target] >= LEVEL[who]:
        return f"{module} (level {LEVEL[who]}) imports {target} (level {LEVEL[target]})"
    return None


@pytest.mark.parametrize("module", sources())
def test_a_module_imports_only_from_the_levels_above_it(module):
    assert module == "" or module.split(".")[0] in LEVEL, f"{module}: give it a level"
    found = imports(sources()[module])
    assert [problem for target, inside in found if (problem := violation(module, target, inside))] == []


def test_no_exception_is_left_over():
    found = {(module, *pair) for module, source in sources().items() for pair in imports(source)}
    assert LOOK_AHEAD <= found
    assert SAME_LEVEL <= {(module, target) for module, target, _ in found}


@pytest.mark.parametrize("module", sources())
def test_a_module_opens_with_what_it_is(module):
    assert ast.get_docstring(ast.parse(sources()[module]))


@pytest.mark.parametrize(
    "module, source",
    [
        ("bert", "from minbert.heads import HEADS"),  # downwards
        ("heads", "import minbert.data"),  # sideways
        ("tasks", "from minbert import tokenizer"),
        ("bert", "class BertModel:\n def forward(self):\n  from minbert.pretrained import load_bert"),  # elsewhere
        ("bert", "from minbert.pretrained import load_bert"),
        ("lora", "from minbert.errors import UserError"),  # not even a helper
        ("smart", "def smoothness():\n if True:\n  import minbert.bert as bert"),
        ("sanity.probes", "try:\n from minbert.report import page\nexcept ImportError:\n pass"),
        ("data", "from minbert.nowhere import anything"),
        ("", "from minbert.bert import BertModel"),
    ],
)
def test_the_check_sees_an_import_that_is_not_allowed(module, source):
    assert [violation(module, *found) for found in imports(source)] not in ([], [None])


@pytest.mark.parametrize("source", ["from minbert.bert import *", "from torch import *", "from . import bert"])
def test_the_check_sees_star_and_relative_imports(source):
    with pytest.raises(AssertionError, match=r"star|relative"):
        imports(source)


@pytest.mark.parametrize(
    "module, source",
    [
        ("data", "from minbert.tasks import Task\nfrom minbert.tokenizer import Row\nimport torch"),
        ("bert", "class BertModel:\n def from_pretrained(cls):\n  from minbert.pretrained import load_bert"),
        ("sanity.probes", "from minbert.sanity.modules import find\nfrom minbert import __version__"),
        ("files", "from minbert.errors import UserError\nimport minbertish"),
    ],
)
def test_the_check_lets_the_allowed_ones_pass(module, source):
    assert {violation(module, *found) for found in imports(source)} == {None}
