"""A run's folder: one run at a time, nothing of another's goes unasked, and only the same run goes on in it."""

import json
import os
import shutil
from pathlib import Path

import pytest

import classifier
import multitask_classifier
from minbert.errors import UserError
from minbert.flags import flags_of
from minbert.folder import LOCK, RunFolder
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.state import TENSORS, read_state
from tests.cli.runs import FULL
from tests.run.crashes import dies_at, in_a_process

FLAGS = flags_of("m")


@pytest.fixture
def argv(tiny, sample):
    def argv(out: Path, *flags: str) -> list[str]:
        return ["--pretrained", str(tiny), "--data", str(sample), "--out", str(out), "--limit", "16", "--epochs", "1",
                "--steps_per_epoch", "2", "--skip_predictions", *FULL, *flags]  # fmt: skip

    return argv


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------ one run at a time


def test_the_second_run_in_a_folder_is_refused(argv, tmp_path, refusal):
    with RunFolder(tmp_path / "out").lock():
        for more in ((), ("--overwrite",)):
            line = refusal(multitask_classifier.main, argv(tmp_path / "out", *more))
            assert f"{tmp_path / 'out'}: another run is writing here; name another folder with --out" in line
    assert not (tmp_path / "out").exists()
    multitask_classifier.main(argv(tmp_path / "out"))
    with RunFolder(tmp_path / "out").lock():
        assert "another run is writing" in refusal(
            multitask_classifier.main, ["--out", str(tmp_path / "out"), "--resume"]
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a process of its own")
def test_a_killed_run_locks_nobody_out(argv, tmp_path):
    out = tmp_path / "out"
    assert in_a_process(multitask_classifier.main, argv(out), dies_at(10))[0] == -9
    assert (out / LOCK).exists()
    multitask_classifier.main(argv(out, "--overwrite"))
    assert not (out / LOCK).exists()


# ------------------------------------------------------------------------------------------ nothing goes unasked


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "best", "trained", "checkpoints", "outputs"])
def test_what_somebody_else_has_there_stays(argv, tmp_path, refusal, name):
    (tmp_path / name).write_text("mine")
    assert f"{tmp_path / name}: " in refusal(multitask_classifier.main, argv(tmp_path))
    assert files_in(tmp_path) == {name: b"mine"}


def test_files_beside_a_run_and_among_its_predictions_stay_under_overwrite(argv, tmp_path):
    out = tmp_path / "out"
    with_predictions = [flag for flag in argv(out) if flag != "--skip_predictions"]
    multitask_classifier.main(with_predictions)
    (out / "notes.txt").write_text("mine")
    (out / "predictions" / "mine.csv").write_text("mine")
    multitask_classifier.main(argv(out, "--overwrite"))
    assert (out / "notes.txt").read_text() == (out / "predictions" / "mine.csv").read_text() == "mine"
    assert [path.name for path in (out / "predictions").iterdir()] == ["mine.csv"]  # no older run's beside the new one


def test_an_older_run_goes_only_when_the_new_one_has_a_model(argv, tmp_path, refusal, capsys):
    out = tmp_path / "out"
    multitask_classifier.main(argv(out))
    before = files_in(out)
    for _ in range(2):  # the second failure does not take the older run for its own
        refusal(multitask_classifier.main, argv(out, "--overwrite", "--lr", "1e30", "--steps_per_epoch", "4"))
        assert files_in(out / "older-run") == before
    capsys.readouterr()
    refusal(multitask_classifier.main, ["--out", str(out), "--predict", "A film."])
    multitask_classifier.main(["--out", str(out / "older-run"), "--predict", "A film."])
    multitask_classifier.main(argv(out, "--overwrite", "--seed", "3"))
    assert not (out / "older-run").exists()
    assert files_in(out)[f"best/{TENSORS}"] != before[f"best/{TENSORS}"]


def test_an_older_run_whose_move_was_cut_off_is_whole_again(argv, tmp_path, refusal):
    out = tmp_path / "out"
    multitask_classifier.main(argv(out))
    before = files_in(out)
    (out / "older-run-moving").mkdir()
    (out / "best").rename(out / "older-run-moving" / "best")  # as a crash in the middle leaves it
    refusal(multitask_classifier.main, argv(out, "--overwrite", "--lr", "1e30", "--steps_per_epoch", "4"))
    assert files_in(out / "older-run") == before


def test_a_folder_of_the_users_with_that_name_stays(argv, tmp_path):
    (tmp_path / "older-run").mkdir()
    (tmp_path / "older-run" / "mine.txt").write_text("mine")
    multitask_classifier.main(argv(tmp_path))
    assert (tmp_path / "older-run" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sst_dev_out", "{data}/ids-sst-dev.csv"], "is a file that the run reads or keeps"),
        (["--sst_dev_out", "{out}/best"], "is a file that the run reads or keeps"),
        (["--sst_test_out", "{out}/checkpoints/x"], "is a file that the run reads or keeps"),
        (["--sst_dev_out", "{out}/a", "--sst_test_out", "{out}/a"], "another flag names the same file"),
        (["--sst_dev_out", "{out}/link/../a", "--sst_test_out", "{out}/a"], "another flag names the same file"),
        (["--sst_dev_out", "{data}"], "is a folder; name a file"),
        (["--sst_test_out", "{out}/predictions/sst-dev-output.csv"], "is the place of other predictions"),
    ],
)
def test_an_output_that_is_an_input_is_refused_before_anything_is_touched(argv, sample, tmp_path, refusal, flags, said):
    data = Path(shutil.copytree(sample, tmp_path / "data"))
    before = files_in(tmp_path)
    flags = [flag.format(data=data, out=tmp_path / "out") for flag in flags]
    assert said in refusal(multitask_classifier.main, argv(tmp_path / "out", "--data", str(data), *flags))
    assert files_in(tmp_path) == before


def test_overwrite_does_not_take_the_weights_that_the_run_starts_from(argv, tmp_path, refusal):
    out = tmp_path / "out"
    multitask_classifier.main(argv(out))
    before = files_in(out)
    for weights in (out / "best", out):
        line = refusal(multitask_classifier.main, argv(out, "--pretrained", str(weights), "--overwrite"))
        assert "--overwrite: would remove" in line and "the run reads" in line
    assert files_in(out) == before


# ------------------------------------------------------------------------------------------ only the same run goes on


@pytest.fixture
def begun(argv, tiny, sample, tmp_path) -> Path:
    """A finished run whose weights and data are copies that a test may change."""
    shutil.copytree(tiny, tmp_path / "weights")
    shutil.copytree(sample, tmp_path / "data")
    multitask_classifier.main(
        argv(tmp_path / "out", "--pretrained", str(tmp_path / "weights"), "--data", str(tmp_path / "data"))
    )
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "3"], "--lr 3.0: the run in {out} did not set it; --resume keeps the run's flags"),
        (["--seed", "3"], "--seed 3: the run in {out} had 11711"),
        (["--epochs", "5"], "--epochs 5: the run in {out} had 1"),
        (["--schedule", "annealed"], "--schedule annealed: the run in {out} had round_robin"),
        (["--smart", "5"], "--smart 5.0: the run in {out} had 0.0"),
        (["--tasks", "sst"], "--tasks sst: the run in {out} had sst,para,sts"),
        (["--overwrite"], "--resume cannot be combined with --overwrite"),
    ],
)
def test_another_flag_is_named(begun, refusal, flags, said):
    before = files_in(begun)
    line = refusal(multitask_classifier.main, ["--out", str(begun), "--resume", *flags])
    assert said.format(out=begun) in line
    assert files_in(begun) == before


def test_the_same_flags_may_be_said_again(begun, capsys):
    multitask_classifier.main(["--out", str(begun), "--resume", "--limit", "16", *FULL])
    assert "resumed after epoch 1" in capsys.readouterr().out


def test_a_resumed_run_keeps_the_flags_of_place_too(argv, tiny, sample, tmp_path):
    """Also those that may differ: a run on the GPU does not go on on the CPU because nobody said it again."""
    few = ["--epochs", "1", "--limit", "16", "--save_every", "1m", "--local_files_only"]
    places = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path / "out")]
    multitask_classifier.main(["--quickstart", *places, *few, "--skip_predictions"])
    args = multitask_classifier.get_args(["--resume", "--out", str(tmp_path / "out")])
    assert (args.quickstart, args.save_every, args.local_files_only) == (True, "1m", True)
    assert args.mode == "full-model" and args.lr == 1e-4
    multitask_classifier.main(["--resume", "--out", str(tmp_path / "out"), "--skip_predictions"])
    args = multitask_classifier.get_args(["--resume", "--out", str(tmp_path / "out"), "--save_every", "7"])
    assert args.save_every == "7"


def test_predictions_that_were_skipped_are_written_by_a_resumed_run_that_does_not_skip_them(begun):
    for flags, written in (["--skip_predictions"], False), ([], True):
        multitask_classifier.main(["--out", str(begun), "--resume", *flags])
        assert (begun / "predictions" / "sst-test-output.csv").exists() is written


def test_a_run_with_fast_dropout_may_go_on_on_a_gpu(argv, tmp_path, refusal):
    gpu = ["--out", str(tmp_path / "out"), "--use_gpu"]
    line = refusal(multitask_classifier.main, argv(*gpu[1:], "--fast_dropout"))
    assert "--fast_dropout cannot be combined with --use_gpu" in line
    multitask_classifier.main(argv(tmp_path / "out", "--fast_dropout"))
    args = multitask_classifier.get_args([*gpu, "--resume"])
    assert args.fast_dropout and args.use_gpu


def test_a_page_beside_the_weights_does_not_make_them_others(begun):
    (begun.parent / "weights" / "report.html").write_text("a page")
    multitask_classifier.main(["--out", str(begun), "--resume"])


def test_other_weights_of_the_same_sizes_are_named(begun, refusal):
    weights = begun.parent / "weights"
    bert = load_bert(weights)
    bert.pooler_dense.bias.data += 1e-3
    save_pretrained(bert, load_tokenizer(weights), weights)
    line = refusal(multitask_classifier.main, ["--out", str(begun), "--resume"])
    assert "model.safetensors has changed since the run" in line and "needs the same weights" in line


def test_another_vocabulary_is_named(begun, refusal):
    path = begun.parent / "weights" / "vocab.txt"
    words = path.read_text().split("\n")
    words[10], words[11] = words[11], words[10]
    path.write_text("\n".join(words))
    line = refusal(multitask_classifier.main, ["--out", str(begun), "--resume"])
    assert "its tokenizer has changed since the run" in line


@pytest.mark.parametrize("file", ["ids-sst-train.csv", "quora-dev.csv", "sts-test-student.csv"])
def test_other_data_are_named(begun, refusal, file):
    path = begun.parent / "data" / file
    path.write_text(path.read_text().replace(" the ", " a "))
    line = refusal(multitask_classifier.main, ["--out", str(begun), "--resume"])
    assert f"{path}: has changed since the run" in line and "needs the same data" in line


def test_the_same_data_and_weights_may_be_elsewhere(begun):
    for name in ("data", "weights"):
        (begun.parent / name).rename(begun.parent / f"moved-{name}")
    elsewhere = ["--data", str(begun.parent / "moved-data"), "--pretrained", str(begun.parent / "moved-weights")]
    multitask_classifier.main(["--out", str(begun), "--resume", *elsewhere])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"flags": 3}', '{"flags": {"lr": "fast"}, "script": "m"}'])
def test_a_damaged_description_is_one_line(begun, refusal, content):
    (begun / "run.json").write_text(content)
    assert "run.json" in refusal(multitask_classifier.main, ["--out", str(begun), "--resume"])


def test_another_scripts_run_and_a_folder_without_one_are_refused(begun, tmp_path, refusal):
    assert "the run of another script" in refusal(classifier.main, ["--out", str(begun), "--resume"])
    line = refusal(multitask_classifier.main, ["--out", str(tmp_path / "no"), "--resume"])
    assert "not there, so there is no run to --resume" in line
    assert "--resume needs --out" in refusal(multitask_classifier.main, ["--resume"])


def test_run_json_alone_repeats_the_run(begun, tmp_path):
    """Its flags, given again, lead to the same weights."""
    description = json.loads((begun / "run.json").read_text())
    argv = [x for key, value in description["changed"].items() if key != "out"
            for x in ([FLAGS[key].name] if value is True else [FLAGS[key].name, str(value)])]  # fmt: skip
    multitask_classifier.main([*argv, "--out", str(tmp_path / "again")])
    one, other = (read_state(folder / "best")["model"] for folder in (begun, tmp_path / "again"))
    assert all((one[name] == other[name]).all() for name in one)


def test_run_json_names_the_script_and_a_letter_of_an_earlier_version_is_understood(begun):
    description = json.loads((begun / "run.json").read_text())
    assert description["script"] == "multitask_classifier.py"
    (begun / "run.json").write_text(json.dumps(description | {"script": "m"}))
    multitask_classifier.main(["--out", str(begun), "--resume"])


def test_a_run_of_a_version_without_some_flags_goes_on(begun, refusal):
    """Those flags are at their defaults then, and nothing else will do."""
    description = json.loads((begun / "run.json").read_text())
    for name in ("even_batches", "average"):
        del description["flags"][name]
    (begun / "run.json").write_text(json.dumps(description))
    resume = ["--out", str(begun), "--resume", "--skip_predictions"]
    multitask_classifier.main(resume)
    multitask_classifier.main([*resume, "--even_batches", "examples"])
    line = refusal(multitask_classifier.main, [*resume, "--even_batches", "tokens"])
    assert "--even_batches tokens: the run in" in line


def test_a_finished_run_says_when(begun):
    description = json.loads((begun / "run.json").read_text())
    assert description["started"] <= description["finished"]


def test_a_damaged_best_model_is_never_answered_from(begun, refusal):
    path = begun / "best" / TENSORS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    for question in (["--predict", "A film."], ["--predict_only"]):
        assert "damaged, its sha256 is" in refusal(multitask_classifier.main, ["--out", str(begun), *question])


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"run\.json: not there, so there is no run in"):
        RunFolder(tmp_path).read_description()
