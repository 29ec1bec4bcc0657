"""The page: each module's prose beside its code, with the shapes as they were seen and the attention of each head.

One file without requests: style and script are inside it. The order of the chapters is that of a sentence's way
through the model, and then of what trains it.
"""

import ast
import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from minbert.errors import UserError
from minbert.reading.claims import GROUP, Claim, Function
from minbert.reading.equations import is_equation, mathml
from minbert.reading.tests_of import tests_in, tests_of
from minbert.reading.walk import CHAPTERS, LOOP, file_of, walk
from minbert.reading.watch import Sight, Watch

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
COLOURED = re.compile(r"kn?|kc|ow|s[12daie]?|c1?|n[fcd]|m[if]?")  # Pygments' names of the tokens that page.css colours
SENTENCE = "A film to remember."
WORD = re.compile(r"`([^`]+)`")


@dataclass
class Block:
    """A piece of a module: its docstring, and its code from line `first` to line `last`. name: "" for what stands
    before the first function or class; a method has its class before a dot."""

    name: str
    node: ast.AST
    first: int
    last: int


def blocks(tree: ast.Module, lines: int) -> Iterator[Block]:
    """A module's pieces in order: what comes before the first definition, each function, each class and method."""
    nodes = [n for n in tree.body if isinstance(n, ast.ClassDef | Function)]
    starts = [_start(n) for n in nodes] + [lines + 1]
    yield Block("", tree, 1, starts[0] - 1)
    for node, end in zip(nodes, starts[1:], strict=True):
        methods = [n for n in node.body if isinstance(n, Function)] if isinstance(node, ast.ClassDef) else []
        inner = [_start(n) for n in methods] + [end]
        yield Block(node.name, node, _start(node), inner[0] - 1)
        for method, last in zip(methods, inner[1:], strict=True):
            yield Block(f"{node.name}.{method.name}", method, _start(method), last - 1)


def _start(node: ast.AST) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


class Page:
    """Builds the page. watch: after all scenes. out: the folder of the page, from which tests are linked."""

    def __init__(self, watch: Watch, out: Path):
        self.watch, self.out, self.count = watch, out, 0
        self.at: dict[tuple[str, int], list[tuple[int, Claim, Sight]]] = {}
        for key, sight in watch.sights.items():
            claim = watch.claims[key][0]
            self.at.setdefault((claim.file, claim.line), []).append((claim.column, claim, sight))

    def build(self, attention: dict) -> str:
        """The whole page. attention: what `attention_of` returns."""
        chapters, links = [], []
        names = [name for those in CHAPTERS.values() for name in those]
        trees = {name: ast.parse(self.source(name)) for name in names}
        used = {n.name for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef | Function)}
        self.tests = tests_of(ROOT, {name for name in used if not name.startswith("_") and name != "train"})
        self.tests["train"] = tests_in(ROOT, "tests/cli/test_terms_by_hand.py")  # the name is that of a method as well
        for title, modules in CHAPTERS.items():
            items = (f'<li><a href="#{_id(name)}">{_title(name)}</a></li>' for name in modules)
            links.append(f"<li>{title}<ul>{''.join(items)}</ul></li>")
            chapters += [self.module(name, trees[name]) for name in modules]
        text = (HERE / "page.html").read_text(encoding="utf-8")
        for key, value in {
            "STYLE": (HERE / "page.css").read_text(encoding="utf-8"),
            "SCRIPT": (HERE / "page.js").read_text(encoding="utf-8"),
            "CONTENTS": "".join(links),
            "CHAPTERS": "\n".join(chapters),
            "WALK": "".join(
                f'<tr><th scope="row">{_title(stop)}</th><td>{own}</td><td>{total}</td></tr>'
                for stop, own, total in walk()
            ),
            "DATA": json.dumps(attention, ensure_ascii=False).replace("<", "\\u003c"),
            "LAYERS": "".join(f"<option value={i}>{i + 1}</option>" for i in range(len(attention["maps"]))),
            "HEADS": "".join(f"<option value={i}>{i + 1}</option>" for i in range(len(attention["maps"][0]))),
            "MAP": _map(attention, 0, 0),
        }.items():
            text = text.replace(f"<!-- {key} -->", value)
        return text

    def source(self, module: str) -> str:
        return (self.watch.package.parent / file_of(module)).read_text(encoding="utf-8")

    def module(self, name: str, tree: ast.Module) -> str:
        source, file = self.source(name), file_of(name)
        lines = source.splitlines()
        marked = self.highlighted(source, file)
        title, first, rows = _title(name), True, []
        for block in blocks(tree, len(lines)):
            if name == LOOP and block.name not in ("", "train"):
                continue
            prose = self.prose(block.node, lines, file)
            string = block.node.body[0] if ast.get_docstring(block.node, clean=False) is not None else None
            skipped = range(string.lineno, string.end_lineno + 1) if string else ()
            shown = (
                range(block.first, block.last + 1) if name != LOOP or block.name else ()
            )  # a script's imports say little
            code = [(n, marked[n - 1]) for n in shown if n not in skipped]
            while code and not lines[code[0][0] - 1].strip():
                code.pop(0)
            while code and not lines[code[-1][0] - 1].strip():
                code.pop()
            head = f'<h2 id="{_id(name)}">{title}</h2>' if first else ""
            if block.name:
                level = "h4" if "." in block.name else "h3"
                head = f'<{level} id="{_id(name)}-{block.name}">{html.escape(block.name)}</{level}>'
            body = "".join(f'<span class="l" data-n="{n}">{line}\n</span>' for n, line in code)
            body = f"<pre><code>{body}</code></pre>" if code else ""
            rows.append(f'<div class="row"><div class="prose">{head}{prose}{self.links(block)}</div>{body}</div>')
            first = False
        return f'<section aria-labelledby="{_id(name)}">{"".join(rows)}</section>'

    def links(self, block: Block) -> str:
        """Links to the tests of a function or class."""
        own = block.name.rpartition(".")[2]
        tests = [] if own in ("", "forward", "__init__") or own.startswith("_") else self.tests.get(own, [])
        if not tests:
            return ""
        there = []
        for file, line, name in tests:
            address = html.escape(Path(os.path.relpath(ROOT / file, self.out)).as_posix())
            words = html.escape(name.removeprefix("test_").replace("_", " "))
            there.append(f'<a href="{address}">{words}</a> <small>{file}:{line}</small>')
        return f'<p class="tests">Tested: {"; ".join(there)}</p>'

    # ------------------------------------------------------------------------------------------ shapes

    def shape(self, claim: Claim, sight: Sight) -> str:
        """A shape, with what was seen of it: shown on hover, tap and focus."""
        self.count += 1
        sizes = f"({', '.join(map(str, sight.shape))})"
        names = ", ".join(f"{name} = {n}" for name, n in sight.names.items())
        numbers = ", ".join(f"{n:.4g}" for n in sight.numbers[:4]) + (", …" if len(sight.numbers) > 4 else "")
        seen = f"{sizes} {sight.kind}<br>{html.escape(names)}<br>{numbers}<br>seen in “{html.escape(sight.scene)}”"
        return (
            f'<button type="button" class="shape" aria-describedby="s{self.count}">{html.escape(claim.text)}</button>'
            f'<span class="tip" role="tooltip" id="s{self.count}">{seen}</span>'
        )

    def with_shapes(self, text: str, file: str, line: int, column: int) -> str:
        """A piece of a source line, which begins at `column`, with its shapes marked; the rest escaped."""
        result, at = [], 0
        for start, claim, sight in sorted(self.at.get((file, line), []), key=lambda item: item[0]):
            place = start - column
            if at <= place < len(text) and text.startswith(claim.text, place):
                result += [html.escape(text[at:place]), self.shape(claim, sight)]
                at = place + len(claim.text)
        return "".join([*result, html.escape(text[at:])])

    # ------------------------------------------------------------------------------------------ prose

    def prose(self, node: ast.AST, lines: list[str], file: str) -> str:
        """A docstring as paragraphs, equations and set-apart text."""
        if ast.get_docstring(node, clean=False) is None:
            return ""
        string = node.body[0].value
        rows = []
        for n in range(string.lineno, string.end_lineno + 1):
            text, column = lines[n - 1], 0
            if n == string.lineno:
                column = text.index('"""') + 3
                text = text[column:]
            rows.append((n, column, text.removesuffix('"""') if n == string.end_lineno else text))
        base = min((len(t) - len(t.lstrip()) for n, _, t in rows[1:] if t.strip()), default=0)
        parts, group, apart = [], [], False
        for n, column, text in [*rows, (0, 0, "")]:
            is_apart = n != string.lineno and len(text) - len(text.lstrip()) > base
            if group and (not text.strip() or is_apart != apart):
                parts.append(self.apart(group, file) if apart else self.paragraph(group, file))
                group = []
            if text.strip():
                group.append((n, column, text))
                apart = is_apart
        return "".join(parts)

    def paragraph(self, group: list[tuple[int, int, str]], file: str) -> str:
        pieces = []
        for n, column, text in group:
            indent = len(text) - len(text.lstrip())
            pieces.append(self.with_shapes(text.strip(), file, n, column + indent))
        return "<p>" + WORD.sub(r"<code>\1</code>", " ".join(pieces)) + "</p>"

    def apart(self, group: list[tuple[int, int, str]], file: str) -> str:
        """Lines that are set apart: equations, or text in columns."""
        texts = [text.strip() for _, _, text in group]
        equations = [is_equation(text) and not GROUP.search(text) for text in texts]
        if not all(equations):
            own = min(len(text) - len(text.lstrip()) for _, _, text in group)
            inside = "\n".join(self.with_shapes(text[own:], file, n, column + own) for n, column, text in group)
            return f'<pre class="apart" tabindex="0" role="group" aria-label="in columns">{inside}</pre>'
        return "".join(self.equation(text) for text in texts)

    def equation(self, text: str) -> str:
        """An equation with what stands behind it, three blanks away: another equation, or a remark."""
        first, *rest = re.split(r"\s{3,}(?![=+←])", re.sub(r"\s{2,}(?=[=+←])", " ", text))
        shown = [mathml(first)]
        for cell in rest:
            is_math = is_equation(cell) and not re.match(r"[a-z]+ [a-z]+ ", cell)
            shown.append(mathml(cell) if is_math else f"<small>{html.escape(cell)}</small>")
        return f'<div class="equation" tabindex="0" role="group" aria-label="equation">{" ".join(shown)}</div>'

    # ------------------------------------------------------------------------------------------ code

    def highlighted(self, source: str, file: str) -> list[str]:
        """The lines of a source as HTML, with the shapes of comments marked."""
        from pygments.lexers import PythonLexer
        from pygments.token import STANDARD_TYPES

        lines, line, column = [""], 1, 0
        for _, kind, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens_unprocessed(source):
            while kind not in STANDARD_TYPES:
                kind = kind.parent
            name = STANDARD_TYPES[kind]
            for i, piece in enumerate(value.split("\n")):
                if i:
                    lines.append("")
                    line, column = line + 1, 0
                if piece:
                    text = self.with_shapes(piece, file, line, column) if name[:1] == "c" else html.escape(piece)
                    lines[-1] += f'<span class="{name}">{text}</span>' if COLOURED.fullmatch(name) else text
                    column += len(piece)
        return lines


def check_packages():
    """Raise UserError where a package that the page needs is not installed."""
    if not all(map(find_spec, ("latex2mathml", "pygments"))):
        raise UserError("the page needs latex2mathml and pygments: pip install -e '.[reading]'")


def _title(stop: str) -> str:
    return f"train, in {stop}.py" if stop == LOOP else f"{stop}.py"


def _id(module: str) -> str:
    return module.replace("/", "-")


def _map(attention: dict, layer: int, head: int) -> str:
    """The attention of one head as a table; row = who looks."""
    tokens, numbers = attention["tokens"], attention["maps"][layer][head]
    columns = "".join(f'<th scope="col">{html.escape(token)}</th>' for token in tokens)
    rows = [
        f'<tr><th scope="row">{html.escape(token)}</th>'
        + "".join(f'<td style="--p:{p}">{p:.2f}</td>' for p in row)
        + "</tr>"
        for token, row in zip(tokens, numbers, strict=True)
    ]
    return f"<thead><tr><td></td>{columns}</tr></thead><tbody>{''.join(rows)}</tbody>"


def attention_of(stage, sentence: str = SENTENCE) -> dict:
    """The attention of every head of the real model on a sentence: {"tokens", "maps": layer → head → rows}."""
    from minbert.bert import attention_maps

    row = stage.tokenizer.single(stage.tokenizer.encode([sentence])[0])
    maps = attention_maps(stage.bert(), **stage.tokenizer.pad([row]))[:, 0]
    rounded = [[[[round(p, 3) for p in row] for row in head] for head in layer] for layer in maps.tolist()]
    return {"tokens": stage.tokenizer.convert_ids_to_tokens(row.ids), "maps": rounded}


def write_page(watch: Watch, stage, out: Path) -> Path:
    """Write index.html into the folder `out`; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    path.write_text(Page(watch, out.resolve()).build(attention_of(stage)), encoding="utf-8")
    return path
