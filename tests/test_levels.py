"""The modules read as a tutorial in one order: each imports only from those before it.

The order is that of the wings in the README. The imports are read with `ast`, without running them, so those inside a
function count as well. The table of exceptions is complete: an entry that nobody needs is a failure too.
"""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minbert"

WINGS = {
    "helpers": ("errors", "parser", "recipe", "flags", "command_line", "files", "progress", "state", "processes"),
    "the model": ("config", "bert", "optimizer", "vocabulary", "tokenizer"),
    "the techniques": (
        "dropout",
        "compiled",
        "lora",
        "pals",
        "smart",
        "rdrop",
        "average",
        "pcgrad",
        "sampling",
        "additions",
    ),
    "the tasks": ("tasks", "tables", "examples", "data", "heads", "multitask", "evaluation"),
    "weights": ("strict", "cache", "minilm", "foreign", "hub", "pretrained", "checkpoint"),
    "a run": (
        "settings",
        "description",
        "folder",
        "terms",
        "scaling",
        "engine",
        "run",
        "epoch_log",
        "predict",
        "own",
        "submit",
        "report",
        "results",
        "experiments",
    ),
    "before the tasks": ("pretraining",),
    "to learn from": ("sanity", "reading", "trace", "exercise"),
}
ROWS = re.compile(r"^(ADDITIONS|TERMS) = ", re.M)  # what a module of a technique has, which needs no name in WINGS
NEW = tuple(p.stem for p in PACKAGE.glob("*.py") if ROWS.search(p.read_text("utf-8")) and p.stem not in str(WINGS))
ORDER = [name for names in WINGS.values() for name in names]
ORDER[ORDER.index("additions") : ORDER.index("additions")] = NEW

# each works on a toy and knows no other
ALONE = ("optimizer", "dropout", "lora", "smart", "rdrop", "average", "pcgrad", "sampling")
HELPERS = ("errors", "parser")  # all that they may import

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
                names = [f"minbert.{alias.name}" if alias.name in ORDER else "minbert" for alias in node.names]
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
    if target == "":
        return "a technique imports the package" if who in ALONE else None
    if target == who:  # the package's own parts
        return None
    if who in ALONE:
        wrong = f"{module} imports {target}: this technique must work without the rest of minbert"
        return None if target in HELPERS else wrong
    if target not in ORDER:
        return f"{module} imports {target}, which has no wing"
    if (who, target, inside) in LOOK_AHEAD or ORDER.index(target) < ORDER.index(who):
        return None
    return f"{module} imports {target}, which comes after it"


@pytest.mark.parametrize("module", sources())
def test_a_module_imports_only_from_those_before_it(module):
    assert module == "" or module.split(".")[0] in ORDER, f"{module}: give it a wing"
    found = imports(sources()[module])
    assert [problem for target, inside in found if (problem := violation(module, target, inside))] == []


def test_no_exception_is_left_over():
    assert {(module, *pair) for module, source in sources().items() for pair in imports(source)} >= LOOK_AHEAD


@pytest.mark.parametrize("module", sources())
def test_a_module_opens_with_what_it_is(module):
    assert ast.get_docstring(ast.parse(sources()[module]))


@pytest.mark.parametrize(
    "module, source",
    [
        ("bert", "from minbert.heads import HEADS"),  # downwards
        ("data", "import minbert.heads"),
        ("tokenizer", "from minbert import tasks"),
        ("bert", "class BertModel:\n def forward(self):\n  from minbert.pretrained import load_bert"),  # elsewhere
        ("bert", "from minbert.pretrained import load_bert"),
        ("lora", "from minbert.files import atomic"),  # not even this helper
        ("rdrop", "from minbert.smart import symmetric_kl"),
        ("smart", "def smoothness():\n if True:\n  import minbert.bert as bert"),
        ("pretraining.probes", "try:\n from minbert.sanity import page\nexcept ImportError:\n pass"),
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
