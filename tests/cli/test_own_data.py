"""A data set of one's own: columns named by flags, classes found by reading, words in every answer."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

import classifier
from minbert.data import read_examples
from minbert.errors import UserError
from minbert.evaluation import write_predictions
from minbert.own import own_task

WORDS = {"food": ("soup", "bread", "salt"), "space": ("moon", "rocket", "star"), "sport": ("goal", "team", "coach")}
FAST = ("--epochs", "1", "--batch_size", "8", "--option", "finetune", "--lr", "1e-3")


def news(count: int, seed: int) -> list[dict[str, str]]:
    """Rows with an id, a headline, a second text, a topic in words, and a number."""
    chance = random.Random(seed)
    rows = []
    for i in range(count):
        topic = chance.choice(list(WORDS))
        line = " ".join(chance.choices(WORDS[topic], k=4))
        other = " ".join(chance.choices(WORDS[chance.choice(list(WORDS))], k=4))
        rows.append({"id": f"n{i}", "headline": line, "other": other, "topic": topic, "ease": str(10 + 7.5 * (i % 9))})
    return rows


def write(path, rows, columns):
    """Rows as csv, tsv or json lines, by the ending of the path."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({c: row[c] for c in columns}) + "\n" for row in rows))
        return
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def files(tmp_path):
    """A function that writes train, dev and test files and returns the flags that name them."""

    def make(ending: str = "csv", columns=("id", "headline", "other", "topic", "ease"), changed_dev=None) -> list[str]:
        paths = {split: tmp_path / f"{split}.{ending}" for split in ("train", "dev", "test")}
        write(paths["train"], news(48, 1), columns)
        write(paths["dev"], changed_dev or news(12, 2), columns)
        write(paths["test"], news(5, 3), [c for c in columns if c not in ("topic", "ease")])
        return [word for split, path in paths.items() for word in (f"--{split}", str(path))]

    return make


@pytest.fixture
def go(tiny, tmp_path, capsys):
    """A function that runs classifier.py and returns its folder and what it printed."""

    def run(*flags: str):
        out = tmp_path / "out"
        classifier.main(["--pretrained", str(tiny), "--out", str(out), *FAST, *flags])
        return out, capsys.readouterr().out

    return run


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_three_classes_are_found_by_reading_and_predicted_in_words(files, go, ending):
    out, text = go(*files(ending), "--text", "headline", "--label", "topic")
    header, *rows = (out / "predictions" / "train-test-output.csv").read_text().splitlines()
    assert header == "id,topic"
    assert [row.split(",")[0] for row in rows] == ["n0", "n1", "n2", "n3", "n4"]
    assert {row.split(",")[1] for row in rows} <= set(WORDS)
    assert "accuracy" in text and "macro F1" in text


def test_predict_answers_with_the_words_of_the_labels(files, go, capsys):
    out, _ = go(*files(), "--text", "headline", "--label", "topic")
    classifier.main(["--out", str(out), "--predict", "moon rocket star"])
    answer = capsys.readouterr().out
    assert any(word in answer for word in WORDS) and "neutral" not in answer


def test_labels_that_are_numbers_keep_their_values(files, go, tmp_path):
    flags = files()
    for split, seed, count in (("train", 1, 48), ("dev", 2, 12)):
        rows = [
            row | {"topic": {"food": "10", "space": "20", "sport": "30"}[row["topic"]]} for row in news(count, seed)
        ]
        write(tmp_path / f"{split}.csv", rows, ("id", "headline", "topic"))
    out, _ = go(*flags, "--text", "headline", "--label", "topic")
    rows = (out / "predictions" / "train-dev-output.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} <= {"10", "20", "30"}


def test_a_row_that_is_left_out_makes_no_class(tmp_path):
    """The comma stands in no quotes, so that the row has a field too many, and its label would be " hmm"."""
    path = tmp_path / "train.csv"
    path.write_text("text,label\nfine,pos\nbad,neg\nwell, hmm,pos\n")
    task = own_task(path, text="text", label="label")
    assert task.words == ("neg", "pos") and [e.texts for e in read_examples(path, task)] == [("fine",), ("bad",)]
    path.write_text("text,label\na,1\n,9999\nc,2\n,n/a\n")  # rows with an empty text are left out as well
    assert own_task(path, text="text", label="label", regression=True).label_range == (1, 2)


def test_ids_and_numbers_that_are_labels_are_written_as_they_stand(tmp_path):
    path, rows = tmp_path / "train.csv", "ABC,a,-1\nabc,b,0\n=1+1,c,1\n"
    path.write_text(f"id,text,label\n{rows}")
    task = own_task(path, text="text", label="label")
    write_predictions(tmp_path / "out.csv", task, read_examples(path, task, split="dev"), np.arange(3))
    assert (tmp_path / "out.csv").read_text() == "id,label\nABC,-1\nabc,0\n'=1+1,1\n"


def test_a_name_with_braces_is_a_name_like_others(files, go, tmp_path):
    flags = files()
    path = Path(flags[1]).rename(tmp_path / "news{1}{v2}.csv")
    out, _ = go("--train", str(path), *flags[2:], "--text", "headline", "--label", "topic")
    assert (out / "predictions" / "news{1}{v2}-dev-output.csv").exists()


@pytest.mark.parametrize("low, head", [(0, "cosine"), (-3, "mapped_cosine")])
def test_numbers_of_pairs_get_a_head_that_can_learn_them(tmp_path, low, head):
    """Without weights of its own a head needs a BERT that trains; 5·cos reaches no label below 0."""
    path = tmp_path / "train.csv"
    path.write_text(f"a,b,y\nx,y,{low}\nz,w,5\n")
    flags = ["--train", str(path), "--dev", str(path), "--text", "a", "--text2", "b", "--label", "y", "--regression"]
    task = own_task(path, "a", "b", "y", regression=True)
    for option, expected in (("pretrain", "difference"), ("finetune", head)):
        one = classifier.for_task(classifier.get_args([*flags, "--option", option]), task)
        assert one.heads == {"own": expected}
    with pytest.raises(UserError, match="--head cosine has no weights"):
        classifier.for_task(classifier.get_args([*flags, "--head", "cosine"]), task)


@pytest.mark.parametrize("pairs", ["separate", "joint"])
def test_two_texts_make_pairs(files, go, pairs):
    out, _ = go(*files(), "--text", "headline", "--text2", "other", "--label", "topic", "--pairs", pairs)
    assert (out / "best").exists()


def test_a_regression_is_scored_with_both_correlations(files, go):
    rows = news(12, 2)
    out, text = go(*files(), "--text", "headline", "--label", "ease", "--regression")
    written = (out / "predictions" / "train-dev-output.csv").read_text().splitlines()[1:]
    predictions, labels = [np.float32(row.split(",")[1]) for row in written], [float(row["ease"]) for row in rows]
    assert f"Pearson r {pearsonr(predictions, labels).statistic:.3f}" in text
    assert f"Spearman ρ {spearmanr(predictions, labels).statistic:.3f}" in text
    assert np.isfinite(predictions).all()


def test_a_dev_number_beyond_the_training_files_range_is_scored(files, go):
    rows = news(12, 2)
    rows[0]["ease"] = "1000"
    out, _ = go(*files(changed_dev=rows), "--text", "headline", "--label", "ease", "--regression")
    assert len((out / "predictions" / "train-dev-output.csv").read_text().splitlines()) == 13


def test_three_classes_in_the_courses_columns_are_not_taken_for_sst(files, go, tmp_path, capsys):
    """A file with renamed columns whose labels are 0, 1 and 2 has three classes, and no sentiments."""
    flags = files()
    for split, seed, count in (("train", 1, 48), ("dev", 2, 12), ("test", 3, 4)):
        rows = [
            {"sentence": r["headline"], "sentiment": str(sorted(WORDS).index(r["topic"]))} for r in news(count, seed)
        ]
        write(tmp_path / f"{split}.csv", rows, ("sentence", "sentiment"))
    out, _ = go(*flags)
    classifier.main(["--out", str(out), "--predict", "moon rocket star"])
    assert "neutral" not in capsys.readouterr().out


def test_the_course_s_five_labels_are_sst(tiny, sample, tmp_path, capsys):
    train, dev = sample / "ids-sst-train.csv", sample / "ids-sst-dev.csv"
    out = tmp_path / "out"
    classifier.main(["--pretrained", str(tiny), "--train", str(train), "--dev", str(dev), "--out", str(out), *FAST])
    classifier.main(["--out", str(out), "--predict", "a film"])
    assert any(word in capsys.readouterr().out for word in ("positive", "negative", "neutral"))


REFUSED = {  # flags → what the line must name
    "--text nothing --label topic": ("'nothing'", "headline"),
    "--text headline --label nothing": ("'nothing'",),
    "--text headline --label headline": ("different labels", "--regression"),
    "--text headline --label topic --regression": ("train.csv, line 2", "not a number"),
    "--text headline": ("--text headline needs --label",),
    "--text headline --text2 other": ("--text headline needs --label",),
    "--label topic --regression --text2 other": ("--text2 other needs --text",),
    "--text headline --label topic --pairs joint": ("--pairs joint needs --text2",),
    "--text headline --label topic --head concat": ("--head concat needs --text2",),
    "--text headline --text2 other --label topic --head cosine": ("--head cosine",),
    "": ("no column 'sentence'", "--text and --label"),
}


@pytest.mark.parametrize("flags", REFUSED)
def test_what_does_not_fit_is_one_line(files, tiny, refusal, flags):
    rows = [row | {"headline": f"{row['headline']} {i}"} for i, row in enumerate(news(60, 1))]
    words = files()
    write(Path(words[1]), rows, ("id", "headline", "other", "topic", "ease"))
    line = refusal(classifier.main, ["--pretrained", str(tiny), *words, *flags.split()])
    assert all(name in line for name in REFUSED[flags]), line


def test_a_dev_label_that_training_never_showed_is_named(files, tiny, refusal):
    rows = news(12, 2)
    rows[3]["topic"] = "cars"
    flags = [*files(changed_dev=rows), "--text", "headline", "--label", "topic"]
    line = refusal(classifier.main, ["--pretrained", str(tiny), *flags])
    assert "line 5" in line and "'cars'" in line and "food, space, sport" in line
