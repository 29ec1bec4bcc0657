"""Prediction files: to the byte as the courses' own scripts write them, a line for every row of the file."""

import csv
import io
import json

import numpy as np
import pytest
import torch

from minbert.data import Example, Examples, read_examples
from minbert.errors import UserError
from minbert.evaluation import FORMS, write_predictions
from minbert.tasks import TASKS, Task

SST = TASKS["sst"]
IDS = [Example("a1", ("w1",), None), Example("b2", ("w2",), None)]


@pytest.fixture
def written(read, tmp_path):
    """Read a file, predict the classes 0, 1, 2, 3, 4, 0, 1 ... for its rows; the bytes of the prediction file."""

    def written(content: str, split: str = "test") -> bytes:
        examples = read(content, split=split)
        write_predictions(tmp_path / "out.csv", SST, examples, np.arange(len(examples)) % 5)
        return (tmp_path / "out.csv").read_bytes()

    return written


@pytest.mark.parametrize(
    ("task", "logits", "expected"),
    [
        ("sst", [[0, 0, 9, 0, 0], [9, 0, 0, 0, 0]], b"id \t Predicted_Sentiment \na1 , 2 \nb2 , 0 \n"),
        ("para", [[3.0], [-3.0]], b"id \t Predicted_Is_Paraphrase \na1 , 1.0 \nb2 , 0.0 \n"),
        # A float32's own digits, as the course's f-string writes what comes out of `.numpy()`:
        ("sts", [[2.5], [2.6]], b"id \t Predicted_Similiary \na1 , 2.5 \nb2 , 2.5999999046325684 \n"),
        ("cfimdb", [[0, 1], [1, 0]], b"id \t Predicted_Sentiment \na1 , 1 \nb2 , 0 \n"),
    ],
)
def test_stanfords_form(tmp_path, task, logits, expected):
    predictions = TASKS[task].predict(torch.tensor(logits, dtype=torch.float32))
    write_predictions(tmp_path / "new" / "out.csv", TASKS[task], IDS, predictions)
    assert (tmp_path / "new" / "out.csv").read_bytes() == expected


@pytest.mark.parametrize("split", ["dev", "test"])
def test_cmus_form_until_2022_has_the_text_in_lower_case(written, split):
    content = "3 |||  It 's a LOVELY film . \n0 ||| Naïve ||| No\t!\n1 ||| ÉTÉ\n"
    expected = "0 ||| it 's a lovely film .\n1 ||| naïve ||| no\t!\n2 ||| été\n"
    assert written(content, split) == expected.encode()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_cmus_form_since_2023_is_what_pandas_writes(written, split):
    """As `pandas.DataFrame({"ID": range(3), "label": [0, 1, 2]}).to_csv(path, index=None)` writes it."""
    content = 'ID,data,label\n0,"It \'s a lovely film , really",3\n1,No .,0\n2,Yes .,1\n'
    assert written(content, split) == b"ID,label\n0,0\n1,1\n2,2\n"
    assert written(content.replace("\n", "\r\n"), split) == b"ID,label\n0,0\n1,1\n2,2\n"


def test_a_word_with_a_comma_is_quoted_as_pandas_quotes_it(tmp_path):
    task = Task("mood", texts=("data",), label="label", words=("so, so", 'a "high"'), by_number=False)
    write_predictions(
        tmp_path / "out.csv", task, Examples([Example("7", ("a",), None)] * 2, "cmu2023"), np.array([0, 1])
    )
    assert (tmp_path / "out.csv").read_bytes() == b'ID,label\n7,"so, so"\n7,"a ""high"""\n'


def test_no_examples_make_a_file_of_a_header(tmp_path):
    write_predictions(tmp_path / "out.csv", SST, [], np.array([]))
    assert (tmp_path / "out.csv").read_bytes() == b"id \t Predicted_Sentiment \n"


def test_a_file_of_cmus_first_form_reads_back_as_a_labelled_file(tmp_path):
    path = tmp_path / "cmu.txt"
    path.write_text("-1 ||| a film\n-1 ||| no\rfilm\n", newline="")
    write_predictions(path, SST, read_examples(path, SST, split="test"), np.array([3, 0]))
    assert [(e.texts[0], e.label) for e in read_examples(path, SST)] == [("a film", 3.0), ("no film", 0.0)]


@pytest.mark.parametrize(
    "content",
    [
        "id\tsentence\n" + "".join(f"{i % 7}\t{'text' if i % 3 else ''}\n" for i in range(60)),
        "id,sentence,sentiment\n" + "".join(f"x {i},text,-1\n" for i in range(60)),
        "sentence\n" + "".join(f"text {i}\n" for i in range(60)),
        "".join(f"-1 ||| {'text' * (i % 2)}\n" for i in range(60)),
        "ID,data,label\n" + "".join(f"{i},{'text' if i % 3 else ''},\n" for i in range(60)),
        json.dumps([{"id": -i, "sentence": "text"} for i in range(60)]),
        json.dumps([{"id": None, "sentence": None} for _ in range(60)]),
    ],
    ids=["tabs", "commas", "no ids", "bars", "ID,data,label", "JSON numbers", "JSON nulls"],
)
def test_sixty_rows_have_sixty_predictions(written, content):
    header = 0 if "|||" in content else 1
    assert len(written(content).decode().split("\n")) == 60 + header + 1  # and nothing after the last line end


def test_rows_without_ids_have_numbers_even_if_nobody_said_what_the_file_is_for(tmp_path, read):
    write_predictions(tmp_path / "out.csv", SST, read("sentence\ta\nfine\t\npoor\t\n"), np.array([3, 0]))
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["0 , 3 ", "1 , 0 "]


def test_examples_that_come_from_no_file_have_stanfords_form_with_ids_and_cmus_without(tmp_path):
    write_predictions(tmp_path / "out.txt", SST, [Example(None, ("A film",), None)], np.array([3]))
    assert (tmp_path / "out.txt").read_bytes() == b"3 ||| a film\n"


@pytest.mark.parametrize("form", [*FORMS, None])
def test_as_many_predictions_as_examples(tmp_path, form):
    with pytest.raises(ValueError):
        write_predictions(tmp_path / "out.csv", SST, Examples(IDS, form), np.array([1]))
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("id", ["=1+1", "+1", "-1", "@sum", "=cmd|' /c calc'!a1", "--x"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_cell_of_a_prediction_file_is_a_formula(written, id, split, capsys):
    """A spreadsheet runs a cell that starts with = + - @, and a file of predictions is opened in one."""
    rows = written(f"\tid\tsentence\n0\tgood\tfine\n1\t{id}\tfine\n", split).decode().splitlines()
    assert rows[1:] == ["good , 0 ", f"'{id} , 1 "]
    cells = [cell for row in csv.reader(io.StringIO("\n".join(rows))) for cell in row]
    assert not [cell for cell in cells if cell.strip()[0] in "=+-@"]
    assert ("an id that a spreadsheet would run" in capsys.readouterr().err) == (split == "test")


@pytest.mark.parametrize("id", ['"=1\n=2"', "x , 4", "a\u2028b"])
def test_an_id_that_would_break_a_line_is_refused_and_nothing_is_written(written, tmp_path, id):
    with pytest.raises(UserError, match="would break the lines of a prediction file; rename it"):
        written(f"\tid\tsentence\n1\t{id}\tfine\n", "train")
    assert not (tmp_path / "out.csv").exists()
