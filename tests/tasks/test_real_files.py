"""The course's own files: every row as the course's reader reads it. MINBERT_DATA names their folder."""

import csv

import pytest
import torch

from minbert.data import Batches, Dataset, Example, read_examples
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

FILES = {
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
    "nli-train.csv": ("nli", 85274),
    "nli-dev.csv": ("nli", 9824),
}


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_read_as_the_courses_reader_reads_it(real_data, name, capsys):
    """The course opens a file as text and hands it to csv.DictReader; of quora-dev it drops the rows without a label.

    Its prediction file about quora-dev therefore has 20,212 rows, as ours has.
    """
    task, count = FILES[name]
    task, split = TASKS[task], next(split for split in ("train", "dev", "test") if f"-{split}" in name)
    with open(real_data / name, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row.get(task.label) != ""]

    def label(row: dict) -> float | None:
        text = row.get(task.label)
        return None if text is None else float(task.words.index(text) if text in task.words else text)

    examples = read_examples(real_data / name, task, split=split)
    assert len(examples) == count
    ids = [row["id"].lower().strip() if task.has_ids else None for row in rows]
    texts = [tuple(row[column].strip() for column in task.texts) for row in rows]
    assert examples == [Example(*row) for row in zip(ids, texts, map(label, rows), strict=True)]
    said = capsys.readouterr().err
    if name == "quora-dev.csv":
        assert said.endswith(
            "left out 2 broken rows: line 2577 (empty is_duplicate), line 14222 (empty sentence2, is_duplicate)\n"
        )
    else:
        assert said == ""
    if split == "test":
        assert {example.label for example in examples} == {None}
    if task.has_ids:
        assert len({example.id for example in examples}) == count


def waste(data: Dataset, order: list[list[int]]) -> float:
    """Tokens computed for each token of text."""
    computed = sum(len(batch) * max(data.lengths[i] for i in batch) for batch in order)
    return computed / sum(data.lengths)


def test_batches_of_real_sentences_waste_little_on_pads(real_data):
    examples = read_examples(real_data / "ids-sst-train.csv", TASKS["sst"])
    words = sorted({word for e in examples for word in e.texts[0].lower().split()} - set(SPECIAL))
    data = Dataset(TASKS["sst"], examples, BertTokenizer([*SPECIAL, *words]))
    shuffled = torch.randperm(len(data)).tolist()
    random = [shuffled[i : i + 32] for i in range(0, len(data), 32)]
    assert waste(data, random) > 1.5  # what it would be
    for passes in range(3):
        assert waste(data, Batches(data, 32, seed=1).order(passes)) < 1.1
