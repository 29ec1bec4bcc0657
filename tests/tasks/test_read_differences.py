"""Where this reader differs from `csv.DictReader`, kind by kind: what each reads, and which of the two is right."""

import csv
import io

import pytest

from minbert.tasks import TASKS

HEADER = "\tid\tsentence\tsentiment\n"


def theirs(content: str, newline: str | None = "") -> list[dict]:
    """The rows as DictReader has them. newline: as `open` takes it; None makes every line break an LF."""
    text = io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8", newline=newline)
    return list(csv.DictReader(text, delimiter="\t"))


BREAKS = {"CRLF": "\r\n", "CR": "\r", "LF": "\n"}


@pytest.mark.parametrize("name", BREAKS)
def test_a_line_break_within_a_quoted_field_is_an_lf_as_universal_newlines_have_it(read, name):
    content = f'{HEADER}0\ta\t"good{BREAKS[name]}film"\t3\n1\tb\tbad\t0\n'
    texts = [example.texts[0] for example in read(content)]
    assert texts == ["good\nfilm", "bad"] == [row["sentence"] for row in theirs(content, None)]


def test_a_break_of_lf_and_cr_ends_one_line(read):
    content = f"{HEADER}0\ta\tgood\t3\n1\tb\tbad\t0\n".replace("\n", "\n\r")
    rows = [(example.texts[0], example.label) for example in read(content)]
    assert rows == [(row["sentence"], float(row["sentiment"])) for row in theirs(content)]


@pytest.mark.parametrize("label", ["1e400", "nan", "-nan", "inf", "7", "-1", "1.5", "1_0", "0x1", "true"])
def test_a_label_that_is_no_class_is_refused_where_dictreader_hands_on_a_text(refused, label):
    content = f"{HEADER}0\ta\tgood\t{label}\n"
    assert theirs(content)[0]["sentiment"] == label
    line = refused(content)
    assert "line 2" in line and f"sentiment is {label!r}" in line


@pytest.mark.parametrize("label", ["1e400", "nan", "6", "-0.1", "abc"])
def test_a_similarity_off_its_scale_is_refused(refused, label):
    content = f"\tid\tsentence1\tsentence2\tsimilarity\n0\ta\tone\ttwo\t{label}\n"
    assert "line 2" in refused(content, TASKS["sts"])


def test_a_row_with_a_field_too_many_is_left_out_aloud_where_dictreader_shifts_it(read, capsys):
    content = f"{HEADER}0\ta\tgood\t3\n1\tb\tba\td\t0\n"
    assert theirs(content)[1]["sentiment"] == "d"
    assert len(read(content)) == 1
    assert "line 3 (5 fields, the header has 4)" in capsys.readouterr().err


def test_a_row_that_is_too_short_is_left_out_aloud_where_dictreader_has_none(read, capsys):
    content = f"{HEADER}0\ta\tgood\t3\n1\tb\tbad\n"
    assert theirs(content)[1]["sentiment"] is None
    assert len(read(content)) == 1
    assert "line 3 (empty sentiment)" in capsys.readouterr().err


def test_a_quote_that_swallows_rows_is_refused_where_dictreader_loses_them(refused):
    content = f'{HEADER}0\ta\t"good\t3\n1\tb\tbad\t0\n2\tc\t"fine"\t2\n'
    assert len(theirs(content)) < 3
    assert "line 2" in refused(content)


def test_all_else_is_read_as_dictreader_reads_it(read):
    content = HEADER + "".join(f'{i}\tx{i}\t{text}\t{i % 5}\n' for i, text in enumerate(
        ["plain", '"quoted"', '"two ""quotes"" inside"', 'a "quote" within', "é\u2028\x85", "a,b;c", '"tab\tinside"']
    ))  # fmt: skip
    rows = theirs(content)
    assert [example.texts[0] for example in read(content)] == [row["sentence"].strip() for row in rows]
    assert [example.label for example in read(content)] == [float(row["sentiment"]) for row in rows]
