"""The page: sections as one HTML file without scripts, which fetches nothing, and the pictures as PNG files beside it.

Every text that comes from data is escaped, cleaned of control characters, and isolated, so that its writing direction
does not change the text around it. A Content-Security-Policy also forbids scripts and requests.
"""

import html
import re
from collections.abc import Sequence
from functools import singledispatchmethod
from itertools import groupby
from pathlib import Path
from types import ModuleType

from minbert.errors import UserError
from minbert.files import atomic
from minbert.report.blocks import MARK, Code, Notes, Picture, Quotes, Section, Table, Text

GENERATOR = f'<meta name="generator" content="{MARK}">'  # marks a page that may be overwritten
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ANCHOR = r'<h\d id="([^"]+)"'
WHOLE = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]{1,40}|\([-\d.,]+ to [-\d.,]+\)|\(\d+ runs\))")  # stays in one line
MOST = 600  # characters of a quoted text
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")  # not allowed in HTML
NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( GiB|%|( \(\d+%\)))?|–|nan|inf")
PICTURES = ("The pictures need matplotlib, which is not installed (pip install matplotlib). "
            "The tables have the same numbers. Where a text speaks of points or lines, it means these.")  # fmt: skip

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: #111;
  background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.35rem; border-top: 2px solid #111; padding-top: .6rem; margin-top: 2.6rem; }
h3 { font-size: 1.15rem; margin-top: 2rem; } h4 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p, ul, ol, figcaption { max-width: 46rem; }
.note { border-left: 4px solid #b45309; padding-left: .8rem; }
pre { background: #f3f3f3; padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
figure { margin: 1.6rem 0; } figcaption, .title { font-weight: 600; margin: 1.6rem 0 .3rem; }
.side { display: grid; gap: 0 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.side > * { min-width: 0; } .side > figure { margin: 0 0 .8rem; }
svg { width: 100%; max-width: 30rem; height: auto; display: block; }
.scroll { overflow-x: auto; max-width: 100%; margin: .3rem 0 .8rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { font-weight: 400; } thead th { border-bottom: 1px solid #111; vertical-align: bottom; }
.n { text-align: right; white-space: nowrap; } .short { white-space: nowrap; }
.long { overflow-wrap: anywhere; min-width: 9rem; }
summary { cursor: pointer; color: #034a80; padding: .3rem 0; }
ol.quotes li { margin-bottom: .9rem; } .quoted { display: block; } .small { font-size: .85rem; color: #444; }
thead th:first-child, tbody th { position: sticky; left: 0; background: #fff; }
.id { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; } a { color: #034a80; }
@media print { body { max-width: none; font-size: 10pt; } table { font-size: 8pt; }
  figure, tr, li { break-inside: avoid; }
  h2, h3, h4, figcaption, .title { break-after: avoid; } .scroll { overflow: visible; } nav { display: none; }
  .n, .short, .long { white-space: normal; overflow-wrap: anywhere; min-width: 0; }
  details::details-content { content-visibility: visible; display: block; height: auto; } }
"""


def clean(text: object) -> str:
    """A text without control characters and broken surrogates, which HTML does not allow."""
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(text))


def safe(text: object) -> str:
    """A text as HTML."""
    return html.escape(clean(text))


def unbroken(text: object) -> str:
    """A text as HTML whose flags and ranges are not broken at the end of a line."""
    return WHOLE.sub(r'<span class="short">\1</span>', safe(text))


def data(text: object) -> str:
    """A text from data as HTML, isolated so that its writing direction does not change the text around it."""
    return f"<bdi>{unbroken(text)}</bdi>"


class Page:
    """Renders sections. pictures: the module that draws, or None where matplotlib is not installed.

    files: the PNG files that the page's pictures are, by name.
    """

    def __init__(self, pictures: ModuleType | None):
        self.pictures = pictures
        self.files: dict[str, bytes] = {}
        self.names: set[str] = set()

    def name(self, wish: str) -> str:
        """A name for an id or a file that no other has: letters, digits and hyphens."""
        wish = re.sub(r"[^a-z0-9]+", "-", wish.lower()).strip("-")[:60] or "x"
        names = (wish if n == 1 else f"{wish}-{n}" for n in range(1, 10_000))
        self.names.add(name := next(name for name in names if name not in self.names))
        return name

    def section(self, section: Section, level: int, prefix: str = "") -> str:
        anchor = self.name(f"{prefix} {section.title}")
        parts = [self.section(part, level + 1, prefix) for part in section.sections]
        self.prefix, self.level = prefix, level + 1
        blocks = []
        for side, group in groupby(section.blocks, lambda block: isinstance(block, Picture) and not block.text):
            inside = "\n".join(self.block(block) for block in group)
            blocks.append(f'<div class="side">{inside}</div>' if side else inside)
        contents = self.contents(section.title, section.sections, parts) if parts else ""
        head = f'<section><h{level} id="{anchor}">{data(section.title)}</h{level}>'
        return "\n".join([head, *blocks, contents, *parts, "</section>"])

    def contents(self, title: str, sections: Sequence[Section], parts: Sequence[str]) -> str:
        """Links to the sections of a part of the page. title: the part's. parts: the sections' HTML, with anchors."""
        links = "".join(
            f'<li><a href="#{re.search(ANCHOR, part)[1]}">{data(section.title)}</a></li>'
            for section, part in zip(sections, parts, strict=True)
        )
        return f'<nav aria-label="{safe(title)}: contents"><ul>{links}</ul></nav>'

    @singledispatchmethod
    def block(self, block) -> str:
        raise TypeError(f"no block: {block!r}")

    @block.register
    def _(self, block: Text) -> str:
        return f"<p>{data(block.text)}</p>"

    @block.register
    def _(self, block: Code) -> str:
        return f"<pre><code>{unbroken(block.text)}</code></pre>"

    @block.register
    def _(self, block: Notes) -> str:
        items = "".join(f"<li>{data(note)}</li>" for note in block.notes)
        return f'<div class="note"><p>{safe(block.title)}</p><ul>{items}</ul></div>'

    @block.register
    def _(self, block: Table) -> str:
        if block.folded:
            text = f"<p>{data(block.text)}</p>" if block.text else ""
            table = self.table(block.title, block.head, block.rows)
            return f"<details><summary>{safe(block.title)}</summary>{text}{table}</details>"
        return self.titled(block)

    def titled(self, block: Table | Picture) -> str:
        """A table, or the numbers of a picture, below its title and what they mean."""
        text = f"<p>{data(block.text)}</p>" if block.text else ""
        return f'<p class="title">{data(block.title)}</p>{text}{self.table(block.title, block.head, block.rows)}'

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """A table that scrolls sideways by itself where it is wider than the window."""
        classes = [style([str(row[k]) for row in rows]) for k in range(len(head))]
        top = "".join(f'<th scope="col"{c}>{data(cell)}</th>' for cell, c in zip(head, classes, strict=True))
        body = "".join(
            f'<tr><th scope="row"{classes[0]}>{data(row[0])}</th>'
            + "".join(f"<td{c}>{data(cell)}</td>" for cell, c in zip(row[1:], classes[1:], strict=True)) + "</tr>"
            for row in rows
        )  # fmt: skip
        return (f'<div class="scroll" tabindex="0" role="group" aria-label="{safe(title)}">'
                f'<table aria-label="{safe(title)}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
                "</div>")  # fmt: skip

    @block.register
    def _(self, block: Picture) -> str:
        if not self.pictures:
            return self.titled(block)
        text = f"<p>{data(block.text)}</p>" if block.text else ""
        name = self.name(f"{self.prefix} {block.name}")
        svg, self.files[f"{name}.png"] = self.pictures.render(clean_draw(block.draw), clean(block.title), name)
        body = f'<div class="side"><div>{svg}</div><div>{text}</div></div>' if text else svg
        table = self.table(block.title, block.head, block.rows)
        shown = " open" if block.open else ""
        return (f"<figure><figcaption>{data(block.title)}</figcaption>{body}"
                f"<details{shown}><summary>The numbers as a table</summary>{table}</details></figure>")  # fmt: skip

    @block.register
    def _(self, block: Quotes) -> str:
        items = []
        for texts, remark, id in block.quotes:
            quoted = "".join(f'<q class="quoted">{data(shortened(text))}</q>' for text in texts)
            items.append(f'<li>{quoted}{data(remark)} <span class="small id">id {data(shortened(id, 60))}</span></li>')
        listed = f'<ol class="quotes">{"".join(items)}</ol>' if items else "<p>There are none.</p>"
        return f"<h{self.level}>{data(block.title)}</h{self.level}><p>{data(block.text)}</p>{listed}"


def style(column: Sequence[str]) -> str:
    """The class of a table's column: numbers at the right, short texts in one line, long ones broken anywhere."""
    if column and all(NUMBER.fullmatch(cell) for cell in column):
        return ' class="n"'
    longest = max(map(len, column), default=0)
    return ' class="long"' if longest > 30 else ' class="short"' if longest < 17 else ""


def clean_draw(draw: tuple[str, tuple]) -> tuple[str, tuple]:
    """A picture's function and arguments, with cleaned texts: SVG forbids the same characters as HTML."""

    def cleaned(value):
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, dict):
            return {cleaned(key): cleaned(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(cleaned(item) for item in value)
        return value

    return draw[0], cleaned(draw[1])


def shortened(text: str, most: int = MOST) -> str:
    """A text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters in all)"


def page_html(title: str, sections: Sequence[Section], page: Page, intro: str = "") -> str:
    """The whole file. intro: of a page about several runs; without it the only section is the page."""
    parts = []
    if not intro:
        parts.append(page.section(sections[0], 1))
    else:
        parts.append(f"<h1>{data(title)}</h1><p>{data(intro)}</p>")
        rendered = [page.section(section, 2, section.title if n else "") for n, section in enumerate(sections)]
        parts += [page.contents(title, sections, rendered), *rendered]
    if not page.pictures:
        parts.insert(0, f'<p class="note">{safe(PICTURES)}</p>')
    if page.files:
        parts.append('<p class="small">The pictures are PNG files as well, in the folder beside this page.</p>')
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n{GENERATOR}\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{safe(title)}</title>\n'
            f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts)
            + "\n</main></body></html>\n")  # fmt: skip


def check_place(path: Path):
    """UserError where `path` is a folder, a name without .html, or a file that is not an earlier page of ours."""
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file, such as {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: browsers show such a file as text; name {path}.html")
    if path.exists() and GENERATOR not in path.read_bytes()[:4096].decode("utf-8", errors="replace"):
        raise UserError(f"--out {path}: is there and is no page of this program; name another file")


def write(path: Path, text: str, files: dict[str, bytes]):
    """Write the page and its pictures. Pictures of an earlier page that this one does not have are removed."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    folder = pictures_folder(path)
    for old in folder.glob("*.png"):
        if old.name not in files and MARK.encode() in old.read_bytes()[:1000]:
            old.unlink()
    for name, content in files.items():
        with atomic(folder / name) as temporary:
            temporary.write_bytes(content)


def pictures_folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}-pictures")
