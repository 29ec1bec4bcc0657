"""The stops of a reader's walk through the code, in their order, and how many lines of code each has.

First a sentence's way through the model to a loss, what trains it and the loop; then a stop for each technique.
"""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOP = "multitask_classifier"  # of this script the page shows `train`
CHAPTERS = {
    "A sentence on its way": ("tokenizer", "bert", "heads", "multitask", "tasks"),
    "What trains it": ("optimizer", LOOP),
    "Several tasks at once": ("pcgrad", "sampling"),
    "What is added to a loss": ("terms", "smart", "rdrop"),
    "What is added to BERT": ("lora", "pals"),
    "Before the tasks": ("pretraining/masking", "pretraining/lessons"),
}
MOST = 250  # lines of code of a stop
SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def file_of(stop: str) -> str:
    """The file of a stop, seen from the project's folder."""
    return f"{stop}.py" if stop == LOOP else f"minbert/{stop}.py"


def code_lines(stop: str) -> int:
    """How many lines of a stop hold code: no docstrings, no comments, no blank lines."""
    source = (ROOT / file_of(stop)).read_text(encoding="utf-8")
    tree = ast.parse(source)
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in SILENT
        for line in range(token.start[0], token.end[0] + 1)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    if stop == LOOP:
        train = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "train")
        lines &= set(range(train.lineno, train.end_lineno + 1))
    return len(lines)


def walk() -> list[tuple[str, int, int]]:
    """(stop, its lines of code, those from the first stop to its end) for every stop, in order."""
    rows, so_far = [], 0
    for stop in (stop for stops in CHAPTERS.values() for stop in stops):
        own = code_lines(stop)
        so_far += own
        rows.append((stop, own, so_far))
    return rows
