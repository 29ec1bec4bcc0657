"""What is read: no dev or test sentence, and the lessons that were asked for."""

import csv
from pathlib import Path

import pytest

from minbert.data import Batches, Dataset, read_examples
from minbert.pretrained import load_tokenizer
from minbert.pretraining.corpus import read_corpus
from minbert.pretraining.settings import get_args
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer


def keys_of(folder: Path, splits: tuple[str, ...], tokenizer: BertTokenizer) -> set[tuple[int, ...]]:
    """The word pieces of every sentence in the files of these splits, read with nothing of ours."""
    texts = []
    for task in TASKS.values():
        for split in splits:
            path = folder / task.file.format({"test": "test-student"}.get(split, split))
            if path.exists():
                with open(path, encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file, delimiter="\t"))
                texts += [row[column].strip() for row in rows for column in task.texts if row[column]]
    return set(map(tuple, tokenizer.encode([text for text in texts if text])))


def stream(data: Dataset) -> list[tuple[int, ...]]:
    """Every sentence of two passes of training batches, as it comes out of them: between [CLS] and [SEP]."""
    batches, found = Batches(data, 32, 1), []
    for _ in range(2 * len(batches)):
        for row in batches.next().input_ids.tolist():
            pieces = [id for id in row if id not in (data.tokenizer.cls_id, data.tokenizer.pad_id)]
            end = data.tokenizer.sep_id
            while pieces:
                cut = pieces.index(end)
                found.append(tuple(pieces[:cut]))
                pieces = pieces[cut + 1 :]
    return found


@pytest.fixture
def leaky(tmp_path, sample):
    """The sample data with dev and test sentences planted in the training files, and a folder without its dev files."""
    folder, blind = tmp_path / "leaky", tmp_path / "blind"
    for place in (folder, blind):
        place.mkdir()
        for file in sample.glob("*.csv"):
            if place == folder or "train" in file.name or file.name == "nli-dev.csv":
                (place / file.name).write_bytes(file.read_bytes())
    dev = [e.texts[0] for e in read_examples(sample / "ids-sst-dev.csv", TASKS["sst"])][:20]
    test = [e.texts[0] for e in read_examples(sample / "sts-test-student.csv", TASKS["sts"])][:20]
    for place in (folder, blind):
        with open(place / "ids-sst-train.csv", "a", encoding="utf-8") as file:
            file.writelines(f"9\tdev{i}\t{text.upper()}  \t2\n" for i, text in enumerate(dev))
        with open(place / "nli-train.csv", "a", encoding="utf-8") as file:
            file.write("9\tx1\tNobody agreed on this one.\tNor is this.\tneutral\n")
            file.writelines(f"9\ttest{i}\tA new premise {i}.\t{text}\tneutral\n" for i, text in enumerate(test))
    with open(folder / "nli-dev.csv", "a", encoding="utf-8") as file:
        file.write("9\tx2\tNobody agreed on this one.\tWho knows.\t-\n")
    with open(folder / "quora-dev.csv", "a", encoding="utf-8") as file:
        file.write("9\tx3\tNor is this.\t\t\n")
    return folder, blind


def test_no_dev_or_test_sentence_is_in_the_stream(leaky, tiny):
    folder, blind = leaky
    tokenizer = load_tokenizer(tiny)
    forbidden = keys_of(folder, ("dev", "test"), tokenizer)
    corpus = read_corpus(folder, tokenizer)
    mlm, nli = stream(corpus.mlm), stream(corpus.nli)
    assert len(set(mlm)) == len(corpus.mlm) > 500 and len(nli) == 4 * len(corpus.nli) > 500
    assert sum(key in forbidden for key in mlm) == 0
    assert sum(key in forbidden for key in nli) == 0
    notes = "\n".join(corpus.notes)  # planted in capitals and with spaces: the same word pieces
    planted = len(keys_of(folder, ("train",), tokenizer) & forbidden)
    assert planted > 35 and f"left out {planted} sentences that a dev or test file has" in notes
    assert "left out 21 pairs with a dev or test file's sentence" in notes
    assert "compared with ids-sst-dev.csv, ids-sst-test-student.csv, quora-dev.csv" in notes

    corpus = read_corpus(blind, tokenizer)  # who cannot see the dev and test files lets the planted ones through
    assert len({key for key in stream(corpus.mlm) if key in forbidden}) > 30
    assert len({key for key in stream(corpus.nli) if key in forbidden}) > 10


def test_held_out_sentences_are_in_neither_stream(sample, tiny):
    tokenizer = load_tokenizer(tiny)
    corpus = read_corpus(sample, tokenizer, held_out=60)
    aside = set(stream(corpus.held_out))
    assert len(aside) == 60
    assert aside.isdisjoint(stream(corpus.mlm)) and aside.isdisjoint(stream(corpus.nli))
    everything = keys_of(sample, ("train",), tokenizer)
    assert aside | set(stream(corpus.mlm)) == everything  # nothing else is lost
    assert set(stream(read_corpus(sample, tokenizer, held_out=60).held_out)) == aside
    assert len(read_corpus(sample, tokenizer, held_out=10**6).held_out) == len(everything) // 10


def test_lessons_and_files_are_those_that_were_asked_for(sample, tiny):
    tokenizer = load_tokenizer(tiny)
    only = read_corpus(sample, tokenizer, ["mlm"], ["sts"], {"sts": 50})
    assert only.nli is None and only.nli_dev is None and 50 < len(only.mlm) + len(only.held_out) <= 100
    assert any(note.startswith("STS-B similarity: ") for note in only.notes)
    pairs = read_corpus(sample, tokenizer, ["nli"], [], {"nli": 90}, pairs="separate")
    assert pairs.mlm is None and pairs.held_out is None and len(pairs.nli) == 90 and len(pairs.nli_dev) == 80
    assert len(pairs.nli.rows[0]) == 2 and len(read_corpus(sample, tokenizer, ["nli"], []).nli.rows[0]) == 1


@pytest.mark.parametrize("cmus", ["dev", "train", "dev train"])
def test_files_with_cmus_names_are_read_and_left_out_too(tmp_path, tiny, cmus):
    """The dev file has the sentences of the training file's first half."""
    tokenizer = load_tokenizer(tiny)
    for split, count in (("train", 40), ("dev", 20)):
        texts = [f"film number {i}" for i in range(count)]
        if split in cmus.split():
            lines, path = [f"3 ||| {text}" for text in texts], tmp_path / f"sst-{split}.txt"
        else:
            lines, path = ["id\tsentence\tsentiment"], tmp_path / f"ids-sst-{split}.csv"
            lines += [f"{i}\t{text}\t3" for i, text in enumerate(texts)]
        path.write_text("".join(f"{line}\n" for line in lines))
    corpus = read_corpus(tmp_path, tokenizer, ["mlm"], ["sst"])
    args = get_args(["--tasks", "mlm", "--corpus", "sst", "--data", str(tmp_path), "--out", "out"])
    assert corpus.notes[0] == f"compared with {args.files['sst']['dev'].name}"
    expected = {tuple(row) for row in tokenizer.encode([f"film number {i}" for i in range(20, 40)])}
    assert set(stream(corpus.mlm)) | set(stream(corpus.held_out)) == expected


@pytest.mark.slow
def test_no_dev_or_test_sentence_of_the_real_files_is_in_the_stream(real_data):
    tokenizer = load_tokenizer("minilm")
    corpus = read_corpus(real_data, tokenizer, limit=dict.fromkeys(("sst", "para", "sts", "nli"), 1500))
    forbidden = keys_of(real_data, ("dev", "test"), tokenizer)
    left_out = next(note for note in corpus.notes if "sentences that a dev or test file has" in note)
    assert int(left_out.split()[2].replace(",", "")) > 50  # there are such: Quora's splits share questions
    assert sum(key in forbidden for key in stream(corpus.mlm)) == 0
    assert sum(key in forbidden for key in stream(corpus.nli)) == 0
