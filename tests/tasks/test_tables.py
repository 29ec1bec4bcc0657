"""minbert/tables.py: the same rows in every form, line numbers, and quotes that swallow rows."""

import csv
import io
import json
import random

import pytest

from minbert.errors import UserError
from minbert.tables import read_table

ROWS = [
    {"id": "a1", "sentence": "It 's a lovely film .", "label": "3"},
    {"id": "b2", "sentence": "Great,\nreally great; or so", "label": "4"},
    {"id": "c3", "sentence": "\"Two\" words, and ``one'' café", "label": "0"},
    {"id": "d4", "sentence": 'a "', "label": "1"},
]


def as_csv(rows: list[dict], delimiter: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    """A header and the rows, as Python's `csv` writes each of them, with these ends; line breaks in fields are LF."""

    def line(values) -> str:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerow(values)
        return file.getvalue().removesuffix("\n") + end

    return "".join(map(line, [rows[0], *(row.values() for row in rows)]))


@pytest.fixture
def table(tmp_path):
    """Write a text or bytes to a file, and open it as a table."""

    def open_table(content: str | bytes):
        path = tmp_path / "file.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path)

    return open_table


FORMS = {
    "tabs": as_csv(ROWS, "\t"),
    "commas": as_csv(ROWS),
    "semicolons": as_csv(ROWS, ";"),
    "all quoted": as_csv(ROWS, quoting=csv.QUOTE_ALL),
    "CRLF": as_csv(ROWS, end="\r\n"),
    "CR, as Excel for Mac": as_csv(ROWS, end="\r"),
    "CR CR LF, as Windows makes of CRLF in text mode": as_csv(ROWS, end="\r\r\n"),
    "LF CR": as_csv(ROWS, end="\n\r"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + as_csv(ROWS).encode(),
    "UTF-16, Excel's Unicode text": as_csv(ROWS, "\t", "\r\n").encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + as_csv(ROWS).encode("utf-16-be"),
    "blank lines": "\n\n" + as_csv(ROWS, end="\n\n\n"),
    "lines of blanks before the header": " \n\t\t\n" + as_csv(ROWS),
    "no end of the last line": as_csv(ROWS)[:-1],
    "JSON lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "JSON lines with CRLF and blank lines": "\r\n\r\n".join(json.dumps(row) for row in ROWS),
    "a JSON array": json.dumps(ROWS, ensure_ascii=False),
    "an indented JSON array": "\n" + json.dumps(ROWS, indent=2) + "\n\n",
    "an array with a mark": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_in_every_form(table, form):
    assert [record.values for record in table(FORMS[form]).records] == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_of_json_has_its_number_whatever_ends_the_lines(table, end):
    assert [record.line for record in table(end.join(json.dumps(row) for row in ROWS)).records] == [1, 2, 3, 4]


def test_csv_with_its_defaults_does_not_read_them_all():
    """The control of the test above."""
    assert [dict(row) for row in csv.DictReader(io.StringIO(FORMS["semicolons"]))] != ROWS


@pytest.mark.parametrize("text", ["Great film.\rReally.", "\rGreat", "Great\r\rfilm"])
def test_a_lone_cr_in_a_file_with_lf_is_a_line_break_within_the_field(table, text):
    """pandas writes it without quotes; `csv.DictReader` tears the row in two there."""
    records = list(table(f"id\tsentence\tlabel\na\t{text}\t4\nb\tBad.\t0\n").records)
    assert [record.values["sentence"] for record in records] == [text.replace("\r", "\n"), "Bad."]


def test_an_lf_in_a_file_with_cr_is_a_line_break_within_the_field(table):
    records = list(table("id\tsentence\ra\tGreat\nfilm.\rb\tBad.\r").records)
    assert [record.values["sentence"] for record in records] == ["Great\nfilm.", "Bad."]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\u2029"])
def test_other_separators_of_lines_are_text(table, separator):
    (record,) = table(f"id\tsentence\na\tone{separator}two\n").records
    assert record.values["sentence"] == f"one{separator}two"


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_fields_may_be_long(table, delimiter):
    long = "very " * 200_000 + "long"
    assert next(table(as_csv([{"id": "a", "sentence": long}], delimiter)).records).values["sentence"] == long
    assert next(table(json.dumps({"sentence": long})).records).values["sentence"] == long


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("4 ||| Great\tfilm .\n0 ||| Bad, bad .\n", [("4 ", " Great\tfilm ."), ("0 ", " Bad, bad .")]),
        ("4 ||| a ||| b\r\n", [("4 ", " a ||| b")]),
        ("4|||a\r3|||b\r", [("4", "a"), ("3", "b")]),
        ("4|||a\rb\n3|||c\n", [("4", "a\nb"), ("3", "c")]),
        (" ||| withheld\n\n\n", [(" ", " withheld")]),
        ("somewhat positive ||| a\n", [("somewhat positive ", " a")]),
    ],
)
def test_labels_and_bars(table, content, rows):
    opened = table(content)
    assert opened.form == "bars"
    assert [(r.values["label"], r.values["text"]) for r in opened.records] == rows


@pytest.mark.parametrize("content", ["id\tsentence ||| x\na\tb\n", "id,sentence ||| x\na,b\n"])
def test_bars_after_a_separator_are_no_label(table, content):
    assert table(content).form == "columns"


def test_a_column_that_a_row_is_too_short_for_is_absent_and_what_is_too_much_is_counted(table):
    short, long = table("id\tsentence\tlabel\na\tx\nb\ty\t1\tz\n").records
    assert short.values == {"id": "a", "sentence": "x"} and short.fields == 2
    assert long.values == {"id": "b", "sentence": "y", "label": "1"} and long.fields == 4


def test_lines_are_counted_as_an_editor_counts_them(table):
    rows = as_csv(ROWS, "\t") + "\n\ne5\tlast\t2\n"
    assert [record.line for record in table(rows).records] == [2, 3, 5, 6, 9]  # b2 takes two lines
    assert [record.line for record in table(json.dumps(ROWS[:3], indent=1)).records] == [2, 7, 12]
    assert [record.line for record in table("\n1 ||| a\n\n2 ||| b").records] == [2, 4]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{not JSON}", 1),
        ('{"a": 1}\n[1]\n', 2),
        ('{"a": 1}\n{"a": 1\n', 2),
        ('[{"a": 1},\n{"a": 2}', 1),
        ('[{"a": 1},\n{"a": 2}\n{"a": 3}]', 2),
        ('[{"a": 1},\n2]', 2),
        ('[{"a": 1},\n{"a": }]', 2),
        ("[" * 100_000, 1),
        ("{" * 100_000, 1),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", 1),
        ('{"a": ' + "9" * 5000 + "}", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_json_is_refused_with_its_line(table, content, line):
    with pytest.raises(UserError, match=rf"file\.csv, line {line}: not a JSON object") as caught:
        list(table(content).records)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\0", "save the table as CSV"),
        ("id\tsentence\n".encode("utf-16-le"), "NUL byte; save it as text in UTF-8"),  # without a mark
        (b"\xff\xfei\0d", "not UTF-16"),
        ("id\tcafé\n".encode("latin-1"), "line 1: not UTF-8 .byte 0xe9.; save it as UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_what_to_do(table, content, said):
    with pytest.raises(UserError, match=said):
        list(table(content).records)


# ---------------------------------------------------------------------------------------------- quotes

STRAY = 'a quote .". is opened and swallows the rows that follow'


@pytest.mark.parametrize(
    "content",
    [
        'id\tsentence\tlabel\n1\t"left open\t3\n2\tfine\t3\n',
        'id\tsentence\tlabel\n1\t"left open\t3',
        'id,sentence,label\n1,"left open,3\n2,"fine, yes",3\n',
        'id,sentence,label\n1,"left open,3\n2,he said "fine",3\n',
        'id\tsentence\tlabel\n1\t"left open\t3\n2\tfine" then\t3\n',
        '"id\tsentence\tlabel\n1\tx\t3\n',
    ],
)
def test_a_quote_that_is_not_closed_as_csv_closes_it_is_refused(table, content):
    with pytest.raises(UserError, match=STRAY):
        list(table(content).records)


def test_the_two_ends_of_a_swallowed_stretch_are_shown_as_rows(table):
    """Here `csv` finds one well-formed row: its field holds what were the rows 1 to 3. data.py knows what rows are."""
    content = 'id\tsentence\tlabel\n1\t"I like it .\t3\n2\tNo .\t0\n3\tSo do I ."\t4\n'
    (record,) = table(content).records
    assert "No ." in record.values["sentence"]
    assert record.ends == (
        {"id": "1", "sentence": '"I like it .', "label": "3"},
        {"id": "3", "sentence": 'So do I ."', "label": "4"},
    )


@pytest.mark.parametrize(
    "text", ["Great film,\nreally great.", "Great\n, really, great", "One,\ntwo, three,\nfour, five"]
)
def test_prose_over_several_lines_does_not_look_like_rows(table, text):
    for header in (["id", "sentence"], ["id", "sentence", "label"], ["label", "sentence"]):
        row = dict.fromkeys(header, "1") | {"sentence": text}
        (record,) = table(as_csv([row])).records
        assert record.values == row and record.ends == ()


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_lines_of_a_quoted_field_in_random_tables(table, delimiter):
    """Whatever `csv` writes comes back, with commas, quotes and line breaks anywhere in the text."""
    draw = random.Random(3)
    words = ["film", "great,", '"quoted"', "\n", "semi; colon", "``", "''", "\n\n", '"', "10,000", "it's", '""']
    for _ in range(200):
        rows = [
            {"id": str(i), "sentence": " ".join(draw.choices(words, k=draw.randrange(1, 12))), "label": str(i % 5)}
            for i in range(draw.randrange(1, 9))
        ]
        assert [record.values for record in table(as_csv(rows, delimiter)).records] == rows
