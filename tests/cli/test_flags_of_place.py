"""Flags that say where files are and where they go, and what a run's folder holds."""

from pathlib import Path

import pytest

import multitask_classifier
from minbert.checkpoint import load_model, load_trained
from minbert.data import read_examples
from minbert.files import sha256
from minbert.flags import QUICKSTART
from minbert.pretrained import load_bert
from minbert.state import TENSORS
from minbert.tasks import TASKS
from tests.cli.folders import FILES, ROWS, WholeRun, equal
from tests.cli.runs import FULL

PREDICTIONS = {f"predictions/{task}-{split}-output.csv" for task in ROWS for split in ("dev", "test")}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_out_is_where_everything_goes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    multitask_classifier.main(["--out", str(tmp_path / "a" / "b"), *run.argv(*FULL)])
    files = {str(path.relative_to(tmp_path / "a/b")) for path in tmp_path.rglob("*") if path.is_file()}
    state = {"tensors.safetensors", "state.json", "manifest.json"}
    outputs = {f"outputs/{task}-dev.jsonl" for task in ROWS}
    best = {f"best/{name}" for name in state}
    (checkpoint,) = (tmp_path / "a" / "b" / "checkpoints").iterdir()
    kept = {f"checkpoints/{checkpoint.name}/{name}" for name in state}
    assert files == PREDICTIONS | outputs | best | kept | {"metrics.jsonl", "run.json"}


def test_without_out_each_run_has_a_folder_and_the_course_s_place_has_the_last_predictions(run, tmp_path, monkeypatch):
    """The course's two commands, the first of them twice: nothing is lost, and nothing is refused."""
    monkeypatch.chdir(tmp_path)
    for flags in (("--option", "pretrain"), ("--option", "finetune"), ("--option", "pretrain", "--seed", "1")):
        multitask_classifier.main(run.argv(*flags))
    runs = {path.name for path in (tmp_path / "runs").iterdir()}
    assert runs == {"last-linear-layer", "full-model", "last-linear-layer-2"}
    for name in PREDICTIONS:
        latest = (tmp_path / "runs" / "last-linear-layer-2" / name).read_bytes()
        assert (tmp_path / name).read_bytes() == latest
    multitask_classifier.main(["--predict", "A film."])  # of the newest run


def test_run_json_says_what_it_takes_to_repeat_the_run(run, places):
    description = run(*FULL, "--seed", "5").description
    assert description["command"].split()[0] and description["seed"] == 5
    assert description["changed"]["seed"] == 5 and "schedule" not in description["changed"]
    assert description["flags"]["schedule"] == "round_robin"
    weights = places["weights"] / "model.safetensors"
    assert description["weights"]["model.safetensors"] == sha256(weights)
    train = places["data"] / "ids-sst-train.csv"
    assert description["data"]["sst/train"] == sha256(train)
    assert {"python", "torch", "tokenizers"} <= description["versions"].keys()
    assert description["machine"]["threads"] >= 1 and description["started"].startswith("20")


@pytest.mark.parametrize("task", list(ROWS))
@pytest.mark.parametrize("split", ["dev", "test"])
def test_another_dev_or_test_file_is_predicted_and_nothing_else_changes(run, places, task, split):
    file = FILES[task].format({"dev": "dev", "test": "test-student"}[split])
    base, other = run(*FULL), run(*FULL, f"--{task}_{split}", f"{{other}}/{file}")
    for name in ROWS:
        for s in ("dev", "test"):
            same = base.ids(f"{name}-{s}-output.csv") == other.ids(f"{name}-{s}-output.csv")
            assert same == ((name, s) != (task, split))
    examples = read_examples(places["other"] / file, TASKS[task])
    assert other.ids(f"{task}-{split}-output.csv") == [example.id for example in examples]
    assert equal(base.weights, other.weights)


@pytest.mark.parametrize("task", list(ROWS))
@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_prediction_file_can_go_elsewhere(run, tmp_path, task, split):
    """To a folder that is not there yet, as the course's own `predictions/` is not."""
    base, path = run(*FULL), tmp_path / "new" / "mine.csv"
    moved = run.fresh(*FULL, f"--{task}_{split}_out", str(path))
    default = f"predictions/{task}-{split}-output.csv"
    assert path.read_bytes() == (base.out / default).read_bytes() and not (moved.out / default).exists()
    assert len(list(moved.out.glob("predictions/*"))) == 5


def test_a_run_is_not_written_over_without_overwrite(places, tmp_path, refusal):
    argv = ["--pretrained", str(places["weights"]), "--data", str(places["data"]), "--out", str(tmp_path)]
    argv += ["--epochs", "1", "--limit", "8", "--skip_predictions", *FULL]
    multitask_classifier.main(argv)
    first = (tmp_path / "best" / TENSORS).read_bytes()
    assert "--overwrite" in refusal(multitask_classifier.main, [*argv, "--seed", "1"])
    assert (tmp_path / "best" / TENSORS).read_bytes() == first
    multitask_classifier.main([*argv, "--seed", "1", "--overwrite"])
    assert (tmp_path / "best" / TENSORS).read_bytes() != first


def test_quickstart_changes_defaults_and_every_flag_beside_it_counts(places, tmp_path):
    plain, quick = multitask_classifier.get_args([]), multitask_classifier.get_args(["--quickstart"])
    for name in QUICKSTART:
        assert getattr(quick, name) != getattr(plain, name), f"{name} is what it would be anyhow"
    assert (quick.pretrained, quick.mode, quick.data.name) == ("minilm", "full-model", "sample")
    own = ["--quick", "--pretrained", str(places["weights"]), "--data", str(places["data"]), "--epochs", "2"]
    multitask_classifier.main([*own, "--out", str(tmp_path)])
    run = WholeRun(tmp_path)
    assert len(run.metrics) == 2 and run.build["pooling"] == "mean" and run.build["heads"]["para"] == "relational"


def test_local_files_only_takes_nothing_from_the_hub(places, refusal):
    flags = ["--local_files_only", "--pretrained", "someone/a-bert-that-is-not-here", "--data", str(places["data"])]
    assert "not on this machine" in refusal(multitask_classifier.main, flags)


def test_frozen_runs_leave_what_they_trained_beside_best(run, tiny):
    """OUT/trained around BERT as it was is OUT/best; where BERT trained there is none."""
    for flags in (("--lora_rank", "2"), (*FULL, "--adapter", "low_rank", "--freeze_bert")):
        out = run(*flags).out
        again = load_trained(out / "trained", load_bert(tiny))
        assert equal(load_model(out / "best")[0].state_dict(), again.state_dict())
    assert not (run(*FULL, "--adapter", "low_rank").out / "trained").exists()


def test_nothing_to_learn_is_said_before_the_folder_is_taken(run, tmp_path, refusal):
    argv = ["--out", str(tmp_path / "out"), *run.argv("--tasks", "sts")]
    assert (
        "nothing to learn" in refusal(multitask_classifier.main, argv) and not (tmp_path / "out" / "run.json").exists()
    )
