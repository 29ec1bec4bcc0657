"""--predict_only: the files, names and settings of a run come from its run.json, wherever its files are by now."""

import json
import shutil
import signal
import zipfile
from pathlib import Path

import pytest

import classifier
import multitask_classifier
from minbert import settings, submit
from tests.cli.runs import FULL
from tests.cli.test_flags_of_place import PREDICTIONS
from tests.run.crashes import counting, in_a_process

main = multitask_classifier.main


def predictions(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "predictions").iterdir()}


@pytest.mark.parametrize("more", [(), ("--pairs", "separate,joint,separate")], ids=" ".join)
def test_predict_only_writes_the_files_of_a_run_that_ended_early(run, tmp_path, more):
    """The flags, files and names come from run.json, so that --out is enough."""
    whole = run(*FULL, *more)
    argv = run.argv(*FULL, *more, "--skip_predictions", "--sst_dev_out", str(tmp_path / "mine.csv"))
    main(["--out", str(tmp_path / "run"), *argv])
    assert not list(tmp_path.rglob("*output.csv"))
    main(["--out", str(tmp_path / "run"), "--predict_only"])
    for name in PREDICTIONS - {"predictions/sst-dev-output.csv"}:
        assert (tmp_path / "run" / name).read_bytes() == (whole.out / name).read_bytes()
    assert (tmp_path / "mine.csv").read_bytes() == (whole.out / "predictions/sst-dev-output.csv").read_bytes()


def test_predict_only_takes_what_the_run_read_and_nothing_else(run, places, tmp_path, refusal):
    out, other = run(*FULL).out, places["other"]
    taken = "--predict_only takes this from the run"
    same_content = "is not the file that the run in"
    for flags, words in (
        (["--limit", "3"], [f"--limit 3: {taken}"]),
        (["--sst_test", "new.csv"], ["new.csv: not there", "--sst_test this file"]),
        (["--data", "elsewhere"], ["elsewhere/ids-sst-dev.csv: not there", "--data names the folder"]),
        (["--data", str(other)], [f"{other}/ids-sst-dev.csv: {same_content}", "from --data or --sst_dev"]),
        (["--sst_train", str(other / "ids-sst-train.csv")], [f"{other}/ids-sst-train.csv: {same_content}"]),
        (["--sst_test", str(other / "ids-sst-test-student.csv")], [same_content, "or --sst_test"]),
        (["--sts_dev_out", str(places["data"] / "sts-dev.csv")], ["is a file that the run reads or keeps"]),
    ):
        line = refusal(main, ["--out", str(out), "--predict_only", *flags])
        assert all(word in line for word in words), line
    main(["--out", str(out), "--predict_only", *run.argv(*FULL)])  # all as it was
    main(["--out", str(out), "--predict_only", "--sts_dev_out", str(tmp_path / "mine.csv")])
    assert (tmp_path / "mine.csv").read_bytes() == (out / "predictions" / "sts-dev-output.csv").read_bytes()


@pytest.fixture
def moved(run, places, tmp_path) -> Path:
    """A folder with a run, and with the data that it read, both of which were elsewhere when it ran."""
    first = tmp_path / "first"
    shutil.copytree(places["data"], first / "data")
    shutil.move(first / "data" / "sts-dev.csv", first / "mine.csv")
    own = ["--sts_dev", str(first / "mine.csv"), "--sst_dev_out", str(first / "file" / "sst.csv")]
    main(["--out", str(first / "run"), *run.argv(*FULL, "--data", str(first / "data"), *own)])
    (first / "file" / "sst.csv").rename(first / "run" / "predictions" / "sst-dev-output.csv")
    shutil.rmtree(first / "file")
    shutil.move(first, tmp_path / "second")
    first.mkdir()
    (first / "file").write_text("so that no folder can be made there")
    return tmp_path / "second"


def test_predict_only_works_where_the_run_and_its_data_were_moved(moved, tmp_path, monkeypatch, refusal):
    """Each line says what to do, and that works."""
    before = predictions(moved / "run")
    shutil.rmtree(moved / "run" / "predictions")
    argv = ["--out", str(moved / "run"), "--predict_only"]
    line = refusal(main, argv)
    assert "ids-sst-dev.csv: not there, nor is " in line and "--data names the folder" in line
    argv += ["--data", str(moved / "data")]
    line = refusal(main, argv)
    assert f"{moved / 'data' / 'mine.csv'}: not there, nor is " in line and "--sts_dev this file" in line
    argv += ["--sts_dev", str(moved / "mine.csv")]
    assert f"--sst_dev_out {tmp_path / 'first' / 'file'}: nothing can be written" in refusal(main, argv)
    main([*argv, "--sst_dev_out", str(tmp_path / "sst.csv")])
    after = predictions(moved / "run") | {"sst-dev-output.csv": (tmp_path / "sst.csv").read_bytes()}
    assert after == before
    shutil.rmtree(moved / "run" / "predictions")
    monkeypatch.setattr(settings, "DATA", moved / "data")  # as where the whole project was moved
    main(["--out", str(moved / "run"), "--predict_only", "--sts_dev", str(moved / "mine.csv"),
          "--sst_dev_out", str(tmp_path / "sst.csv")])  # fmt: skip
    assert len(predictions(moved / "run")) == 5


def test_a_run_goes_on_where_its_own_files_were_moved(moved, tmp_path, refusal, capsys):
    argv = ["--out", str(moved / "run"), "--resume", "--data", str(moved / "data")]
    argv += ["--sst_dev_out", str(tmp_path / "sst.csv")]
    assert f"{tmp_path / 'first' / 'mine.csv'}: no such file" in refusal(main, argv)
    (moved / "other.csv").write_text((moved / "mine.csv").read_text().replace(" the ", " a "))
    line = refusal(main, [*argv, "--sts_dev", str(moved / "other.csv")])
    assert f"{moved / 'other.csv'}: has changed since the run in" in line
    before = predictions(moved / "run")
    main([*argv, "--sts_dev", str(moved / "mine.csv")])
    assert "resumed after epoch 1" in capsys.readouterr().out
    assert (tmp_path / "sst.csv").read_bytes() == before["sst-dev-output.csv"]


def test_classifiers_own_files_may_be_elsewhere_too(tiny, tmp_path, refusal):
    rows = "".join(f"{label} ||| a film {i}\n" for i, label in enumerate([0, 1, 2, 3, 4] * 3))
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text(rows)
    files = ["--train", str(tmp_path / "train.txt"), "--dev", str(tmp_path / "dev.txt")]
    out = tmp_path / "out"
    classifier.main(["--pretrained", str(tiny), "--epochs", "1", "--out", str(out), *files, *FULL])
    before = predictions(out)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").rename(tmp_path / f"my-{name}.txt")
    now = ["--train", str(tmp_path / "my-train.txt"), "--dev", str(tmp_path / "my-dev.txt")]
    assert "dev.txt" in refusal(classifier.main, ["--out", str(out), "--predict_only"])
    for flag in ("--resume", "--predict_only"):
        classifier.main(["--out", str(out), flag, *now, "--dev_out", str(tmp_path / flag)])
        assert (tmp_path / flag).read_bytes() == before["sst-dev-output.txt"]


def test_predict_only_has_the_precision_of_the_run(run, tmp_path):
    argv = run.argv(*FULL, "--tasks", "sst", "--precision", "bf16")
    main(["--out", str(tmp_path), *argv])
    outputs = tmp_path / "outputs" / "sst-dev.jsonl"
    before = outputs.read_bytes()
    for flags, same in (([], True), (["--precision", "fp16"], False)):
        main(["--out", str(tmp_path), "--predict_only", *flags])
        assert (outputs.read_bytes() == before) == same


def test_what_is_submitted_after_predict_only_is_of_the_newest_run(run, tmp_path, monkeypatch):
    """The first run ended, the second one was stopped, as when Colab takes the machine away."""
    monkeypatch.chdir(tmp_path)
    few = ("--tasks", "sts", "--epochs", "2", *FULL)
    main(run.argv(*few))
    seen = [0]

    def act(_, name: str):
        seen[0] += name == "step"
        if name == "step" and seen[0] == 3:
            signal.raise_signal(signal.SIGTERM)

    assert in_a_process(main, run.argv(*few, "--seed", "5"), counting(act))[0] == 143
    first, second = (tmp_path / "runs" / name for name in ("full-model", "full-model-2"))
    assert predictions(tmp_path) == predictions(first) and not (second / "predictions").exists()
    main(["--predict_only"])
    assert predictions(tmp_path) == predictions(second) != predictions(first)
    submit.main(["--out", "mine.zip"])
    with zipfile.ZipFile("mine.zip") as archive:
        assert archive.read("predictions/sts-dev-output.csv") == predictions(second)["sts-dev-output.csv"]


def test_predict_only_needs_a_model_and_its_description(run, tmp_path, refusal):
    assert "best" in refusal(main, ["--out", str(tmp_path), "--predict_only"])
    out = run.fresh(*FULL).out
    description = json.loads((out / "run.json").read_text())
    description["plan"]["files"] = {}  # as where a program calls `train` with data of its own
    for content, reason in ((description, "names no files of sst"), ({}, "does not say which files")):
        (out / "run.json").write_text(json.dumps(content))
        line = refusal(main, ["--out", str(out), "--predict_only"])
        assert "run.json" in line and reason in line


def test_the_other_script_predicts_with_a_run_whose_data_were_moved(run, places, tmp_path, refusal):
    """The flags of a run's files are those of the script that made it; --data is a flag of both."""
    whole = run(*FULL).out
    out, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(whole, out)
    shutil.copytree(places["data"], data)
    description = json.loads((out / "run.json").read_text())
    files = description["plan"]["files"]
    for splits in files.values():  # as a run on Windows writes them
        splits.update({split: "C:\\me\\data\\" + Path(path).name for split, path in splits.items()})
    (out / "run.json").write_text(json.dumps(description))
    assert "--sst_dev this file" in refusal(classifier.main, ["--out", str(out), "--predict_only"])
    for script in (main, classifier.main):
        shutil.rmtree(out / "predictions")
        script(["--out", str(out), "--predict_only", "--data", str(data)])
        assert predictions(out) == predictions(whole)
