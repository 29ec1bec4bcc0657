"""Files as rows of named values: find out how a file is written, and read it. `examples.py` interprets the columns.

    columns   a header, then rows, separated by tabs (the course's), commas (pandas; CMU since 2023) or semicolons
              (Excel where the comma is the decimal mark), with the quotes of Python's `csv` module
    bars      `label ||| text`, one a line (CMU until 2022)
    json      one object a line, or one array of objects

The text is UTF-8, with or without a byte-order mark, or UTF-16 with one (Excel's "Unicode text"). Lines end with LF,
CRLF or CR. A lone CR in a file whose lines end with LF is a line break within a field (pandas writes it without
quotes), and so is an LF in a file whose lines end with CR.

Rows are read as `csv.DictReader` reads them, except that a quote which is opened in one row and closed in another is
an error: `csv` makes one field of everything between, and these rows are lost without a warning.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minbert.errors import UserError

csv.field_size_limit(2**31 - 1)  # by default `csv` refuses fields of over 128 KiB; more is not possible on Windows

BREAK = "\udc0a"  # stands for a line break within a field while `csv` reads it; decoded text cannot contain it
BARS = ["label", "text"]  # the names of the two values of `label ||| text`


class Record(NamedTuple):
    """One row of a file.

    values: column → value. If the row is too short, its last columns are absent.
    fields: how many fields it has, which may be more than the header has.
    ends: the fields of its first and of its last line, each read as a line of its own, if the row has several lines and
        both could be rows by themselves; otherwise empty. `examples.py` decides whether a quote has swallowed rows.
    """

    line: int  # where it begins, counted from 1
    values: dict[str, Any]
    fields: int
    ends: tuple[dict[str, str], ...] = ()


@dataclass
class Table:
    """A file: how it is written ("columns", "bars" or "json"), the names of its columns, and its rows."""

    path: Path
    form: str
    header: list[str]  # as the file spells them; empty for "json", where every object names its own values
    line: int  # of the header
    records: Iterator[Record]


def read_table(path: str | Path) -> Table:
    """Read a file's header; its rows, and their errors, come while `records` is read.

    Raises UserError for a missing or empty file, bytes that are no text, a quote that is left open, and bad JSON.
    """
    path = Path(path)
    text = _read_text(path)
    start = re.search(r"\S", text).start()
    start = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    first_line, first_break = re.compile(r"([^\r\n]*)([\r\n]*)").match(text, start).groups()
    if first_line.lstrip()[0] in "{[":
        return Table(path, "json", [], 1, _json_records(path, text.replace("\r\n", "\n").replace("\r", "\n")))
    if re.match(r'[^\t,;"|]*\|\|\|', first_line):
        return Table(path, "bars", BARS, 1, _bars_records(_lines(text, ends_with_cr="\n" not in text)))
    lines = _lines(text, ends_with_cr="\r" in first_break and "\n" not in first_break)
    delimiter = "\t" if "\t" in first_line else max(",;", key=first_line.count)
    rows = _csv_rows(path, lines, delimiter, quotes="gold_label" not in first_line or delimiter != "\t")
    line, header, _ = next(row for row in rows if any(map(str.strip, row[2])))  # not a line of blanks
    header = [name.strip() for name in header]
    return Table(path, "columns", header, line, _column_records(header, rows, delimiter))


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file (data/download.py fetches the course's; --data names their folder)"
        ) from error
    if raw.startswith(b"PK\x03\x04"):
        raise UserError(f"{path}, line 1: this is a zip archive or an Excel workbook; save the table as CSV (UTF-8)")
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        name = encoding.removesuffix("-sig").upper()
        raise UserError(f"{path}, line {line}: not {name} (byte 0x{byte:02x}); save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: holds a NUL byte; save it as text in UTF-8")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def _lines(text: str, ends_with_cr: bool) -> list[str]:
    """The text's lines, which end with CR or else with LF; both side by side are one end. Any other becomes BREAK."""
    if ends_with_cr:
        return text.replace("\r\n", "\r").replace("\n", BREAK).split("\r")
    if "\r" in text:
        text = re.sub("\r*\n\r*", "\n", text).replace("\r", BREAK)
    return text.split("\n")


# ---------------------------------------------------------------------------------------------- three forms


def _csv_rows(path: Path, lines: list[str], delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str], list[str]]]:
    """The rows that `csv` finds: the number of the first line, the fields, and the lines themselves.

    quotes: whether quotes have a meaning; they have none in SNLI's and MultiNLI's own files (a column gold_label).
    """
    options = {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE}
    reader = csv.reader((line + "\n" for line in lines), **options)
    line, broken = 1, any(BREAK in line for line in lines)
    for row in reader:
        span = lines[line - 1 : reader.line_num]
        if len(span) > 1 or (row and row[-1].endswith("\n")):  # such a row must be strictly valid csv
            try:
                complete = len(list(csv.reader((line + "\n" for line in span), strict=True, **options))) == 1
            except csv.Error:
                complete = False
            if not complete:
                raise UserError(swallowed(path, line))
        if broken:
            row = [field.replace(BREAK, "\n") for field in row]
        if row:
            yield line, row, span
        line = reader.line_num + 1


def swallowed(path: Path, line: int) -> str:
    """The error for a quote that is opened in this line and not closed in its own row."""
    return (
        f'{path}, line {line}: a quote (") is opened and swallows the rows that follow; close it at the end of its '
        'field, or write """ if it begins the text'
    )


def _column_records(
    header: list[str], rows: Iterator[tuple[int, list[str], list[str]]], delimiter: str
) -> Iterator[Record]:
    for line, row, span in rows:
        ends = ()
        if len(span) > 1:
            ends = tuple(span[i].split(delimiter) for i in (0, -1))
            prose = delimiter != "\t" and any(field.startswith(" ") for fields in ends for field in fields[1:])
            if prose or any(len(fields) != len(header) for fields in ends):
                ends = ()
        ends = tuple(dict(zip(header, fields, strict=True)) for fields in ends)
        yield Record(line, dict(zip(header, row, strict=False)), len(row), ends)


def _bars_records(lines: list[str]) -> Iterator[Record]:
    for line, text in enumerate(lines, start=1):
        text = text.replace(BREAK, "\n")
        if text.strip():
            label, bars, sentence = text.partition("|||")
            yield Record(line, dict(zip(BARS, (label, sentence), strict=True)) if bars else {}, 1 + bool(bars))


def _json_records(path: Path, text: str) -> Iterator[Record]:
    """The objects, which follow one another, or stand in brackets with commas between them."""
    decode, spaces = json.JSONDecoder().raw_decode, re.compile(r"\s*")
    position, line, counted = spaces.match(text).end(), 1, 0
    array = text[position] == "["
    try:
        if array:
            text = text.rstrip()
            if not text.endswith("]"):
                raise ValueError("the array that is opened here has no end")
            position, text = spaces.match(text, position + 1).end(), text[:-1]
        while position < len(text):
            line, counted = line + text.count("\n", counted, position), position
            value, position = decode(text, position)
            if not isinstance(value, dict):
                raise ValueError(f"{str(value)[:40]!a}")
            yield Record(line, value, len(value))
            position = spaces.match(text, position).end()
            if array and position < len(text):
                if text[position] != ",":
                    raise ValueError(f"a comma is missing before {text[position : position + 20]!a}")
                position = spaces.match(text, position + 1).end()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {line}: not a JSON object ({str(error)[:80]})") from error
