"""What the pre-training refuses, in one line."""

from pathlib import Path

import pytest
import torch

import multitask_classifier
from minbert import settings
from minbert.data import read_examples
from minbert.pretraining import script as pretraining
from minbert.pretraining.settings import get_args
from minbert.tasks import TASKS
from tests.pretraining.runs import run


@pytest.fixture
def refuse(tmp_path, tiny, sample, refusal):
    """The one line with which a run with these flags is refused; {out} and {data} stand for folders."""

    def refuse(*flags: str, data: Path = sample) -> str:
        argv = ["--pretrained", str(tiny), "--data", str(data), "--out", str(tmp_path / "out"), *flags]
        return refusal(pretraining.main, argv)

    return refuse


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tasks", "mlm,sst"], "--tasks sst: the lessons are mlm, nli"),
        (["--tasks", "nli", "--corpus", "sst"], "--corpus needs mlm among --tasks"),
        (["--corpus", "imdb"], "--corpus imdb: the files are those of sst, para, sts, cfimdb, nli"),
        (["--weights", "1"], "--weights 1: give a number above 0 for each of --tasks mlm,nli"),
        (["--weights", "1,0"], "--weights 1,0: give"),
        (["--mask_shares", "0.8,0.3"], "--mask_shares 0.8,0.3"),
        (["--mask_shares", "0.8"], "--mask_shares 0.8"),
        (["--mask_rate", "0"], "--mask_rate 0: nothing would be learned"),
        (["--mask_rate", "1"], "not a rate from 0 to less than 1"),
        (["--limit", "5,5"], "--limit 5,5: give one number above 0, or one for each of sst,para,sts,nli"),
        (["--resume", "--overwrite"], "--resume cannot be combined with --overwrite"),
        (["--resume"], "run.json: not there, so there is no run to --resume"),
        (["--corpus", "cfimdb"], "ids-cfimdb-train.csv: no such file"),
        (["--lr", "1e38", "--clip", "0", "--epochs", "1", "--steps_per_epoch", "1"], "lower --lr"),
        (["--use_gpu"], "--use_gpu: this PyTorch sees no CUDA device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_in_one_line(refuse, flags, said):
    if flags == ["--use_gpu"] and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU here")
    assert said in refuse(*flags)


def test_weights_that_are_not_finite_are_not_written(refuse, tmp_path):
    line = refuse("--tasks", "mlm", "--lr", "1e38", "--clip", "0", "--epochs", "1", "--steps_per_epoch", "2")
    assert "is not a finite number any more" in line
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_bad_files_are_named_with_their_line(refuse, sample, tmp_path):
    for file in sample.glob("*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "nli-train.csv"
    good = path.read_text("utf-8")
    path.write_text(good.replace("\tneutral\n", "\tperhaps\n", 1), "utf-8")
    line = next(n for n, row in enumerate(good.splitlines(), 1) if row.endswith("neutral"))
    assert f"nli-train.csv, line {line}: label is 'perhaps'" in refuse(data=tmp_path)
    path.write_text("\n".join(row.rpartition("\t")[0] for row in good.splitlines()), "utf-8")
    assert "nli-train.csv: not every row has a label" in refuse(data=tmp_path)
    path.write_text((tmp_path / "nli-dev.csv").read_text("utf-8"), "utf-8")
    assert "nli-train.csv: each pair has a sentence of a dev or test file" in refuse("--tasks", "nli", data=tmp_path)
    path.unlink()
    line = refuse(data=tmp_path)
    assert "nli-train.csv: no such file (`python data/download.py nli` fetches it, --tasks mlm does without)" in line
    line = refuse("--tasks", "mlm", "--corpus", "sst,nli", data=tmp_path)
    assert "nli-train.csv: no such file (`python data/download.py nli` fetches it)" in line


def test_another_run_is_neither_overwritten_nor_gone_on_with_by_mistake(tmp_path, tiny, sample, refuse):
    small = ("--epochs", "1", "--steps_per_epoch", "1", "--limit", "50")
    metrics = run(tmp_path / "out", tiny, sample, *small)
    assert "belongs to an earlier run; continue it with --resume" in refuse(*small)
    base = ("--lr", "1e-2", "--batch_size", "16", "--resume")
    assert "--seed 3: the run in" in refuse(*small, *base, "--seed", "3")
    assert "--limit 9: the run in" in refuse(*small[:4], *base, "--limit", "9")
    other = tmp_path / "data"
    other.mkdir()
    for file in sample.glob("*.csv"):
        (other / file.name).write_bytes(file.read_bytes())
    with open(other / "sts-train.csv", "a") as file:
        file.write("9\tx\tA cat.\tA dog.\t1.0\n")
    assert "sts-train.csv: has changed since the run in" in refuse(*small, *base, data=other)
    (other / "sts-train.csv").write_bytes((sample / "sts-train.csv").read_bytes())
    run(tmp_path / "out", tiny, other, *small, "--resume")  # the same content elsewhere is the same
    sentence = read_examples(sample / "ids-sst-train.csv", TASKS["sst"], 50)[0].texts[0]
    with open(other / "ids-sst-dev.csv", "a", encoding="utf-8") as file:  # it takes a sentence out of the stream
        file.write(f"9\tx\t{sentence}\t1\n")
    assert "ids-sst-dev.csv: has changed" in refuse(*small, *base, data=other)
    assert "would remove" in refuse("--pretrained", str(tmp_path / "out"), "--overwrite")
    assert run(tmp_path / "out", tiny, sample, *small, "--overwrite")[-1]["loss"] == metrics[-1]["loss"]


def test_a_damaged_state_is_named(tmp_path, tiny, sample, refuse):
    small = ("--epochs", "1", "--steps_per_epoch", "1", "--limit", "50")
    run(tmp_path / "out", tiny, sample, *small)
    (path,) = (tmp_path / "out" / "checkpoints").glob("*/tensors.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    assert "tensors.safetensors: damaged, its sha256 is" in refuse(
        *small, "--lr", "1e-2", "--batch_size", "16", "--resume"
    )


def test_another_programs_weights_in_the_folder_are_left_alone(tmp_path, refuse):
    (tmp_path / "out" / "best").mkdir(parents=True)
    assert "best: belongs to an earlier run;" in refuse()


def test_without_the_projects_data_the_files_are_those_in_data_here(tmp_path, sample, monkeypatch):
    """As multitask_classifier.py takes them where the package is installed without data/."""
    monkeypatch.setattr(settings, "DATA", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(sample)
    args = get_args(["--out", "out"])
    assert get_args(["--out", "out", "--tasks", "nli,mlm"]).weights == args.weights == {"mlm": 0.7, "nli": 0.3}
    assert args.data == Path("data") == multitask_classifier.get_args([]).data
    assert args.files["nli"]["train"] == Path("data", "nli-train.csv")
