"""A run's folder, or its data, of which a part was lost, as after a copy without the large files: it is named.

A run that begins anew without a word, or that predicts with another model than its best, would be worse than an error.
"""

import shutil
from pathlib import Path

import pytest

import multitask_classifier
from minbert.errors import UserError
from minbert.folder import RunFolder
from minbert.pretraining import script as pretraining
from minbert.run import Run
from minbert.state import MANIFEST
from tests.cli.runs import FULL
from tests.run.crashes import differences, left_behind
from tests.run.test_folder import files_in
from tests.run.test_state import Part

main = multitask_classifier.main


@pytest.fixture(scope="module")
def whole(tiny, few, tmp_path_factory) -> Path:
    """A run that ended after two epochs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    argv = f"--pretrained {tiny} --data {few} --out {out} --limit 8 --steps_per_epoch 2 --epochs 2 --lr 1e-2"
    main([*argv.split(), *FULL])
    return out


@pytest.fixture
def out(whole, tmp_path) -> Path:
    """A copy of that run, of which a test may delete parts."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def without_checkpoints(out: Path):
    shutil.rmtree(out / "checkpoints")


def with_empty_checkpoints(out: Path):
    without_checkpoints(out)
    (out / "checkpoints").mkdir()


def without_the_log_too(out: Path):
    without_checkpoints(out)
    (out / "metrics.jsonl").unlink()


@pytest.mark.parametrize("lose", [without_checkpoints, with_empty_checkpoints, without_the_log_too])
def test_a_run_whose_checkpoints_were_lost_does_not_begin_from_the_start(out, refusal, lose):
    lose(out)
    before = files_in(out)
    line = refusal(main, ["--resume", "--out", str(out)])
    assert f"{out / 'checkpoints'}: no checkpoint there, though epochs of this run are done" in line
    assert "copy the run's checkpoints there, or begin anew with --overwrite" in line and files_in(out) == before


def test_checkpoints_that_were_copied_in_part_are_named(out, whole, refusal, capsys):
    last = max((out / "checkpoints").iterdir())
    (last / MANIFEST).unlink()
    main(["--resume", "--out", str(out)])
    said = capsys.readouterr()
    assert f"{last / MANIFEST}: not there" in said.err and "the checkpoint before it is used" in said.err
    assert "resumed after epoch 1\n" in said.out and not differences(left_behind(out), left_behind(whole))
    for path in (out / "checkpoints").iterdir():
        (path / MANIFEST).unlink()
    before = files_in(out)
    line = refusal(main, ["--resume", "--out", str(out)])
    assert "no whole checkpoint to --resume from" in line and files_in(out) == before


def test_a_pre_training_whose_checkpoints_were_lost_does_not_begin_from_the_start(tiny, few, tmp_path, refusal):
    out = tmp_path / "out"
    argv = f"--pretrained {tiny} --data {few} --out {out} --tasks mlm --corpus sst --epochs 1 --steps_per_epoch 1"
    pretraining.main(argv.split())
    without_checkpoints(out)
    before = files_in(out)
    line = refusal(pretraining.main, ["--resume", "--out", str(out)])
    assert "no checkpoint there, though epochs of this run are done" in line and files_in(out) == before
    line = refusal(main, ["--predict", "A film.", "--out", str(out)])  # it never had a best model
    assert f"no trained model there; it is a further pre-training; `--pretrained {out}` trains from" in line


def test_a_run_that_was_killed_while_it_kept_its_first_epoch_begins_from_the_start(tmp_path, monkeypatch, capsys):
    """Its log has no line of an epoch before the checkpoint with that line is there."""

    def killed(_):
        raise KeyboardInterrupt

    def run() -> Run:
        run = Run(RunFolder(tmp_path), "10m")
        run.register(part=Part())
        return run

    first = run()
    first.log({"epoch": 0})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / MANIFEST).write_text("{}")  # the best model is written before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", killed)
        first.end_epoch({"epoch": 1})
    run().load()
    assert "stopped before its first checkpoint" in capsys.readouterr().out
    again = run()
    again.end_epoch({"epoch": 1})
    without_checkpoints(tmp_path)
    with pytest.raises(UserError, match="though epochs of this run are done"):
        run().load()


# ------------------------------------------------------------------------------------------ the best model


@pytest.mark.parametrize("flags", [["--predict", "A film."], ["--predict_only"], ["--resume"]])
def test_a_best_model_that_was_lost_is_not_replaced_by_another(out, refusal, flags):
    shutil.rmtree(out / "best")
    before = files_in(out)
    line = refusal(main, ["--out", str(out), *flags])
    assert f"{out / 'best'}: not there, though epochs of this run are done; copy it there" in line
    assert files_in(out) == before


def test_a_best_model_that_was_lost_can_be_copied_back(out, whole):
    shutil.rmtree(out / "best")
    shutil.copytree(whole / "best", out / "best")
    main(["--out", str(out), "--resume"])
    assert not differences(left_behind(out), left_behind(whole))


# ------------------------------------------------------------------------------------------ the data


@pytest.fixture
def data(few, tmp_path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "data"))


def test_a_test_file_that_was_lost_does_not_stop_a_run_from_going_on(out, data, capsys, refusal):
    """No training reads it. What is trained on, or scored, has to be there."""
    (data / "sts-test-student.csv").unlink()
    main(["--out", str(out), "--resume", "--data", str(data)])
    said = capsys.readouterr()
    assert "resumed after epoch 2" in said.out and "there will be no test predictions for sts" in said.err
    (data / "sts-dev.csv").unlink()
    assert "sts-dev.csv: no such file" in refusal(main, ["--out", str(out), "--resume", "--data", str(data)])


def test_a_test_file_that_comes_later_is_predicted(tiny, data, tmp_path):
    argv = f"--pretrained {tiny} --data {data} --out {tmp_path / 'out'} --limit 8 --steps_per_epoch 1 --epochs 1"
    (data / "sts-test-student.csv").rename(tmp_path / "later")
    main([*argv.split(), *FULL])
    (tmp_path / "later").rename(data / "sts-test-student.csv")
    main(["--out", str(tmp_path / "out"), "--resume"])
    assert (tmp_path / "out" / "predictions" / "sts-test-output.csv").exists()


def test_a_test_file_decides_what_the_pre_training_leaves_out(tiny, data, tmp_path, refusal):
    out, path = tmp_path / "out", data / "ids-sst-test-student.csv"
    argv = f"--pretrained {tiny} --data {data} --out {out} --tasks mlm --corpus sst --epochs 1 --steps_per_epoch 1"
    pretraining.main(argv.split())
    path.rename(tmp_path / "away")
    line = refusal(pretraining.main, ["--resume", "--out", str(out)])
    assert f"{path}: is not there, but was when the run in {out} began; --resume needs the same data" in line
    (tmp_path / "away").rename(path)
    shutil.copy(path, data / "ids-cfimdb-test-student.csv")
    line = refusal(pretraining.main, ["--resume", "--out", str(out)])
    assert f"ids-cfimdb-test-student.csv: was not there when the run in {out} began" in line
