"""The scripts as a student runs them, on a tiny random BERT and the sample data."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import classifier
import multitask_classifier
from minbert.data import read_examples
from minbert.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]


def flags(tiny, sample, out, *more):
    return [
        "--pretrained", str(tiny), "--data", str(sample), "--out", str(out), "--fine-tune-mode", "full-model",
        "--epochs", "1", "--batch_size", "32", "--limit", "40", "--lr", "1e-3", *more,
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ a whole run


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
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(line["dev"]) == set(line["train"]) == set(line["loss"]) == {"sst", "para", "sts"}
        assert line["seconds"] > 0 and line["examples_per_second"] > 0
        sst, para, sts = line["dev"].values()
        assert line["overall"] == pytest.approx((sst + para + (sts + 1) / 2) / 3)


def test_training_learns_eight_sentences_by_heart(tiny, sample, tmp_path):
    more = ["--tasks", "sst", "--limit", "8", "--epochs", "80", "--lr", "3e-3", "--batch_size", "8"]
    still = ["--hidden_dropout_prob", "0", "--bert_dropout", "0"]
    multitask_classifier.main(flags(tiny, sample, tmp_path, *more, *still))
    losses = [json.loads(line)["loss"]["sst"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] > 1.3 and losses[-1] < 0.5


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny, sample, tmp_path):
    def weights(out, seed):
        multitask_classifier.main(flags(tiny, sample, tmp_path / out, "--seed", seed))
        return torch.load(tmp_path / out / "best.pt", weights_only=True)["model"]["heads.sst.linear.weight"]

    one, again, other = weights("a", "1"), weights("b", "1"), weights("c", "2")
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_frozen_bert_stays_as_it_was_and_a_fine_tuned_one_does_not(tiny, sample, finished, tmp_path, capsys):
    multitask_classifier.main(flags(tiny, sample, tmp_path, "--fine-tune-mode", "last-linear-layer"))
    from minbert.pretrained import load_bert

    start = load_bert(tiny).state_dict()
    frozen = torch.load(tmp_path / "best.pt", weights_only=True)["model"]
    tuned = torch.load(finished / "best.pt", weights_only=True)["model"]
    assert all(torch.equal(frozen[f"bert.{name}"], value) for name, value in start.items())
    assert "sts has nothing to learn" in capsys.readouterr().err  # a cosine of frozen vectors
    assert not torch.equal(tuned["bert.word_embedding.weight"], start["word_embedding.weight"])


def test_predict_answers_in_words(finished, capsys):
    multitask_classifier.main(["--out", str(finished), "--predict", "A film to remember."])
    out = capsys.readouterr().out
    assert "SST-5" in out and re.search(r"(negative|neutral|positive) \(\d+%\)", out)
    multitask_classifier.main(["--out", str(finished), "--predict", "What is love?", "What's love?"])
    out = capsys.readouterr().out
    assert re.search(r"Quora paraphrase +(the same question|different questions) \(\d+%\)", out)
    assert re.search(r"STS-B similarity +\d\.\d of 5", out)


def test_a_checkpoint_can_start_another_run(finished, sample, tmp_path):
    multitask_classifier.main(flags(finished / "best.pt", sample, tmp_path, "--tasks", "sst"))
    assert (tmp_path / "predictions/sst-dev-output.csv").exists()


def test_joint_pairs_and_mean_pooling_train(tiny, sample, tmp_path):
    multitask_classifier.main(flags(tiny, sample, tmp_path, "--pairs", "joint", "--pooling", "mean"))
    assert torch.load(tmp_path / "best.pt", weights_only=True)["build"]["pairs"] == "joint"


# ------------------------------------------------------------------------------------------ classifier.py


def test_classifier_reads_the_courses_files(tiny, sample, tmp_path):
    classifier.main(flags(tiny, sample, tmp_path, "--tasks", "sst"))
    lines = (tmp_path / "predictions/full-model-sst-dev-out.csv").read_text().splitlines()
    assert lines[0] == "id \t Predicted_Sentiment " and len(lines) == 41


def test_classifier_reads_cmus_files_and_answers_in_kind(tiny, tmp_path):
    for name, labels in (("train", [1, 0] * 8), ("dev", [1, 0]), ("test", [-1, -1])):
        (tmp_path / name).write_text("".join(f"{label} ||| a film\n" for label in labels))
    paths = [x for name in ("train", "dev", "test") for x in (f"--{name}", str(tmp_path / name))]
    outs = ["--dev_out", str(tmp_path / "d"), "--test_out", str(tmp_path / "t")]
    classifier.main(["--pretrained", str(tiny), "--epochs", "1", "--out", str(tmp_path), *paths, *outs])
    for name in "dt":
        assert re.fullmatch(r"([01] \|\|\| a film\n){2}", (tmp_path / name).read_text())
    build = torch.load(tmp_path / "best.pt", weights_only=True)["build"]
    assert build["tasks"] == ["cfimdb"]  # labels 0 and 1: two classes


# ------------------------------------------------------------------------------------------ flags


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--epochs", "0"], "--epochs"),
        (["--batch_size", "half"], "--batch_size"),
        (["--lr", "-1"], "--lr"),
        (["--hidden_dropout_prob", "1"], "--hidden_dropout_prob"),
        (["--tasks", "sst,nli"], "--tasks"),
        (["--no_such_flag"], "--no_such_flag"),
        (["--option", "pretrain", "--fine-tune-mode", "full-model"], "--option pretrain and --fine-tune-mode"),
        (["--predict", "a", "b", "c"], "--predict"),
        (["--pretrained", "/no/such/dir"], "/no/such/dir"),
        (["--data", "/no/such/dir"], "/no/such/dir"),
        (["--predict", "a"], "best.pt"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(tiny, sample, tmp_path, refusal, argv, words):
    main = multitask_classifier.main
    assert words in refusal(main, ["--out", str(tmp_path), "--pretrained", str(tiny), *argv])


def test_use_gpu_without_a_gpu_is_one_line(tiny, refusal, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--use_gpu" in refusal(multitask_classifier.main, ["--use_gpu"])


def test_limit_counts_for_a_file_of_ones_own(tiny, sample, tmp_path, capsys):
    paths = [x for split in ("train", "dev") for x in (f"--{split}", str(sample / f"ids-sst-{split}.csv"))]
    argv = ["--pretrained", str(tiny), "--epochs", "1", "--limit", "12", "--skip_predictions", "--out", str(tmp_path)]
    classifier.main([*argv, *paths])
    assert "12 train, 12 dev" in capsys.readouterr().out


def test_classifier_finds_what_is_missing_before_it_trains(tiny, sample, tmp_path, refusal):
    assert "ids-cfimdb-train.csv" in refusal(classifier.main, flags(tiny, sample, tmp_path))
    assert not list(tmp_path.iterdir())


def test_classifier_flags_that_need_one_another(refusal):
    assert "--train and --dev" in refusal(classifier.main, ["--train", "x"])
    assert "--dev_out" in refusal(classifier.main, ["--dev_out", "x"])


def test_flags_mean_what_the_course_means():
    args = multitask_classifier.get_args([])
    assert (args.seed, args.epochs, args.batch_size, args.hidden_dropout_prob) == (11711, 10, 8, 0.3)
    assert (args.mode, args.lr, args.pretrained) == ("last-linear-layer", 1e-3, "bert-base-uncased")
    assert args.sst_dev_out == Path("predictions/sst-dev-output.csv")
    assert multitask_classifier.get_args(["--option", "finetune"]).lr == 1e-5
    assert multitask_classifier.get_args(["--fine-tune-mode", "full-model"]).mode == "full-model"


def test_a_test_file_asked_for_must_be_there_and_a_default_one_need_not(tiny, sample, tmp_path, capsys, refusal):
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


def test_a_run_in_a_pipe_prints_no_progress_bar(tiny, sample, tmp_path):
    command = [sys.executable, str(ROOT / "multitask_classifier.py"), *flags(tiny, sample, tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "\r" not in run.stdout + run.stderr
    assert re.search(r"epoch 1/1 \| loss .* \| dev .* \| overall .* examples/s", run.stdout)


def test_a_run_that_diverges_says_so_and_shows_no_older_runs_model(tiny, sample, tmp_path, refusal):
    multitask_classifier.main(flags(tiny, sample, tmp_path))
    argv = flags(tiny, sample, tmp_path, "--lr", "1e30", "--epochs", "2", "--overwrite")
    assert "became nan; lower --lr" in refusal(multitask_classifier.main, argv)
    assert not (tmp_path / "best.pt").exists()


def test_nothing_to_learn_is_one_line(tiny, sample, tmp_path, refusal):
    argv = flags(tiny, sample, tmp_path, "--tasks", "sts", "--fine-tune-mode", "last-linear-layer")
    line = refusal(multitask_classifier.main, argv)
    assert "--sts_head cosine" in line and "--smart" not in line  # of which nothing was said


def test_bf16_is_near_fp32_but_not_it(tiny, sample, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        more = ["--precision", precision, "--hidden_dropout_prob", "0", "--bert_dropout", "0"]
        multitask_classifier.main(flags(tiny, sample, out, "--tasks", "sst", "--skip_predictions", *more))
        losses[precision] = json.loads((out / "metrics.jsonl").read_text())["loss"]["sst"]
        assert (
            torch.load(out / "best.pt", weights_only=True)["model"]["bert.pooler_dense.weight"].dtype == torch.float32
        )
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=1e-2)
