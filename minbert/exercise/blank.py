"""Takes the bodies of functions out of a source, and searches for what is left of them.

    def first(x):                          def first(x):
        \"\"\"The first of each row.\"\"\"   →        \"\"\"The first of each row.\"\"\"
        column = x[:, 0]  # a number a row         # column: a number a row
        return column.tanh()                       raise NotImplementedError("first is still to be written")

The comments of a body stay as hints, with the name of the variable that they are about.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from functools import cache

SHORTEST = 26  # characters of a line of code that says something by itself; `return loss` does not


@cache
def functions(source: str) -> dict[str, ast.FunctionDef]:
    """The functions and methods of a source by their dotted names."""
    tree = ast.parse(source)
    methods = {f"{c.name}.{f.name}": f for c in tree.body if isinstance(c, ast.ClassDef) for f in _functions(c)}
    return {f.name: f for f in _functions(tree)} | methods


def _functions(node: ast.AST) -> list[ast.FunctionDef]:
    return [child for child in node.body if isinstance(child, ast.FunctionDef)]


def body(function: ast.FunctionDef) -> tuple[int, int]:
    """The first and last line, from 1, of a function's body without its docstring."""
    documented = ast.get_docstring(function, clean=False) is not None
    first = function.body[0].end_lineno + 1 if documented else function.body[0].lineno
    return first, function.end_lineno


def blank(source: str, names: Iterable[str]) -> str:
    """The source with hints in place of the bodies of these functions. KeyError where it has no such function."""
    known, lines = functions(source), source.splitlines()
    chosen = {name: body(known[name]) for name in names}
    for name, (first, last) in sorted(chosen.items(), key=lambda item: -item[1][0]):
        indent = " " * (known[name].col_offset + 4)
        hints = [f"{indent}# {hint}" for hint in _hints(lines[first - 1 : last])]
        lines[first - 1 : last] = [*hints, f'{indent}raise NotImplementedError("{name} is still to be written")']
    return "\n".join(lines) + "\n"


def _hints(lines: list[str]) -> list[str]:
    hints = []
    for line in lines:
        code, comment = _split(line)
        if comment and not re.match(r"noqa|fmt:|type:", comment):
            assigned = re.match(r"([\w.]+)( = | \+?=)", code.strip())
            subject = assigned[1] if assigned else "the result" if code.strip().startswith("return ") else ""
            hints.append(f"{subject}: {comment}" if subject else comment)
    return hints


def _split(line: str) -> tuple[str, str]:
    """The code of one line, and its comment without the #."""
    if "#" not in line:
        return line.strip(), ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline):
            if token.type == tokenize.COMMENT:
                return line.strip()[: token.start[1]].strip(), token.string.lstrip("# ")
    except tokenize.TokenError:  # the line is a part of a longer expression; its comment came before the end
        pass
    return line.strip(), ""


def solution(sources: Mapping[str, str], marked: Iterable[tuple[str, str]]) -> dict[str, set[tuple[str, str]]]:
    """The lines of code that show the bodies of `marked` functions, (file, name): line → functions.

    sources: the text of every file. Short lines are left out, and those that stand elsewhere in these files as well.
    """
    result: dict[str, set[tuple[str, str]]] = {}
    elsewhere = []
    for file, source in sources.items():
        bodies = {name: body(functions(source)[name]) for f, name in marked if f == file}
        for number, line in enumerate(source.splitlines(), start=1):
            owner = next((name for name, (first, last) in bodies.items() if first <= number <= last), None)
            code = _split(line)[0]
            if owner is None:
                elsewhere.append(code)
            elif len(code) >= SHORTEST:
                result.setdefault(code, set()).add((file, owner))
    others = "\n".join(elsewhere)
    return {code: owners for code, owners in result.items() if code not in others}


def search(text: str, lines: Iterable[str]) -> list[str]:
    """Those of these lines of code that a text holds."""
    return [code for code in lines if code in text]
