"""What a file is for decides what matters in it: ids where predictions are written, labels where they are learned."""

import json

import pytest

from minbert.data import Dataset, Example, read_examples
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

PARA = TASKS["para"]
HEADER = "\tid\tsentence\tsentiment\n"
ROWS = "0\tA1\tfine\t3\n1\t a1 \tpoor\t0\n2\t\tgood\t4\n3\t=1+1\tdull\t1\n4\tx y/é\tok\t2\n"
TEXTS = ["fine", "poor", "good", "dull", "ok"]


def texts(examples) -> list[str]:
    return [example.texts[0] for example in examples]


# ---------------------------------------------------------------------------------------------- ids


def test_ids_mean_nothing_in_training(read, capsys):
    odd = '5\t"two\nlines"\tlong\t2\n6\ta,b\tlonger\t2\n7\t\x1b[31m\tlast\t2\n'
    assert texts(read(HEADER + ROWS + odd)) == [*TEXTS, "long", "longer", "last"]
    assert texts(read("\tid\tsentence\tid\n0\ta\tfine\tb\n")) == ["fine"]  # two columns of ids
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_row_keeps_its_place_whatever_its_id_and_odd_ids_are_named(read, split, capsys):
    examples = read(HEADER + ROWS, split=split)
    assert texts(examples) == TEXTS
    assert [e.id for e in examples] == ["a1", "a1", "", "=1+1", "x y/é"]
    said = capsys.readouterr().err
    assert "1 row without an id: line 4\n" in said
    assert "1 row with a repeated id: line 3 ('a1')\n" in said
    assert "1 row with an id that a spreadsheet would run, written with an apostrophe: line 5 ('=1+1')\n" in said


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("id", ["a,b", '"two\nlines"', "\x1b[31m", "a\u2028b", "a\x0bb", "a\x7fb", '"a\tb"'])
def test_an_id_that_would_break_the_prediction_file_is_refused_with_its_line(refused, split, id):
    message = refused(f"{HEADER}0\ta\tfine\t3\n1\t{id}\tok\t3\n", split=split)
    assert "line 3: the id '" in message and message.endswith("would break the prediction file; rename it")
    assert message.isascii() and message.isprintable()


def test_ids_of_json_that_no_file_can_hold_are_refused_where_they_are_written(read, refused):
    row = '{"id": "\\ud800", "sentence": "a", "sentiment": 1}'
    assert texts(read(row)) == ["a"]
    assert "line 1: the id '\\ud800'" in refused(row, split="dev")


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize(
    "content",
    [
        "sentence\tsentiment\nfine\t3\n\t3\npoor\t0\n",
        "id\tsentence\tsentiment\n\tfine\t3\n\t\t3\n\tpoor\t0\n",
        "".join(json.dumps({"sentence": text, "sentiment": 3}) + "\n" for text in ("fine", "", "poor")),
    ],
    ids=["no column", "an empty column", "JSON"],
)
def test_a_file_without_ids_has_its_rows_numbered(read, split, content, capsys):
    expected = {"dev": [("0", "fine"), ("2", "poor")], "test": [("0", "fine"), ("1", ""), ("2", "poor")]}
    assert [(e.id, e.texts[0]) for e in read(content, split=split)] == expected[split]
    assert "has no ids; the prediction file will hold the numbers of the rows, from 0\n" in capsys.readouterr().err


def test_cmus_rows_are_numbered_in_the_file_whatever_was_left_out_or_drawn(read, capsys):
    content = "ID,data,label\n0,fine,3\n1,,3\n2,poor,0\n"
    assert [e.id for e in read(content, split="dev")] == ["0", "2"]
    assert capsys.readouterr().err.count("\n") == 1  # of the row that is left out
    assert [e.id for e in read(content, split="test")] == ["0", "1", "2"]
    many = "ID,data,label\n" + "".join(f"{i},text {i},3\n" for i in range(100))
    drawn = read(many, split="dev", limit=10)
    assert [f"text {e.id}" for e in drawn] == texts(drawn) and len(drawn) == 10


def test_cmus_ids_that_are_not_the_numbers_of_the_rows_are_told_of(read, capsys):
    content = "ID,data,label\n5,fine,3\n6,poor,0\n"
    assert [e.id for e in read(content, split="dev")] == ["0", "1"]
    assert "its IDs are not the numbers of its rows from 0, which the prediction file has" in capsys.readouterr().err
    assert read(content) and capsys.readouterr().err == ""  # in training they mean nothing


def test_many_odd_ids_are_counted_in_one_line(read, capsys):
    read("id\tsentence\tsentiment\n" + f"{'x' * 10_000}\tfine\t3\n" * 500, split="dev")
    said = capsys.readouterr().err
    assert "499 rows with a repeated id: line 3 ('xxx" in said and "and 489 more" in said
    assert said.count("\n") == 1 and len(said) < 1000


# ---------------------------------------------------------------------------------------------- labels and texts


@pytest.mark.parametrize("label", ["", "-1", "3", "9", "maybe", "nan"])
def test_labels_of_a_test_file_do_not_matter(read, label, capsys):
    rows = f"{HEADER}0\ta\tfine\t{label}\n1\tb\tpoor\t{label}\n"
    assert read(rows, split="test") == [Example("a", ("fine",), None), Example("b", ("poor",), None)]
    assert capsys.readouterr().err.count("the sentiment of a test file is not used") == (label != "")
    assert read(f"{label} ||| fine\n", split="test") == [Example(None, ("fine",), None)]
    assert [e.label for e in read(f"ID,data,label\n0,fine,{label}\n", split="test")] == [None]
    assert [e.label for e in read(json.dumps({"sentence": "a", "sentiment": label}), split="test")] == [None]


def test_labels_that_the_annotators_did_not_agree_on_do_not_matter_in_a_test_file(read):
    assert len(read("premise\thypothesis\tlabel\na\tb\t-\n", TASKS["nli"], split="test")) == 1


def test_rows_with_an_empty_text_are_predicted_and_named(read, capsys):
    rows = (
        "\tid\tsentence1\tsentence2\n"
        + "".join(f"{i}\tx{i}\tone\ttwo\n" for i in range(58))
        + "58\ty\t\ttwo\n59\tz\t\t\n"
    )
    examples = read(rows, PARA, split="test")
    assert len(examples) == 60 and [e.texts for e in examples[-2:]] == [("", "two"), ("", "")]
    said = capsys.readouterr().err
    assert (
        "predicts 2 rows with an empty field: line 60 (empty sentence1), line 61 (empty sentence1, sentence2)" in said
    )
    data = Dataset(PARA, examples, BertTokenizer(SPECIAL))
    assert data.batch([59]).input_ids.tolist() == [[2, 3], [2, 3]]  # [CLS] [SEP], twice


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1\tb", "2 fields, the header has 4"),
        ("1\tb\tok\t3\tmore", "5 fields, the header has 4"),
        ("no tab", "1 field, the header has 4"),
    ],
)
def test_a_test_file_with_a_torn_row_is_refused(read, refused, row, said):
    content = f"{HEADER}0\ta\tfine\t3\n{row}\n2\tc\tok\t3\n"
    assert f"line 3: {said}; repair the row" in refused(content, split="test")
    assert len(read(content)) == 2  # in training the row is left out


def test_a_test_file_row_may_end_before_its_label(read):
    assert read(f"{HEADER}0\ta\tfine\n", split="test") == [Example("a", ("fine",), None)]


def test_a_test_file_of_cmu_with_a_line_without_bars_is_refused(refused, read):
    assert "line 2: not `label ||| text`; repair the row" in refused("3 ||| ok\nno bars\n", split="test")
    assert texts(read("3 ||| ok\n1 ||| \n", split="test")) == ["ok", ""]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_that_cannot_be_learned_or_scored_are_left_out_and_named(read, split, capsys):
    content = f"{HEADER}0\ta\tfine\t3\n1\tb\t\t3\n2\tc\tok\t\n3\td\n"
    assert texts(read(content, split=split)) == ["fine"]
    expected = (
        "left out 3 broken rows: line 3 (empty sentence), line 4 (empty sentiment), line 5 (empty sentence, sentiment)"
    )
    assert expected in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- quotes


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("columns", ["id sentence label", "label sentence id", "sentence label", "id sentence"])
def test_a_quote_that_swallows_rows_is_found_in_any_order_of_columns(refused, columns, delimiter):
    columns = columns.split()
    rows = [("x1", '"I like it .', "3"), ("x2", "No .", "1"), ("x3", 'So do I ."', "4"), ("x4", "Yes .", "0")]
    rows = [dict(zip(("id", "sentence", "label"), row, strict=True)) for row in rows]
    lines = [columns, *([row[name] for name in columns] for row in rows)]
    content = "".join(delimiter.join(line) + "\n" for line in lines)
    for split in ("train", "test"):
        assert "line 2: a quote" in refused(content, split=split)


def test_the_advice_about_a_quote_works(read, refused):
    broken = 'id\tsentence\tsentiment\n1\t"I like it .\t3\n2\tSo do I ."\t4\n'
    assert 'close it at the end of its field, or write """ if it begins the text' in refused(broken)
    assert texts(read(broken.replace("it .", 'it ."'))) == ["I like it .", 'So do I ."']
    assert texts(read(broken.replace('"I like it .', '"""I like it ."'))) == ['"I like it .', 'So do I ."']


def test_a_line_break_within_a_test_file_is_no_row(read):
    assert texts(read('id,sentence,label\na,"Great film,\nreally, great.",\nb,ok,\n', split="test")) == [
        "Great film,\nreally, great.", "ok",
    ]  # fmt: skip


def test_files_of_one_column_may_have_line_breaks(tmp_path):
    (tmp_path / "x.csv").write_text('sentence\n"Great film,\nreally great."\nBad .\n')
    assert len(read_examples(tmp_path / "x.csv", TASKS["sst"], split="test")) == 2


def test_a_split_that_there_is_none_of_is_an_error(read):
    with pytest.raises(ValueError, match="'test-student', not one of train, dev, test"):
        read(HEADER + ROWS, split="test-student")
