"""minbert/examples.py: what a task reads of the files that the courses and other people make."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from minbert.data import Dataset, Example, read_texts
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

SST, PARA, STS, NLI, CFIMDB = (TASKS[name] for name in ("sst", "para", "sts", "nli", "cfimdb"))
HEADER = b"\tid\tsentence\tsentiment\n"
PAIRS = b"\tid\tsentence1\tsentence2\tsimilarity\n"
GOOD = b"0\ta\tfine\t3\n"


def test_a_labelled_file_of_the_course(read):
    assert read(HEADER + b"0\tA1 \t It 's a lovely film .\t3\n1\tb2\tNo .\t0\n") == [
        Example("a1", ("It 's a lovely film .",), 3.0),  # the id lowercased and stripped, as the course does
        Example("b2", ("No .",), 0.0),
    ]


def test_a_test_file_of_the_course_has_one_more_column_and_no_labels(read):
    assert read(b"0\t\tid\tsentence\n1\t0.0\tb7\tEffective\n") == [Example("b7", ("Effective",), None)]


def test_columns_are_found_by_name_in_any_order(read):
    content = b"similarity\tsentence2\tnote\tid\tsentence1\n2.6\tsecond\tx\tk\tfirst\n"
    assert read(content, STS) == [Example("k", ("first", "second"), 2.6)]


def test_sts_labels_are_not_cut_to_whole_numbers(read):
    content = PAIRS + b"".join(f"\t{i}\ta\tb\t{i / 10}\n".encode() for i in range(51))
    examples = read(content, STS)
    assert [e.label for e in examples] == [i / 10 for i in range(51)]
    batch = Dataset(STS, examples, BertTokenizer(SPECIAL)).batch([26])
    assert batch.labels.dtype == torch.float32 and batch.labels.item() == pytest.approx(2.6)


def test_quora_labels_are_written_as_decimals(read):
    content = b"\tid\tsentence1\tsentence2\tis_duplicate\n0\ta\tx\ty\t1.0\n1\tb\tx\tz\t0.0\n"
    assert [e.label for e in read(content, PARA)] == [1.0, 0.0]


def test_quotes_are_the_csv_modules(read):
    content = HEADER + b'0\ta\t"""Two"" words"\t3\n1\tb\t`` so \'\' it "is\t2\n'
    assert [e.texts[0] for e in read(content)] == ['"Two" words', "`` so '' it \"is"]


def test_cmu_form(read):
    assert read("3 ||| a film | of sorts\n-1 ||| café\n0 ||| no\n".encode()) == [
        Example(None, ("a film | of sorts",), 3.0),
        Example(None, ("café",), None),  # -1: withheld
        Example(None, ("no",), 0.0),
    ]


def test_commas_separate_as_well_as_tabs(read):
    assert read(b'id,sentence,sentiment\n1,"ok, then",1\n') == [Example("1", ("ok, then",), 1.0)]


NLI_ROWS = [
    Example(None, ("A man sleeps.", "He rests."), 0.0),
    Example(None, ('"So," he said', "He spoke."), 1.0),
    Example(None, ("A man sleeps.", "He runs."), 2.0),
]
NLI_FORMS = {
    "tabs": "\tid\tpremise\thypothesis\tlabel\n0\tx\tA man sleeps.\tHe rests.\tentailment\n"
    '1\ty\t"""So,"" he said"\tHe spoke.\tneutral\n2\tz\tA man sleeps.\tHe runs.\tcontradiction\n',
    "commas, numbers": 'premise,hypothesis,label\nA man sleeps.,He rests.,0\n"""So,"" he said",He spoke.,1\n'
    "A man sleeps.,He runs.,2\n",
    "SNLI's and MultiNLI's own": "gold_label\tsentence1_parse\tsentence1\tsentence2\tpairID\n"
    'entailment\t( . )\tA man sleeps.\tHe rests.\t1.jpg#0r\nneutral\t( " )\t"So," he said\tHe spoke.\t1.jpg#0r\n'
    "contradiction\t( . )\tA man sleeps.\tHe runs.\t2.jpg#0r\n",
    "JSON, SNLI's names": "".join(
        json.dumps({"gold_label": NLI.words[int(e.label)], "sentence1": e.texts[0], "sentence2": e.texts[1]}) + "\n"
        for e in NLI_ROWS
    ),
    "JSON, numbers": "".join(
        json.dumps({"premise": e.texts[0], "hypothesis": e.texts[1], "label": int(e.label)}) + "\n" for e in NLI_ROWS
    ),
}


@pytest.mark.parametrize("form", NLI_FORMS)
def test_inference_pairs_in_all_their_forms(read, form, capsys):
    assert read(NLI_FORMS[form].encode(), NLI) == NLI_ROWS
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "undecided",
    [
        NLI_FORMS["tabs"] + "3\tu\tA man.\tA dog.\t-\n4\tv\tA man.\tA cat.\t-\n",
        NLI_FORMS["JSON, numbers"] + '{"premise": "A man.", "hypothesis": "A dog.", "label": -1}\n' * 2,
    ],
    ids=["SNLI's -", "the hub's -1"],
)
def test_pairs_without_a_label_that_the_annotators_agreed_on_are_counted_and_left_out(read, undecided, capsys):
    assert read(undecided.encode(), NLI) == NLI_ROWS
    err = capsys.readouterr().err
    assert "left out 2 rows on whose label the annotators did not agree" in err and "broken" not in err


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_windows_files_read_like_others(read, mark, capsys):
    content = HEADER + GOOD + "1\tb\tcafé\t4\n".encode()
    assert read(mark + content.replace(b"\n", b"\r\n")) == read(content)
    assert read(mark + b"3 ||| ok\r\n") == read(b"3 ||| ok\n")
    assert capsys.readouterr().err == ""


def test_the_last_line_needs_no_end(read):
    assert read((HEADER + GOOD)[:-1]) == read(HEADER + GOOD + b"\n\n") == [Example("a", ("fine",), 3.0)]


def test_limit_draws_evenly_in_the_order_of_the_file_and_smaller_draws_are_part_of_larger_ones(read):
    content = HEADER + b"".join(b"0\t%04d\tfine\t%d\n" % (i, i // 200) for i in range(1000))
    drawn = [e.id for e in read(content, limit=250)]
    assert len(drawn) == 250 and drawn == sorted(set(drawn))
    assert drawn == [e.id for e in read(content, limit=250)]
    assert set(drawn) < {e.id for e in read(content, limit=600)}
    counts = np.bincount([int(e.label) for e in read(content, limit=250)], minlength=5)
    assert chisquare(counts).pvalue > 0.001  # the first 250 would hold two classes: p = 0
    assert len(read(content, limit=2000)) == 1000


# ---------------------------------------------------------------------------------------------- other people's files

CMU_2023 = b'ID,data,label\n0,"A young violinist, hired to guard a hotel .",2\n1,No .,0\n'


def test_cmus_files_since_2023(read, capsys):
    examples = read(CMU_2023)
    assert examples.form == "cmu2023" and capsys.readouterr().err == ""
    assert examples == [
        Example("0", ("A young violinist, hired to guard a hotel .",), 2.0),
        Example("1", ("No .",), 0.0),
    ]
    assert [e.label for e in read(CMU_2023.replace(b",2", b",1"), CFIMDB)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (HEADER + GOOD, "stanford"),
        (b"3 ||| ok\n", "cmu2022"),
        (CMU_2023, "cmu2023"),
        (b"ID,data\n0,ok\n", "cmu2023"),
        (b",ID,data,label\n7,0,ok,3\n", "cmu2023"),  # with the index that pandas writes unless told not to
        (b"id;data;label\n0;ok;3\n", "cmu2023"),  # saved again by Excel
        (b"id,data,label,note\n0,ok,3,x\n", "stanford"),
        (b"data,label\nok,3\n", "stanford"),
        (b'{"id": "a", "sentence": "ok", "sentiment": 3}\n', "stanford"),
    ],
)
def test_the_form_of_the_predictions_follows_from_the_form_of_the_file(read, content, form):
    assert read(content).form == read(content, limit=1).form == form


@pytest.mark.parametrize(
    "header", [b"ID\tSentence\tSentiment\n", b' id \t"sentence"\tSENTIMENT\t\n', b"Id,sentence,Sentiment\n"]
)
def test_columns_are_found_in_any_letter_case(read, header):
    rows = b"a\tfine\t3\n" if b"\t" in header else b"a,fine,3\n"
    assert read(header + rows) == [Example("a", ("fine",), 3.0)]


def test_a_column_of_the_right_name_goes_before_one_in_other_case_or_of_another_name(read):
    content = b"Sentence,sentence,data,label,sentiment\nno,yes,no,0,4\n"
    assert read(content) == [Example(None, ("yes",), 4.0)]


def test_numbers_in_json_are_ids_and_labels_and_null_is_an_empty_field(read, capsys):
    rows = [
        {"id": 17, "sentence": "a", "sentiment": 3},
        {"id": 1.5, "sentence": "b", "sentiment": 2.0},
        {"id": None, "sentence": "c", "sentiment": "neutral"},
        {"id": 3, "sentence": None, "sentiment": 3},
        {"id": 4, "sentence": "d", "sentiment": None},
    ]
    expected = [Example("17", ("a",), 3.0), Example("1.5", ("b",), 2.0), Example("", ("c",), 2.0)]
    assert read(json.dumps(rows, indent=0)) == expected
    assert "left out 2 broken rows: line 17 (empty sentence), line 22 (empty sentiment)" in capsys.readouterr().err


def test_all_texts_of_a_file_are_found_whatever_its_labels(tmp_path):
    path = tmp_path / "nli.csv"
    path.write_text("premise\thypothesis\tlabel\na\tb\t-1\n\tc\tmaybe\nd\n")
    assert read_texts(path, NLI) == ["a", "b", "c", "d"]
