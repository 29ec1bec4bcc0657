"""data/sample: it is what its generator writes, in the course's form, and nobody else's text."""

import csv
import importlib.util
import itertools
import os
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
SAMPLE = DATA / "sample"
SIZES = {"train": 300, "dev": 80, "test-student": 60}
SPLITS = {"ids-sst": tuple(SIZES), "quora": tuple(SIZES), "sts": tuple(SIZES), "nli": ("train", "dev")}
HEADERS = {
    "ids-sst-train.csv": "\tid\tsentence\tsentiment\n",
    "ids-sst-dev.csv": "\tid\tsentence\tsentiment\n",
    "ids-sst-test-student.csv": "0\t\tid\tsentence\n",
    "quora-train.csv": "\tid\tsentence1\tsentence2\tis_duplicate\n",
    "quora-dev.csv": "\tid\tsentence1\tsentence2\tis_duplicate\n",
    "quora-test-student.csv": "\tid\tsentence1\tsentence2\n",
    "sts-train.csv": "\tid\tsentence1\tsentence2\tsimilarity\n",
    "sts-dev.csv": "\tid\tsentence1\tsentence2\tsimilarity\n",
    "sts-test-student.csv": "\tid\tsentence1\tsentence2\n",
    "nli-train.csv": "\tid\tpremise\thypothesis\tlabel\n",
    "nli-dev.csv": "\tid\tpremise\thypothesis\tlabel\n",
}
TEXTS = ("sentence", "sentence1", "sentence2", "premise", "hypothesis")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def texts(rows: list[dict[str, str]]) -> set[str]:
    """The texts of `rows`, in lower case and without blanks around them, as a model would get them."""
    return {row[column].strip().lower() for row in rows for column in TEXTS if row.get(column)}


def generate(folder: Path, *arguments: str) -> dict[str, bytes]:
    spec = importlib.util.spec_from_file_location("make_sample", DATA / "make_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--to", str(folder), *arguments])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_generator_writes_these_very_bytes(tmp_path):
    assert generate(tmp_path) == {path.name: path.read_bytes() for path in SAMPLE.iterdir()}


def test_another_seed_writes_another_sample(tmp_path):
    for name, content in generate(tmp_path, "--seed", "1").items():
        assert content != (SAMPLE / name).read_bytes()


@pytest.mark.parametrize("name", HEADERS)
def test_form(name):
    lines = (SAMPLE / name).read_bytes().decode("utf-8")
    assert lines.startswith(HEADERS[name])
    assert "\r" not in lines and lines.endswith("\n")
    columns = HEADERS[name].rstrip("\n").split("\t")
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        records = list(csv.reader(file, delimiter="\t"))[1:]
    assert len(records) == next(size for split, size in SIZES.items() if split in name)
    for i, record in enumerate(records):
        assert len(record) == len(columns) and all(record)
        assert record[: columns.index("id")] == ([str(i + 1), f"{i}.0"] if "sst-test" in name else [str(i)])


def test_the_header_files_are_all_there_is():
    assert {path.name for path in SAMPLE.iterdir()} == set(HEADERS)


def test_ids_are_25_hex_digits_and_unique():
    ids = [row["id"] for name in HEADERS for row in read(SAMPLE / name)]
    assert all(len(one) == 25 and set(one) <= set("0123456789abcdef") for one in ids)
    assert len(set(ids)) == len(ids) == sum(SIZES[split] for splits in SPLITS.values() for split in splits)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels(split):
    sentiments = Counter(row["sentiment"] for row in read(SAMPLE / f"ids-sst-{split}.csv"))
    assert sentiments == {label: SIZES[split] // 5 for label in "01234"}

    duplicates = Counter(row["is_duplicate"] for row in read(SAMPLE / f"quora-{split}.csv"))
    assert set(duplicates) == {"0.0", "1.0"}
    assert 0.35 <= duplicates["1.0"] / SIZES[split] <= 0.45

    scores = [row["similarity"] for row in read(SAMPLE / f"sts-{split}.csv")]
    assert all(score == f"{float(score):.1f}" and 0 <= float(score) <= 5 for score in scores)
    degrees = Counter(round(float(score)) for score in scores)
    assert set(degrees) == set(range(6)) and min(degrees.values()) >= SIZES[split] // 8

    labels = Counter(row["label"] for row in read(SAMPLE / f"nli-{split}.csv"))
    assert set(labels) == {"entailment", "neutral", "contradiction"} and min(labels.values()) >= SIZES[split] // 3 - 1


@pytest.mark.parametrize("task", SPLITS)
def test_no_row_twice_and_no_text_in_two_splits(task):
    splits = {split: read(SAMPLE / f"{task}-{split}.csv") for split in SPLITS[task]}
    for split, rows in splits.items():
        order = list if task == "nli" else sorted  # to entail is one thing, to be entailed another
        assert len({tuple(order(row[c] for c in TEXTS if c in row)) for row in rows}) == SIZES[split]
    for one, other in itertools.combinations(splits.values(), 2):
        assert not texts(one) & texts(other)


def words(text: str) -> set[str]:
    return set(text.lower().rstrip("?").split())


@pytest.mark.parametrize("split", ["train", "dev"])
def test_shared_words_do_not_tell_duplicates(split):
    rows = read(SAMPLE / f"quora-{split}.csv")
    pairs = [(words(row["sentence1"]), words(row["sentence2"]), row["is_duplicate"] == "1.0") for row in rows]
    overlaps = [(len(one & other) / len(one | other), label) for one, other, label in pairs]
    best = max(sum((overlap >= bound) == label for overlap, label in overlaps) for bound, _ in overlaps)
    assert best / len(rows) < 0.7  # to say "no" always is right in about 0.6


def test_the_oddities_of_the_form_are_there():
    for task in ("ids-sst", "quora", "sts"):
        content = (SAMPLE / f"{task}-train.csv").read_bytes().decode("utf-8")
        assert '""' in content  # a quote in a quoted field
        assert "," in content
        assert not content.isascii()


def test_no_text_is_of_a_real_data_set():
    folder = os.environ.get("MINBERT_DATA")
    if not folder:
        pytest.skip("set MINBERT_DATA to a folder with the real files to compare with them")
    files = [Path(folder) / name for name in HEADERS if (Path(folder) / name).exists()]
    assert files, f"MINBERT_DATA={folder} has none of the course's files"
    real = set().union(*(texts(read(path)) for path in files))
    assert not real & set().union(*(texts(read(SAMPLE / name)) for name in HEADERS))
