"""minbert/examples.py: files and rows that are not in order, and in which words they are refused or left out."""

import pytest

from minbert.data import read_examples
from minbert.errors import UserError
from minbert.tasks import TASKS

SST, PARA, STS, NLI = (TASKS[name] for name in ("sst", "para", "sts", "nli"))
HEADER = b"\tid\tsentence\tsentiment\n"
PAIRS = b"\tid\tsentence1\tsentence2\tsimilarity\n"
GOOD = b"0\ta\tfine\t3\n"


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (HEADER.replace(b"sentence", b"text") + GOOD, 1, "'sentence'"),
        (b"id|sentence|sentiment\n1|ok|1\n", 1, "found 'id|sentence|sentiment'; expected tab-separated columns"),
        (HEADER + GOOD + b"1\tb\tok\t7\n", 3, "sentiment is '7', not a whole number from 0 to 4"),
        (HEADER + GOOD + b"1\tb\tok\t-1\n", 3, "'-1'"),
        (HEADER + GOOD + b"1\tb\tok\tabc\n", 3, "'abc'"),
        (HEADER + b"1\tb\tok\t2.5\n", 2, "'2.5'"),
        (HEADER + b"1\tb\tok\tnan\n", 2, "'nan'"),
        (HEADER + b"1\tb\tok\tinf\n", 2, "'inf'"),
        (HEADER + GOOD + b"\n\n1\tb\tok\t5\n", 5, "'5'"),  # blank lines count
        (HEADER + b'0\ta\t"two\nlines"\t3\n1\tb\tok\t5\n', 4, "'5'"),  # so do those inside a quoted field
        (HEADER + GOOD + b"1\tb\tcaf\xe9 noir\t3\n", 3, "not UTF-8 (byte 0xe9)"),
        (b"\xef\xbb\xbf" + HEADER + b"1\tb\tcaf\xe9 noir\t3\n", 2, "not UTF-8 (byte 0xe9)"),
        (b"\xef\xbb\xbf" + HEADER + b"\xe9\tb\tcaf\t3\n", 2, "not UTF-8 (byte 0xe9)"),
        (HEADER + GOOD + b"1\tb\to\0k\t3\n", 3, "NUL"),
        (HEADER + GOOD + b'1\tb\t"left open\t3\n2\tc\tok\t3\n3\td\tok\t3\n', 3, "quote"),
        (HEADER + GOOD + b'1\tb\t"left open\t3\n2\tc\tok" then\t3\n3\td\tok\t3\n', 3, "quote"),
        (HEADER + GOOD + b"1\tb\tok\t1e400\n", 3, "'1e400'"),
        (b'[{"sentence": "a", "sentiment": 3},\n{"sentence": "b"},\n{"sentence": "c", "sentiment": 5}]', 3, "'5'"),
        (b"3 ||| ok\n9 ||| ok\n", 2, "'9'"),
        (b"\n\n" + HEADER.replace(b"sentence", b"text") + GOOD, 3, "'sentence'"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_a_fault_is_refused_with_file_and_line(refused, content, line, said):
    message = refused(content)
    assert f"bad.csv, line {line}:" in message and said in message


def test_labels_at_both_ends_of_the_range_are_taken(read, refused):
    assert [e.label for e in read(HEADER + b"0\ta\tok\t0\n1\tb\tok\t4\n2\tc\tok\t2.0\n")] == [0.0, 4.0, 2.0]
    assert "similarity is '5.1', not a number from 0 to 5" in refused(PAIRS + b"0\ta\tx\ty\t5.1\n", STS)


def test_one_sentence_files_are_refused_for_pairs(refused):
    refused(b"1 ||| only one sentence\n", PARA)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (HEADER, "no usable row"),
        (HEADER + b"0\ta\tok\t\n", "no usable row"),
    ],
)
def test_files_without_rows(refused, content, said):
    assert said in refused(content)


def test_a_missing_file_says_where_files_come_from(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: no such file .*download\.py"):
        read_examples(tmp_path / "absent.csv", SST)


# ---------------------------------------------------------------------------------------------- rows left out


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b"1\tb\tok\t\n", "empty sentiment"),
        (b"1\tb\t  \t3\n", "empty sentence"),
        (b"1\tb\tok\n", "empty sentiment"),  # too few fields
        (b"1\tb\tok\t3\tmore\n", "5 fields, the header has 4"),
        (b"1\tb\n", "empty sentence, sentiment"),
        (b"1\tb\tok\ttorn\tok\n", "5 fields, the header has 4"),  # not: 'torn' is no label
    ],
)
def test_broken_rows_are_left_out_aloud(read, row, why, capsys):
    assert [e.id for e in read(HEADER + GOOD + row + b"2\tz\tok\t1\n")] == ["a", "z"]
    said = capsys.readouterr().err
    assert said.endswith(f"bad.csv: left out 1 broken row: line 3 ({why})\n") and said.count("\n") == 1


def test_broken_rows_of_cmu_files_are_left_out_aloud(read, capsys):
    assert len(read(b"3 ||| ok\nno separator\n2 ||| \n\n1 ||| ok\n")) == 2
    said = capsys.readouterr().err
    assert "left out 2 broken rows: line 2 (" in said and "line 3 (" in said and said.count("\n") == 1


def test_many_broken_rows_are_counted_in_one_line(read, capsys):
    read(HEADER + GOOD + b"1\tb\tok\t\n" * 5000)
    said = capsys.readouterr().err
    assert "left out 5000 broken rows" in said and "and 4990 more" in said
    assert said.count("\n") == 1 and len(said) < 1000


# ---------------------------------------------------------------------------------------------- inference pairs

TABS = "\tid\tpremise\thypothesis\tlabel\n0\tx\tA man.\tHe rests.\tentailment\n1\ty\tA man.\tHe spoke.\tneutral\n"
COMMAS = "premise,hypothesis,label\nA man sleeps.,He rests.,0\nA man.,He spoke.,1\nA man sleeps.,He runs.,2\n"
JSON = '{"premise": "A man sleeps.", "hypothesis": "He rests.", "label": 0}\n' * 3


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (TABS.replace("neutral", "maybe"), 3, "'maybe', not a whole number from 0 to 2, nor one of: ent"),
        (COMMAS.replace(",2", ",3"), 4, "'3'"),
        (TABS.replace("hypothesis", "other"), 1, "no column 'hypothesis'"),
        (JSON + "{not JSON}\n", 4, "not a JSON object"),
        (JSON + "[1]\n", 4, "not a JSON object"),
        (JSON + '{"premise": "A man."}\n', 4, "no column 'hypothesis'; found 'premise'"),
        (JSON + '{"premise": 17, "hypothesis": "A.", "label": 0}\n', 4, "premise is '17'"),
        (JSON + '{"premise": ["x"], "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (JSON + '{"premise": "\\ud800", "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (JSON + '{"premise": "a\\u0000", "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (JSON + '{"premise": "A.", "hypothesis": "B.", "label": [0]}\n', 4, "neither a number"),
        (JSON + '{"premise": "A.", "hypothesis": "B.", "label": true}\n', 4, "neither a number"),
        (COMMAS + 'a,"oops open,0\nc,d,1\ne,"f",2\n', 5, "a quote"),
        (TABS.replace("\tid", "\tlabel"), 1, "2 columns are the label"),
    ],
)
def test_bad_files_of_inference_pairs_are_refused_with_file_and_line(refused, content, line, said):
    message = refused(content, NLI)
    assert f"line {line}" in message and said in message


def test_empty_fields_of_inference_pairs_are_left_out_and_named(read, capsys):
    assert read(TABS + "3\tu\t\tA dog.\tneutral\n", NLI) == read(TABS, NLI)
    assert "line 4 (empty premise)" in capsys.readouterr().err
