"""What the source says about shapes: every `(B, T, C)` in a comment or a docstring, and the value that it is about.

    scores = q @ k.mT  # (B, H, T, T)       a comment is about the expression that ends on its line
    def split(x):                           a docstring is about the arguments and the result:
        \"\"\"(B, T, C) → (B, H, T, D).\"\"\"     before the arrow the arguments in order, after it the result
        \"\"\"x: (B, T, C).\"\"\"                 a name with a colon is an argument or, in a class, a field

A shape is a list of sizes in parentheses, with a comma: numbers, names (one capital letter, or a word of `WORDS`) and
products of them (2B, H·D). `·` alone is any size and `…` any number of sizes. What looks like a shape, but is about no
value, counts as false: put it where one can see what it is about, or write it in another way.
"""

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from itertools import pairwise

WORDS = ("in", "out", "r", "size")  # names of dimensions that are no capital letter; LoRA's and PALs'
ITEM = r"(?:…|\.\.\.|·|\d*(?:[A-Za-z]+)(?:·[A-Za-z]+)*|\d+)"
GROUP = re.compile(rf"(?<![\w\])])\({ITEM}(?:, {ITEM})*,?\)")
AHEAD = re.compile(rf"#\s*(?:{GROUP.pattern}[ =:]*)*")
NAMED = re.compile(r"(?<![\w.`])([a-z_]\w*(?:, [a-z_]\w*)*):\s+$")
OTHERS = ("minbert/sanity/",)  # whose docstrings speak of other people's code; their comments count
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Size:
    """One entry of a shape: `number` times the product of `names`; number 0 stands for `·`, and -1 for `…`."""

    number: int
    names: tuple[str, ...] = ()


def parse_shape(text: str) -> tuple[Size, ...] | None:
    """ "(B, 1, 2C)" → its sizes; None for parentheses that are no shape: without a comma, or without a known name."""
    items = [item.strip() for item in text[1:-1].split(",")]
    if len(items) < 2:
        return None
    sizes, known = [], False
    for item in items:
        if item in ("…", "..."):
            sizes.append(Size(-1))
        elif item == "·":
            sizes.append(Size(0))
        elif item:
            number, names = re.fullmatch(r"(\d*)(.*)", item).groups()
            parts = tuple(names.split("·")) if names else ()
            known = known or any((len(name) == 1 and name.isupper()) or name in WORDS for name in parts)
            sizes.append(Size(int(number or 1), parts))
    return tuple(sizes) if known else None


@dataclass
class Claim:
    """One shape in the source. line, column: where it stands, from 1 and from 0. about: "value", "argument", "result",
    "field" or "lambda", or "" where it is about nothing; name: of the argument or field; place: which argument, result
    or element, counted from 0, where several shapes stand side by side (None: all of them). count: how many do."""

    file: str
    line: int
    column: int
    text: str
    sizes: tuple[Size, ...]
    about: str
    name: str = ""
    place: int | None = None
    count: int = 1
    owner: str = ""  # the class and function in which it stands: "BertSelfAttention.forward"
    words: str = ""  # what the comment says besides
    node: ast.AST | None = field(default=None, repr=False)  # the expression, function or class that it is about

    @property
    def key(self) -> tuple[str, int, int]:
        return self.file, self.line, self.column


def find_claims(source: str, file: str) -> tuple[ast.Module, list[Claim]]:
    """The syntax tree of a module and what it claims."""
    tree = ast.parse(source)
    owners = dict(_owners(tree, ""))
    claims = []
    if not file.startswith(OTHERS):
        claims += [claim for node in (tree, *owners) for claim in _of_docstring(node, source, file, owners)]
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            claims += _of_comment(token, lines, tree, file, owners)
    return tree, claims


def _owners(node: ast.AST, name: str):
    """Every class, function and lambda with its dotted name, the outer ones first."""
    for child in ast.iter_child_nodes(node):
        inside = f"{name}.{child.name}".lstrip(".") if isinstance(child, ast.ClassDef | Function) else name
        if isinstance(child, ast.ClassDef | Function | ast.Lambda):
            yield child, inside
        yield from _owners(child, inside)


def _shapes(text: str) -> list[tuple[int, str, tuple[Size, ...]]]:
    matches = ((match.start(), match[0], parse_shape(match[0])) for match in GROUP.finditer(text))
    return [(start, group, sizes) for start, group, sizes in matches if sizes]


# ---------------------------------------------------------------------------------------------- docstrings


def _of_docstring(node: ast.AST, source: str, file: str, owners: dict) -> list[Claim]:
    if isinstance(node, ast.Lambda) or not ast.get_docstring(node, clean=False):
        return []
    string = node.body[0].value
    lines = source.splitlines(keepends=True)[string.lineno - 1 : string.end_lineno]
    lines[0] = " " * len(lines[0][: string.col_offset]) + lines[0][string.col_offset :]
    text = "".join(lines)
    claims = []
    for start, end in _sentences(text):
        shapes = [(start + at, group, sizes) for at, group, sizes in _shapes(text[start:end])]
        arrows = [m.start() for m in re.finditer("→", text[start:end])]
        before, after, names = [], [], {}
        for shape in shapes:
            at = shape[0]
            named = NAMED.search(text[start:at])
            if named and set(named[1].split(", ")) <= _names(node):
                names[at] = named[1].split(", ")
            elif re.search(r"\breturns\s+$", text[start:at], re.I) or (len(arrows) == 1 and at > start + arrows[0]):
                after.append(shape)
            elif len(arrows) == 1 and isinstance(node, Function):
                before.append(shape)
            else:
                names[at] = [""]
        for at, group, sizes in shapes:
            line, column = string.lineno + text[:at].count("\n"), at - text.rfind("\n", 0, at) - 1
            claim = dict(file=file, line=line, column=column, text=group, sizes=sizes, node=node)
            claim["owner"] = owners.get(node, "")
            if at in names:
                about = "argument" if isinstance(node, Function) else "field"
                about = "" if names[at] == [""] else about
                claims += [Claim(**claim, about=about, name=name) for name in names[at]]
            elif (at, group, sizes) in before:
                place = before.index((at, group, sizes))
                name = _argument(node, place)
                claims.append(Claim(**claim, about="argument" if name else "", name=name, place=place))
            else:
                place = after.index((at, group, sizes)) if len(after) > 1 else None
                claims.append(Claim(**claim, about="result", place=place, count=len(after)))
    return claims


def _sentences(text: str):
    """(start, end) of each sentence; a full stop, a semicolon or an empty line ends one."""
    start = 0
    for match in re.finditer(r"[.;](?=\s|\"\"\")|\n\s*\n|\Z", text):
        if match.end() > start:
            yield start, match.end()
        start = match.end()


def _names(node: ast.AST) -> set[str]:
    """The names of a function's arguments, or of a class's fields."""
    if isinstance(node, Function):
        return {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)}
    if isinstance(node, ast.Module):
        return set()
    fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
    return fields | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


def _argument(node: Function, place: int) -> str:
    """The name of a function's argument, the first after `self` being 0; "" where it has fewer."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
    return names[place] if place < len(names) else ""


# ---------------------------------------------------------------------------------------------- comments


def _of_comment(token: tokenize.TokenInfo, lines: list[str], tree: ast.Module, file: str, owners: dict) -> list[Claim]:
    shapes = _shapes(token.string)
    if not shapes:
        return []
    row, column = token.start
    code = lines[row - 1][:column].rstrip()
    node, about, name = _commented(code, row, tree)
    words = AHEAD.sub("", token.string).strip(" ,:;=")
    owner = max((n for n in owners if n.lineno <= row <= n.end_lineno), key=lambda n: n.lineno, default=None)
    claims = []
    same = all("=" in token.string[a[0] + len(a[1]) : b[0]] for a, b in pairwise(shapes))
    for i, (at, group, sizes) in enumerate(shapes):
        claim = Claim(file, row, column + at, group, sizes, about, name, owner=owners.get(owner, ""), node=node,
                      words=words if i == 0 else "")  # fmt: skip
        if len(shapes) > 1 and not same:
            claim.place, claim.count = i, len(shapes)
        if about == "lambda":
            arrow = token.string.find("→")
            claim.count = sum(shape[0] > arrow for shape in shapes)
            claim.place = i if at < arrow else (i - (len(shapes) - claim.count) if claim.count > 1 else None)
            claim.name = "argument" if at < arrow else "result"
        claims.append(claim)
    return claims


def _commented(code: str, row: int, tree: ast.Module) -> tuple[ast.AST | None, str, str]:
    """What a comment behind `code`, the text before it on line `row`, is about: a node, the kind of claim, a name."""
    nodes = [n for n in ast.walk(tree) if getattr(n, "end_lineno", None) == row]
    for parent in ast.walk(tree):
        if isinstance(parent, ast.ClassDef):
            for n in parent.body:
                if n in nodes and isinstance(n, ast.AnnAssign):
                    return parent, "field", n.target.id
    for n in nodes:
        if isinstance(n, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr) and n.value is not None:
            if not isinstance(n.value, ast.Lambda):
                return n.value, "value", ""
            return n.value, "lambda", ""
    last = len(code.rstrip(" ,)]}:").encode())
    for n in nodes:
        if isinstance(n, ast.arg) and n.end_col_offset == last:
            return _function_of(n, tree), "argument", n.arg
    ends = [n for n in nodes if isinstance(n, ast.expr) and last <= n.end_col_offset <= len(code.encode())]
    whole = [n for n in ends if n.lineno == row] or ends
    if not whole:
        return None, "", ""
    size = lambda n: (n.end_lineno - n.lineno, n.end_col_offset - n.col_offset)  # noqa: E731
    node = max(whole, key=size) if whole[0].lineno == row else min(whole, key=size)
    return node, "lambda" if isinstance(node, ast.Lambda) else "value", ""


def _function_of(argument: ast.arg, tree: ast.Module) -> ast.AST:
    return next(n for n in ast.walk(tree) if isinstance(n, Function) and argument in ast.walk(n.args))
