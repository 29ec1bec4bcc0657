"""minbert/data.py: what is read, what is refused and in which words, and that batches lose nothing."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from minbert.data import Batches, Dataset, Example, eval_batches, read_examples
from minbert.errors import UserError
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

SST, PARA, STS, NLI = (TASKS[name] for name in ("sst", "para", "sts", "nli"))
HEADER = b"\tid\tsentence\tsentiment\n"
PAIRS = b"\tid\tsentence1\tsentence2\tsimilarity\n"
GOOD = b"0\ta\tfine\t3\n"
WORDS = [f"w{i}" for i in range(100)]


def tokenizer(**options) -> BertTokenizer:
    """A tokenizer of a hundred words, each one piece; w0 has the first id after the special ones."""
    return BertTokenizer([*SPECIAL, *WORDS], **options)


def singles(lengths) -> Dataset:
    """A data set of one-sentence examples with so many words; the label is the example's place."""
    texts = [" ".join(WORDS[(i + k) % 100] for k in range(n)) for i, n in enumerate(lengths)]
    return Dataset(SST, [Example(str(i), (text,), float(i)) for i, text in enumerate(texts)], tokenizer())


def pairs(how: str) -> Dataset:
    rows = [("w1 w2", "w3"), ("w4", "w5 w6 w7")]
    return Dataset(PARA, [Example(str(i), row, float(i)) for i, row in enumerate(rows)], tokenizer(), how)


@pytest.fixture
def read(tmp_path):
    """Write bytes to bad.csv, read them as a task's."""

    def read(content: bytes, task=SST, **options):
        path = tmp_path / "bad.csv"
        path.write_bytes(content)
        return read_examples(path, task, **options)

    return read


def refusal(read, content: bytes, task=SST) -> str:
    """The message with which a file is refused: one line that names the file."""
    with pytest.raises(UserError) as caught:
        read(content, task)
    message = str(caught.value)
    assert "\n" not in message and "bad.csv" in message and len(message) < 600
    return message


# ---------------------------------------------------------------------------------------------- reading


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
    batch = Dataset(STS, examples, tokenizer()).batch([26])
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


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (NLI_FORMS["tabs"].replace("neutral", "maybe"), 3, "'maybe', not a whole number from 0 to 2, nor one of: ent"),
        (NLI_FORMS["commas, numbers"].replace(",2", ",3"), 4, "'3'"),
        (NLI_FORMS["tabs"].replace("hypothesis", "other"), 1, "no column 'hypothesis'"),
        (NLI_FORMS["JSON, numbers"] + "{not JSON}\n", 4, "not a JSON object"),
        (NLI_FORMS["JSON, numbers"] + "[1]\n", 4, "not a JSON object"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": "A man."}\n', 4, "no 'hypothesis'"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": null, "hypothesis": "A.", "label": 0}\n', 4, "premise is 'None'"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": ["x"], "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": "\\ud800", "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": "a\\u0000", "hypothesis": "A.", "label": 0}\n', 4, "not a text"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": "A.", "hypothesis": "B.", "label": [0]}\n', 4, "neither a number"),
        (NLI_FORMS["JSON, numbers"] + '{"premise": "A.", "hypothesis": "B.", "label": true}\n', 4, "neither a number"),
        (NLI_FORMS["commas, numbers"] + 'a,"oops open,0\nc,d,1\ne,"f",2\n', 5, "a quote"),
        (NLI_FORMS["tabs"].replace("\tid", "\tlabel"), 1, "2 columns are the label"),
    ],
)
def test_bad_files_of_inference_pairs_are_refused_with_file_and_line(read, content, line, said):
    message = refusal(read, content.encode(), NLI)
    assert f"line {line}" in message and said in message


def test_empty_fields_of_inference_pairs_are_left_out_and_named(read, capsys):
    assert read((NLI_FORMS["tabs"] + "3\tu\t\tA dog.\tneutral\n").encode(), NLI) == NLI_ROWS
    assert "line 5 (empty premise)" in capsys.readouterr().err


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


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (HEADER.replace(b"sentence", b"text") + GOOD, 1, "'sentence'"),
        (b"id;sentence;sentiment\n1;ok;1\n", 1, "tab-separated"),
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
        (HEADER.decode().encode("utf-16"), 1, "not UTF-8"),
        (HEADER + GOOD + b"1\tb\to\0k\t3\n", 3, "NUL"),
        (HEADER + GOOD + b'1\tb\t"left open\t3\n2\tc\tok\t3\n3\td\tok\t3\n', 3, "quote"),
        (HEADER + GOOD + b'1\tb\t"left open\t3\n2\tc\tok" then\t3\n3\td\tok\t3\n', 3, "quote"),
        (HEADER + GOOD + b"1\tb\t" + b"very " * 200_000 + b"long\t3\n", 3, "131072"),
        (HEADER.replace(b"\n", b"\r") + GOOD, 1, "new-line"),  # an old Macintosh's
        (b"3 ||| ok\n9 ||| ok\n", 2, "'9'"),
        (b"\n\n" + HEADER.replace(b"sentence", b"text") + GOOD, 3, "'sentence'"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_refused_with_file_and_line(read, content, line, said):
    message = refusal(read, content)
    assert f"bad.csv, line {line}:" in message and said in message


def test_labels_at_both_ends_of_the_range_are_taken(read):
    assert [e.label for e in read(HEADER + b"0\ta\tok\t0\n1\tb\tok\t4\n2\tc\tok\t2.0\n")] == [0.0, 4.0, 2.0]
    assert "similarity is '5.1', not a number from 0 to 5" in refusal(read, PAIRS + b"0\ta\tx\ty\t5.1\n", STS)


def test_one_sentence_files_are_refused_for_pairs(read):
    refusal(read, b"1 ||| only one sentence\n", PARA)


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
def test_files_without_rows(read, content, said):
    assert said in refusal(read, content)


def test_a_missing_file_says_where_files_come_from(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: no such file .*download\.py"):
        read_examples(tmp_path / "absent.csv", SST)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b"1\tb\tok\t\n", "empty sentiment"),
        (b"1\tb\t  \t3\n", "empty sentence"),
        (b"1\t\tok\t3\n", "empty id"),
        (b"1\tb\tok\n", "empty sentiment"),  # too few fields
        (b"1\tb\tok\t3\tmore\n", "5 fields, the header has 4"),
        (b"1\t A\tother\t1\n", "id a again"),
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


def test_what_is_said_of_a_row_stays_short_and_printable(read, capsys):
    read(HEADER + b"0\t" + b"x" * 100_000 + b"\tok\t3\n" + b"1\t" + b"x" * 100_000 + b"\tok\t3\n")
    assert len(capsys.readouterr().err) < 1000
    try:
        read(HEADER + GOOD + b"0\tesc\x1b[31m\tok\t3\n1\tesc\x1b[31m\tok\t3\n")
    except UserError as error:
        assert "\x1b" not in str(error)
    assert "\x1b" not in capsys.readouterr().err


def test_an_id_is_one_line(read):
    """It becomes a row of the prediction file, which a line break would tear in two."""
    try:
        examples = read(HEADER + GOOD + b'1\t"b\nc"\tok\t3\n')
    except UserError:
        return
    assert all("\n" not in e.id for e in examples)


# ---------------------------------------------------------------------------------------------- real files

REAL = {
    "ids-sst-train.csv": ("sst", 8544),
    "ids-sst-dev.csv": ("sst", 1101),
    "ids-sst-test-student.csv": ("sst", 2210),
    "ids-cfimdb-train.csv": ("cfimdb", 1707),
    "ids-cfimdb-dev.csv": ("cfimdb", 245),
    "ids-cfimdb-test-student.csv": ("cfimdb", 488),
    "quora-train.csv": ("para", 61989),
    "quora-dev.csv": ("para", 20214 - 2),
    "sts-train.csv": ("sts", 6040),
    "sts-dev.csv": ("sts", 863),
    "sts-test-student.csv": ("sts", 1725),
}


@pytest.fixture(scope="module")
def real() -> Path:
    if "MINBERT_DATA" not in os.environ:
        pytest.skip("set MINBERT_DATA to a folder with the course's files to read them")
    return Path(os.environ["MINBERT_DATA"])


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(real, name, capsys):
    task, count = REAL[name]
    examples = read_examples(real / name, TASKS[task])
    said = capsys.readouterr().err
    assert len(examples) == count == len({e.id for e in examples})
    assert {e.label is None for e in examples} == {"test" in name}
    if name == "quora-dev.csv":
        assert "left out 2 broken rows: line 2577 (" in said and ", line 14222 (" in said
    else:
        assert said == ""


@pytest.mark.parametrize("name", ["ids-sst-dev.csv", "ids-cfimdb-dev.csv", "quora-dev.csv", "sts-dev.csv"])
def test_real_files_read_as_the_courses_reader_reads_them(real, name):
    task = TASKS[REAL[name][0]]
    with open(real / name, encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if all(r[c] for c in (*task.texts, task.label))]
    assert read_examples(real / name, task) == [
        Example(r["id"].lower().strip(), tuple(r[c].strip() for c in task.texts), float(r[task.label])) for r in rows
    ]


def waste(data: Dataset, order: list[list[int]]) -> float:
    """Tokens computed for each token of text."""
    computed = sum(len(batch) * max(data.lengths[i] for i in batch) for batch in order)
    return computed / sum(data.lengths)


def test_batches_of_real_sentences_waste_little_on_pads(real):
    examples = read_examples(real / "ids-sst-train.csv", SST)
    words = sorted({word for e in examples for word in e.texts[0].lower().split()} - set(SPECIAL))
    data = Dataset(SST, examples, BertTokenizer([*SPECIAL, *words]))
    shuffled = torch.randperm(len(data)).tolist()
    random = [shuffled[i : i + 32] for i in range(0, len(data), 32)]
    assert waste(data, random) > 1.5  # what it would be
    for passes in range(3):
        assert waste(data, Batches(data, 32, seed=1).order(passes)) < 1.1


# ---------------------------------------------------------------------------------------------- encoding


def test_each_text_is_tokenised_once(monkeypatch):
    seen = []
    encode = BertTokenizer.encode
    monkeypatch.setattr(BertTokenizer, "encode", lambda self, texts: seen.extend(texts) or encode(self, texts))
    examples = [Example(str(i), (f"w{i % 5}", "w7 w8"), 1.0) for i in range(40)]
    data = Dataset(PARA, examples, tokenizer())
    stream = Batches(data, 8, seed=0)
    for _ in range(20):
        stream.next()
    list(eval_batches(data))
    assert sorted(seen) == ["w0", "w1", "w2", "w3", "w4", "w7 w8"]


def decode(data: Dataset, batch) -> list[str]:
    rows = zip(batch.input_ids, batch.attention_mask, strict=True)
    return [data.tokenizer.decode(ids[mask == 1]) for ids, mask in rows]


def test_separate_pairs_stand_as_all_first_sentences_then_all_second_ones():
    data = pairs("separate")
    batch = data.batch([1, 0])
    assert decode(data, batch) == [
        "[CLS] w4 [SEP]", "[CLS] w1 w2 [SEP]",
        "[CLS] w5 w6 w7 [SEP]", "[CLS] w3 [SEP]",
    ]  # fmt: skip
    assert len(batch) == 2 and batch.labels.tolist() == [1.0, 0.0] and batch.token_type_ids.sum() == 0


def test_joint_pairs_tell_the_second_sentence_by_its_type():
    data = pairs("joint")
    batch = data.batch([0, 1])
    assert decode(data, batch) == ["[CLS] w1 w2 [SEP] w3 [SEP]", "[CLS] w4 [SEP] w5 w6 w7 [SEP]"]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]]


def test_joint_changes_nothing_for_single_sentences():
    examples = [Example("a", ("w1 w2",), 1.0)]
    joint, separate = (Dataset(SST, examples, tokenizer(), how) for how in ("joint", "separate"))
    assert joint.rows == separate.rows


def test_long_rows_are_cut_and_counted():
    short = tokenizer(max_length=6)
    data = Dataset(SST, [Example("a", ("w1 " * 50,), 1.0), Example("b", ("w2 w3",), 1.0)], short)
    assert data.lengths == [6, 4] and short.truncated == 1


def test_a_test_set_has_batches_without_labels():
    data = Dataset(SST, [Example("a", ("w1",), None), Example("b", ("w2",), None)], tokenizer())
    assert data.labels == [None, None] and data.batch([0, 1]).labels is None


def test_to_the_cpu_changes_nothing():
    batch = singles([3, 5]).batch([0, 1])
    moved = batch.to(torch.device("cpu"))
    assert all(getattr(moved, name) is value for name, value in vars(batch).items())


# ---------------------------------------------------------------------------------------------- batching

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=150)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_example_once_a_pass_and_all_batches_full_but_one(lengths, size, seed, passes):
    order = Batches(singles(lengths), size, seed).order(passes)
    assert sorted(i for batch in order for i in batch) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), size)
    assert sorted(map(len, order), reverse=True) == [size] * full + [rest] * (rest > 0)


def drain(stream: Batches, count: int) -> list[list[int]]:
    return [stream.next().indices for _ in range(count)]


def test_the_stream_goes_on_with_another_order():
    stream = Batches(singles([5] * 40), 4, seed=3)
    assert len(stream) == 10
    passes = [drain(stream, 10) for _ in range(4)]
    for order in passes:
        assert sorted(i for batch in order for i in batch) == list(range(40))
    assert all(a != b for k, a in enumerate(passes) for b in passes[:k])


def test_the_order_depends_on_the_seed_alone():
    data = singles([n % 9 + 1 for n in range(60)])
    torch.manual_seed(1)
    first = drain(Batches(data, 7, seed=5), 30)
    torch.manual_seed(2)
    assert drain(Batches(data, 7, seed=5), 30) == first
    assert drain(Batches(data, 7, seed=6), 30) != first


def test_the_stream_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    drain(Batches(singles([3] * 20), 4, seed=0), 12)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_stream_goes_on_exactly_where_it_stopped():
    data = singles([n % 9 + 1 for n in range(50)])
    whole = drain(Batches(data, 8, seed=5), 40)  # passes of 7 batches
    for step in range(25):
        stopped = Batches(data, 8, seed=5)
        drain(stopped, step)
        state = json.loads(json.dumps(stopped.state_dict()))
        resumed = Batches(data, 8, seed=5)
        resumed.load_state_dict(state)
        assert drain(resumed, 15) == whole[step : step + 15]
    forgetful = Batches(data, 8, seed=5)  # without its state it starts anew
    assert drain(forgetful, 15) != whole[24:39]


@given(LENGTHS, st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_evaluation_sees_every_example_once_within_its_budget(lengths, tokens):
    data = singles(lengths)
    batches = list(eval_batches(data, tokens))
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    assert all(batch.input_ids.numel() <= tokens or len(batch) == 1 for batch in batches)
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True) and widths[0] == max(lengths) + 2  # the longest comes first


def test_the_budget_counts_both_sentences_of_a_pair():
    examples = [Example(str(i), ("w1 w2", "w3"), 1.0) for i in range(20)]
    batches = list(eval_batches(Dataset(PARA, examples, tokenizer()), tokens=40))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]  # 5 · 2 rows · 4 tokens
