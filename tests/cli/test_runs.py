"""Whole runs as a student starts them: learning, files, consoles, errors."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import multitask_classifier
from minbert.data import read_examples
from minbert.state import read_state
from minbert.tasks import TASKS
from tests.cli.runs import Run
from tests.run.crashes import in_a_process

ROOT = Path(__file__).resolve().parents[2]


def flags(tiny, sample, out, *more):
    return [
        "--pretrained", str(tiny), "--data", str(sample), "--out", str(out), "--fine-tune-mode", "full-model",
        "--epochs", "1", "--batch_size", "32", "--limit", "40", "--lr", "1e-3", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny, sample, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    multitask_classifier.main(flags(tiny, sample, out, "--epochs", "3", "--eval_train"))
    return out


@pytest.mark.parametrize(
    "name, header, prediction",
    [
        ("sst", "Predicted_Sentiment", r"[0-4]"),
        ("para", "Predicted_Is_Paraphrase", r"[01]\.0"),
        ("sts", "Predicted_Similiary", r"-?\d+(\.\d+)?(e-?\d+)?"),
    ],
)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_prediction_files_have_the_courses_form_and_the_right_ids(finished, sample, name, header, prediction, split):
    lines = (finished / f"predictions/{name}-{split}-output.csv").read_bytes().decode().split("\n")
    assert lines[0] == f"id \t {header} " and lines[-1] == ""
    file = {"sst": "ids-sst-{}.csv", "para": "quora-{}.csv", "sts": "sts-{}.csv"}[name]
    path = sample / file.format({"dev": "dev", "test": "test-student"}[split])
    examples = read_examples(path, TASKS[name], 40 if split == "dev" else None)  # --limit
    assert [line.split(" , ")[0] for line in lines[1:-1]] == [e.id for e in examples]
    assert all(re.fullmatch(rf"[0-9a-f]+ , {prediction} ", line) for line in lines[1:-1])


def test_metrics_hold_a_line_an_epoch(finished):
    start, *lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert start["epoch"] == 0 and set(start["dev"]) == {"sst", "para", "sts"} and "loss" not in start
    best = max(lines, key=lambda line: line["overall"])
    assert [line["best"] for line in lines][best["epoch"] - 1] and lines[0]["best"]
    for line in lines:
        assert set(line["dev"]) == set(line["train"]) == set(line["loss"]) == {"sst", "para", "sts"}
        assert line["seconds"] > 0 and line["examples_per_second"] > 0
        sst, para, sts = line["dev"].values()
        assert line["overall"] == pytest.approx((sst + para + (sts + 1) / 2) / 3)


def test_training_learns_eight_sentences_by_heart(tiny, sample, tmp_path):
    more = ["--tasks", "sst", "--limit", "8", "--epochs", "80", "--lr", "3e-3", "--batch_size", "8"]
    still = ["--hidden_dropout_prob", "0", "--bert_dropout", "0"]
    multitask_classifier.main(flags(tiny, sample, tmp_path, *more, *still))
    losses = [line["loss"]["sst"] for line in Run(tmp_path).metrics]
    assert losses[0] > 1.3 and losses[-1] < 0.5


def test_predict_answers_in_words(finished, capsys):
    multitask_classifier.main(["--out", str(finished), "--predict", "A film to remember."])
    out = capsys.readouterr().out
    assert "SST-5" in out and re.search(r"(negative|neutral|positive) \(\d+%\)", out)
    multitask_classifier.main(["--out", str(finished), "--predict", "What is love?", "What's love?"])
    out = capsys.readouterr().out
    assert re.search(r"Quora paraphrase +(the same question|different questions) \(\d+%\)", out)
    assert re.search(r"STS-B similarity +\d\.\d of 5", out)


def test_a_checkpoint_can_start_another_run(finished, sample, tmp_path):
    multitask_classifier.main(flags(finished / "best", sample, tmp_path, "--tasks", "sst"))
    assert (tmp_path / "predictions/sst-dev-output.csv").exists()


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--epochs", "0"], "--epochs"),
        (["--batch_size", "half"], "--batch_size"),
        (["--lr", "-1"], "--lr"),
        (["--hidden_dropout_prob", "1"], "--hidden_dropout_prob"),
        (["--tasks", "sst,nli"], "--tasks"),
        (["--no_such_flag"], "--no_such_flag"),
        (["--predict", "a", "b", "c"], "--predict"),
        (["--pretrained", "/no/such/dir"], "/no/such/dir"),
        (["--data", "/no/such/dir"], "/no/such/dir"),
        (["--predict", "a"], "best"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(tiny, sample, tmp_path, refusal, argv, words):
    main = multitask_classifier.main
    assert words in refusal(main, ["--out", str(tmp_path), "--pretrained", str(tiny), *argv])


def test_a_test_file_that_a_flag_names_must_be_there_and_a_default_one_need_not(
    tiny, sample, tmp_path, capsys, refusal
):
    argv = flags(tiny, sample, tmp_path / "out", "--tasks", "sst", "--sst_test", str(tmp_path / "none.csv"))
    assert "none.csv" in refusal(multitask_classifier.main, argv)
    for split in ("train", "dev"):
        (tmp_path / f"ids-sst-{split}.csv").write_bytes((sample / f"ids-sst-{split}.csv").read_bytes())
    multitask_classifier.main(flags(tiny, tmp_path, tmp_path / "out", "--tasks", "sst"))
    assert "no test predictions for sst" in capsys.readouterr().err
    assert not (tmp_path / "out/predictions/sst-test-output.csv").exists()


def test_a_dev_file_without_labels_is_named(tiny, sample, tmp_path, refusal):
    test_file = str(sample / "sts-test-student.csv")
    argv = flags(tiny, sample, tmp_path, "--tasks", "sts", "--sts_dev", test_file)
    assert "needs labels" in refusal(multitask_classifier.main, argv)


@pytest.mark.parametrize("script", ["classifier.py", "multitask_classifier.py", "sanity_check.py"])
def test_help_works_from_any_folder(script, tmp_path):
    run = subprocess.run([sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "--pretrained" in run.stdout and run.stderr == ""


@pytest.mark.parametrize("script", [["classifier.py"], ["multitask_classifier.py"], ["-m", "minbert.pretraining"]])
def test_help_does_not_load_pytorch(script, tmp_path):
    program = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:] + ['--help']; "
    run_it = "runpy.run_module('minbert.pretraining', run_name='__main__')"
    if len(script) == 1:
        run_it = f"runpy.run_path({str(ROOT / script[0])!r}, run_name='__main__')"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program + run_it, script[-1]]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0 and "--epochs" in run.stdout, run.stderr


@pytest.mark.slow
def test_a_run_in_a_pipe_prints_no_progress_bar(tiny, sample, tmp_path):
    command = [sys.executable, str(ROOT / "multitask_classifier.py"), *flags(tiny, sample, tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "\r" not in run.stdout + run.stderr
    assert re.search(r"epoch 1/1 \| loss .* \| dev .* \| overall .* examples/s", run.stdout)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("script", [["multitask_classifier.py"], ["classifier.py"], ["-m", "minbert.pretraining"]])
def test_help_is_printed_on_a_console_that_is_not_utf8(script, encoding):
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, *script, "--help"], cwd=ROOT, env=env, capture_output=True)
    assert run.returncode == 0 and run.stderr == b"" and b"--epochs" in run.stdout


@pytest.mark.slow
def test_a_run_goes_on_to_its_end_on_a_console_that_is_not_utf8(tiny, sample, tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    argv = flags(tiny, sample, tmp_path, "--smart", "1", "--rdrop", "1", "--epochs", "2", "--skip_predictions")
    command = [sys.executable, "multitask_classifier.py", *argv]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert len(Run(tmp_path).metrics) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a process are POSIX's")
def test_a_machine_whose_memory_is_full_takes_smaller_portions_or_ends_in_one_line(tiny, sample, tmp_path):
    def little_memory():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)

    long = tmp_path / "train.csv"
    rows = "".join(f"{i}\tl{i}\t{'film good bad story ' * 100}\t{i % 5}\n" for i in range(600))
    long.write_text("\tid\tsentence\tsentiment\n" + rows)
    argv = flags(tiny, sample, tmp_path / "out", "--tasks", "sst", "--sst_train", str(long), "--batch_size", "600")
    argv += ["--limit", "600"]
    status, errors = in_a_process(multitask_classifier.main, argv, little_memory)
    assert status == 0 or errors.strip().splitlines()[-1].startswith("error: ")  # what else needs memory
    assert "Traceback" not in errors
    assert "the machine's memory is full: --micro_batch 300 from here on, with the same updates\n" in errors


def test_a_run_that_diverges_says_so(tiny, sample, tmp_path, refusal):
    argv = flags(tiny, sample, tmp_path, "--lr", "1e30", "--epochs", "2")
    line = refusal(multitask_classifier.main, argv)
    assert re.search(r"epoch 1, step \d+: the loss of \w+ is not a finite number any more; lower --lr", line)


def test_nothing_to_learn_is_one_line(tiny, sample, tmp_path, refusal):
    argv = flags(tiny, sample, tmp_path, "--tasks", "sts", "--fine-tune-mode", "last-linear-layer")
    line = refusal(multitask_classifier.main, argv)
    assert "the heads have no weights" in line and "--smart" not in line


def test_bf16_is_near_fp32_but_not_equal_to_it(tiny, sample, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        more = ["--precision", precision, "--hidden_dropout_prob", "0", "--bert_dropout", "0"]
        multitask_classifier.main(flags(tiny, sample, out, "--tasks", "sst", "--skip_predictions", *more))
        losses[precision] = Run(out).metrics[0]["loss"]["sst"]
        weights = read_state(out / "best")["model"]
        assert weights["bert.pooler_dense.weight"].dtype == torch.float32
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=1e-2)
