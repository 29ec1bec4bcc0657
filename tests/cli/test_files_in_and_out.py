"""The scripts on files that other people make: every row is learned from, or gets its prediction in the right form."""

import csv
import io
import re

import pytest

import classifier
import multitask_classifier

QUICK = ["--epochs", "1", "--batch_size", "16", "--limit", "20"]


def sample_rows(sample, name: str) -> list[dict[str, str]]:
    with open(sample / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def as_csv(header: list[str], rows: list[list[str]], delimiter: str = "\t") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def test_training_rows_with_ids_twice_or_without_ids_are_all_learned_from(tiny, sample, tmp_path, capsys):
    rows = sample_rows(sample, "ids-sst-train.csv")
    augmented = []
    for row in rows:
        texts = [(row["id"], row["sentence"]), (row["id"], row["sentence"] + " !"), ("", "So : " + row["sentence"])]
        augmented += [[id, text, row["sentiment"]] for id, text in texts]
    path = tmp_path / "train.csv"
    path.write_text(as_csv(["id", "sentence", "sentiment"], augmented), encoding="utf-8")
    multitask_classifier.main(
        ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path), "--tasks", "sst", "--epochs", "1",
         "--sst_train", str(path), "--skip_predictions"]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert "900 train, 80 dev\n" in out and "left out" not in err


@pytest.mark.parametrize("label", ["", "-1", "4"])
def test_sixty_rows_of_a_test_file_get_sixty_predictions(tiny, sample, tmp_path, label):
    rows = [[row["id"], row["sentence"], label] for row in sample_rows(sample, "ids-sst-test-student.csv")]
    rows[5][1], rows[7][0] = "", rows[6][0]
    path = tmp_path / "test.csv"
    path.write_text(as_csv(["id", "sentence", "sentiment"], rows), encoding="utf-8")
    multitask_classifier.main(
        ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path), "--tasks", "sst", *QUICK,
         "--sst_test", str(path)]
    )  # fmt: skip
    lines = (tmp_path / "predictions/sst-test-output.csv").read_text().splitlines()
    assert [line.split(" , ")[0] for line in lines[1:]] == [row[0] for row in rows] and len(rows) == 60


@pytest.mark.parametrize("pairs", [[], ["--pairs", "joint"], ["--pooling", "mean"]], ids=" ".join)
def test_pairs_with_an_empty_sentence_get_their_prediction(tiny, sample, tmp_path, pairs):
    rows = [[row["id"], row["sentence1"], row["sentence2"]] for row in sample_rows(sample, "quora-test-student.csv")]
    rows[0][1], rows[1][2] = "", ""
    rows[2][1:] = ["", ""]
    path = tmp_path / "test.csv"
    path.write_text(as_csv(["id", "sentence1", "sentence2"], rows, ","), encoding="utf-8")
    multitask_classifier.main(
        ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path), "--tasks", "para", *QUICK,
         "--para_test", str(path), *pairs]
    )  # fmt: skip
    lines = (tmp_path / "predictions/para-test-output.csv").read_text().splitlines()
    assert len(lines) == 61 and all(re.fullmatch(r"\w+ , [01]\.0 ", line) for line in lines[1:])


def test_cmus_files_since_2023_are_answered_in_kind(tiny, sample, tmp_path):
    for split, file in (("train", "train"), ("dev", "dev"), ("test", "test-student")):
        rows = sample_rows(sample, f"ids-sst-{file}.csv")
        rows = [[str(i), row["sentence"].strip(), row.get("sentiment", "0")] for i, row in enumerate(rows)]
        (tmp_path / f"{split}.csv").write_text(as_csv(["ID", "data", "label"], rows, ","), encoding="utf-8")
    paths = [x for split in ("train", "dev", "test") for x in (f"--{split}", str(tmp_path / f"{split}.csv"))]
    outs = ["--dev_out", str(tmp_path / "d.csv"), "--test_out", str(tmp_path / "t.csv")]
    classifier.main(["--pretrained", str(tiny), "--out", str(tmp_path), "--epochs", "1", *paths, *outs])
    for name, count in (("d.csv", 80), ("t.csv", 60)):
        header, *lines = (tmp_path / name).read_text().splitlines()
        assert header == "ID,label"
        assert [re.fullmatch(r"(\d+),[0-4]", line)[1] for line in lines] == [str(i) for i in range(count)]
