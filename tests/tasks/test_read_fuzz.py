"""Files at random: what a program has written comes back, what nobody has written is refused in one line."""

import csv
import io
import json
import re
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minbert.data import read_examples
from minbert.errors import UserError
from minbert.tasks import TASKS

SST, PARA = TASKS["sst"], TASKS["para"]
FEW, MANY = settings(max_examples=300, deadline=None), settings(max_examples=600, deadline=None)

CHARACTERS = st.one_of(
    st.sampled_from([*" \t\n\r,;|\"'", "a", "b", "é", "\u2028", "\x85", "\x0b", "\ufeff", "😀"]),
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
)
TEXT = st.text(CHARACTERS, min_size=1, max_size=25).filter(str.strip)
SPLIT = st.sampled_from(["train", "dev", "test"])
ROWS = st.lists(st.tuples(TEXT, st.integers(0, 4)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file.csv"


def read(path: Path, content: str | bytes, task=SST, split="train") -> tuple[list | str, int]:
    """The examples, or the message with which the file is refused; and how many rows were said to be left out."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with redirect_stderr(io.StringIO()) as err:
        try:
            examples = read_examples(path, task, split=split)
        except UserError as error:
            examples = str(error)
    count = sum(int(number.replace(",", "")) for number in re.findall(r"left out ([\d,]+)", err.getvalue()))
    assert not [c for c in err.getvalue() if not c.isprintable() and c != "\n"]
    return examples, count


def as_read(text: str) -> str:
    """Every kind of line break is one, and spaces around a text do not count."""
    return re.sub("\r*\n\r*|\r", "\n", text).strip()


def contents(examples) -> list[tuple[str, float]]:
    return [(as_read(example.texts[0]), example.label) for example in examples]


# ---------------------------------------------------------------------------------------------- round trips


@given(
    ROWS, st.permutations(["id", "sentence", "sentiment", ""]), st.sampled_from("\t,;"), st.sampled_from([0, 1, 2]),
    st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)  # fmt: skip
@MANY
def test_what_csv_writes_comes_back(path, rows, columns, delimiter, quoting, end, encoding):
    if end == "\r":
        rows = [(re.sub("\r\n?", "\n", text), label) for text, label in rows]
    lines = [columns]
    for number, (text, label) in enumerate(rows):
        row = {"": str(number), "id": f"x{number}", "sentence": text, "sentiment": str(label)}
        lines.append([row[column] for column in columns])
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    content = ""
    for line in lines:
        file.seek(0)
        file.truncate()
        writer.writerow(line)
        content += file.getvalue().removesuffix("\n") + end
    examples, left_out = read(path, content.encode(encoding))
    if isinstance(examples, str):  # a text that could be two rows, at worst
        assert "swallows" in examples and any("\n" in as_read(text) and delimiter in text for text, _ in rows)
    else:
        assert contents(examples) == [(as_read(text), label) for text, label in rows] and left_out == 0
        assert [example.id for example in examples] == [f"x{number}" for number in range(len(rows))]


@given(ROWS, st.booleans(), st.booleans(), st.sampled_from([None, 0, 2]), st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
@FEW
def test_what_json_writes_comes_back(path, rows, array, ascii, indent, end):
    objects = [{"id": i, "sentence": text, "sentiment": label} for i, (text, label) in enumerate(rows)]
    if array:
        content = json.dumps(objects, ensure_ascii=ascii, indent=indent).replace("\n", end)
    else:
        content = "".join(json.dumps(row, ensure_ascii=ascii) + end for row in objects)
    examples, _ = read(path, content)
    assert [(e.id, e.texts[0], e.label) for e in examples] == [(str(i), t.strip(), k) for i, (t, k) in enumerate(rows)]


@given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]))
@FEW
def test_what_cmus_script_writes_comes_back(path, rows, end):
    rows = [(text.replace("\r", "").replace("\n", "") + ".", label) for text, label in rows]
    examples, left_out = read(path, "".join(f"{label} ||| {text}{end}" for text, label in rows))
    assert contents(examples) == [(text.strip(), label) for text, label in rows] and left_out == 0


# ---------------------------------------------------------------------------------------------- no silent loss

WORDS = st.lists(st.sampled_from(['"', '""', 'a"', '"b', 'c".', "d", "e f", "'", "“g”"]), min_size=1, max_size=5)


@given(
    st.lists(st.tuples(WORDS.map(" ".join), st.integers(0, 4)), min_size=1, max_size=8),
    st.permutations(["id", "sentence", "sentiment"]), st.sampled_from("\t,;"), SPLIT, st.booleans(),
)  # fmt: skip
@MANY
def test_no_row_is_lost_in_silence_where_quotes_are_not_written_as_csv_writes_them(
    path, rows, columns, delimiter, split, labelled
):
    """Lines put together with `join`: `csv` takes some of the texts' quotes for its own."""
    columns = [column for column in columns if labelled or column != "sentiment"]
    lines = [delimiter.join(columns)]
    for number, (text, label) in enumerate(rows):
        row = {"id": f"x{number}", "sentence": text, "sentiment": str(label)}
        lines.append(delimiter.join(row[column] for column in columns))
    examples, left_out = read(path, "\n".join(lines) + "\n", split=split)
    if isinstance(examples, str):
        assert '"' in "".join(lines) and ("a quote" in examples or "header has" in examples or "no usable" in examples)
    else:
        assert len(examples) + left_out == len(rows)


FRAGMENTS = st.sampled_from(
    [b"\tid\tsentence\tsentiment\n", b"id,sentence1,sentence2,is_duplicate\n", b"1\ta\tfine\t3\n", b"2\tb\tpoor\t0\n"]
    * 3
    + [b"1,fine,good,0\n", b"ID,data,label\n0,ok,1\n", b"3 ||| ok\n", b'{"sentence": "a", "sentiment": 1}', b"[", b"]"]
    + [b"\t", b"\n", b"\r", b",", b";", b'"', b'""', b" ", b"|||", b"{", b"}", b":", b"-1", b"x", b"nan", b"1e400"]
    + [b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", "é\u2028".encode(), b"PK\x03\x04", b"label", b"gold_label\t"]
)
SPLIT = st.sampled_from(["train", "dev", "test"])


@given(
    st.one_of(st.binary(max_size=80), st.lists(FRAGMENTS, max_size=12).map(b"".join)), st.sampled_from([*TASKS]), SPLIT
)
@MANY
def test_bytes_at_random_are_read_or_refused_in_one_line_that_names_the_file(path, content, task, split):
    examples, _ = read(path, content, TASKS[task], split)
    if isinstance(examples, str):
        assert examples.startswith(str(path)) and examples.isprintable() and len(examples) < 700
        assert re.search(r", line \d+: |the file is empty|no usable row", examples)
    else:
        low, high = TASKS[task].label_range
        assert examples and all(e.label is None or low <= e.label <= high for e in examples)


@given(
    st.lists(FRAGMENTS.filter(lambda f: b"\r" not in f), max_size=12).map(b"".join), st.sampled_from(["train", "test"])
)
@MANY
def test_what_dictreader_reads_of_bytes_at_random_is_read_or_accounted_for(path, content, split):
    """Tab-separated, with LF: DictReader's rows and ours are the same, but for those that are left out aloud."""
    content = b"\tid\tsentence\tsentiment\n" + content
    examples, left_out = read(path, content, split=split)
    if not isinstance(examples, str):
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter="\t"))
        assert len(examples) + left_out == len(rows)
        ours = iter([example.texts[0] for example in examples])
        theirs = iter([(row["sentence"] or "").strip() for row in rows])
        assert all(text in theirs for text in ours)  # in this order
