"""classifier.py: two data sets one after the other, or one of the user's, in the course's forms."""

import re
import shutil
from pathlib import Path

import pytest

import classifier
from minbert.flags import flags_of
from tests.cli.folders import WholeRun, equal, write_cfimdb
from tests.cli.runs import FULL

OWN = {"--train", "--dev", "--test", "--text", "--text2", "--label", "--regression", "--head", "--cfimdb_batch_size",
       "--dev_out", "--test_out"}  # fmt: skip


@pytest.fixture
def classify(run, tmp_path):
    """A function that runs classifier.py on the tiny BERT and returns the folder where it wrote."""

    def go(*flags: str) -> Path:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        classifier.main(["--out", str(out), *run.argv(*FULL, *flags)])
        return out

    return go


def cmu(path: Path, rows: list[tuple[int, str]]) -> str:
    """A file of CMU's form until 2022."""
    path.write_text("".join(f"{label} ||| {text}\n" for label, text in rows))
    return str(path)


def test_the_flags_of_its_own_are_these():
    multitask = {flag.name for flag in flags_of("m").values()}
    assert {flag.name for flag in flags_of("c").values()} - multitask == OWN


def test_both_data_sets_are_trained_on_or_those_that_tasks_names(classify):
    both, one = classify(), classify("--tasks", "cfimdb")
    assert {path.name for path in both.iterdir()} == {"sst", "cfimdb"}
    assert {path.name for path in one.iterdir()} == {"cfimdb"}
    for task in ("sst", "cfimdb"):
        names = {f"full-model-{task}-{split}-out.csv" for split in ("dev", "test")}
        assert {path.name for path in (both / task / "predictions").iterdir()} == names
    assert equal(WholeRun(both / "cfimdb").weights, WholeRun(one / "cfimdb").weights)  # whatever was trained before


def test_a_bad_label_of_the_second_data_set_is_found_before_the_first_trains(tiny, sample, tmp_path, refusal):
    data = tmp_path / "data"
    shutil.copytree(sample, data)
    for split in ("train", "dev", "test-student"):  # with five labels where CFIMDB has two
        shutil.copy(data / f"ids-sst-{split}.csv", data / f"ids-cfimdb-{split}.csv")
    argv = f"--pretrained {tiny} --data {data} --out {tmp_path / 'out'} --epochs 1 --limit 8".split()
    assert "ids-cfimdb-train.csv, line " in refusal(classifier.main, argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["data/ids-sst-dev.csv", "out/sst/run.json"])
def test_an_output_in_the_first_data_set_s_place_is_refused_before_it_trains(tiny, sample, tmp_path, refusal, place):
    """--dev_out is the last data set's; the first one's files and folder are not for its predictions either."""
    shutil.copytree(sample, tmp_path / "data")
    write_cfimdb(sample, tmp_path / "data")
    argv = f"--pretrained {tiny} --data {tmp_path / 'data'} --out {tmp_path / 'out'} --epochs 1 --limit 8".split()
    line = refusal(classifier.main, [*argv, "--dev_out", str(tmp_path / place)])
    assert f"--dev_out {tmp_path / place}: is a file that the run reads or keeps" in line
    assert not (tmp_path / "out").exists()


def test_the_batch_size_of_cfimdb_is_its_own(classify):
    base, smaller = classify(), classify("--cfimdb_batch_size", "4")
    assert not equal(WholeRun(base / "cfimdb").bert, WholeRun(smaller / "cfimdb").bert)
    assert equal(WholeRun(base / "sst").weights, WholeRun(smaller / "sst").weights)
    other = classify("--batch_size", "4")
    assert equal(WholeRun(base / "cfimdb").weights, WholeRun(other / "cfimdb").weights)
    assert not equal(WholeRun(base / "sst").bert, WholeRun(other / "sst").bert)


def test_files_of_ones_own_are_trained_on_and_predicted(classify, tmp_path):
    rows = [(i % 5, f"A film {i}") for i in range(20)]
    train, dev = cmu(tmp_path / "train.txt", rows), cmu(tmp_path / "dev.txt", rows[:4])
    test = cmu(tmp_path / "test.txt", [(-1, "A film 3"), (-1, "A film 4")])
    base = classify("--train", train, "--dev", dev)
    assert {path.name for path in (base / "predictions").iterdir()} == {"sst-dev-output.txt"}

    other = classify("--train", cmu(tmp_path / "other.txt", rows[::-1]), "--dev", dev)
    assert not equal(WholeRun(base).bert, WholeRun(other).bert)

    short = classify("--train", train, "--dev", cmu(tmp_path / "short.txt", rows[:2]))
    assert len((short / "predictions/sst-dev-output.txt").read_text().splitlines()) == 2
    assert equal(WholeRun(base).weights, WholeRun(short).weights)

    tested = classify("--train", train, "--dev", dev, "--test", test)
    lines = (tested / "predictions/sst-test-output.txt").read_text().splitlines()
    assert [line.split(" ||| ")[1] for line in lines] == ["a film 3", "a film 4"]  # lower-cased, as CMU's script does

    outs = [tmp_path / "new" / name for name in ("d.txt", "t.txt")]
    flags = ["--train", train, "--dev", dev, "--test", test, "--dev_out", str(outs[0]), "--test_out", str(outs[1])]
    moved = classify(*flags)
    assert not (moved / "predictions").exists()
    for name, path in zip(("dev", "test"), outs, strict=True):
        assert path.read_bytes() == (tested / f"predictions/sst-{name}-output.txt").read_bytes()


def test_labels_0_and_1_are_cfimdbs(classify, tmp_path):
    train = cmu(tmp_path / "train.txt", [(i % 2, f"film {i}") for i in range(16)])
    out = classify("--train", train, "--dev", train)
    assert WholeRun(out).build["tasks"] == ["cfimdb"]


def test_cmu_s_files_of_2023_are_read_and_answered_in_kind(classify, tmp_path):
    for split in ("train", "dev", "test"):
        rows = "".join(f'{i},"A film, number {i}",{i % 2}\n' for i in range(8))
        (tmp_path / f"{split}.csv").write_text(f"ID,data,label\n{rows}")
    files = [word for s in ("train", "dev", "test") for word in (f"--{s}", str(tmp_path / f"{s}.csv"))]
    out = classify(*files)
    for split in ("dev", "test"):
        assert re.fullmatch(r"ID,label\n(\d,[01]\n){8}", (out / f"predictions/cfimdb-{split}-output.csv").read_text())


@pytest.mark.parametrize("names", ["{}-{}.csv", "{}-{}.txt"])
def test_a_data_folder_with_cmus_file_names_needs_no_flags(run, tmp_path, monkeypatch, names):
    data = tmp_path / "data"
    data.mkdir()
    for task, classes in (("sst", 5), ("cfimdb", 2)):
        for split in ("train", "dev", "test"):
            path = data / names.format(task, split)
            if path.suffix == ".txt":
                cmu(path, [(i % classes, f"film {i}") for i in range(10)])
            else:
                path.write_text("ID,data,label\n" + "".join(f"{i},film {i},{i % classes}\n" for i in range(10)))
    monkeypatch.chdir(tmp_path)
    argv = run.argv(*FULL)
    argv[argv.index("--data") + 1] = "data"
    classifier.main(argv)
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    ending = names[-4:]
    assert written == {f"{task}-{split}-output{ending}" for task in ("sst", "cfimdb") for split in ("dev", "test")}


def test_with_two_data_sets_dev_out_is_the_last_ones(classify, tmp_path):
    out = classify("--dev_out", str(tmp_path / "mine.csv"))
    assert (out / "sst/predictions/full-model-sst-dev-out.csv").exists()
    assert not (out / "cfimdb/predictions/full-model-cfimdb-dev-out.csv").exists()
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 9


def test_each_data_set_has_a_folder_of_its_own_where_out_is_not_given(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ("pretrain", "finetune"):
        classifier.main(run.argv("--option", option))
    modes = ("last-linear-layer", "full-model")
    runs = {(path.parts[-3], path.parts[-2]) for path in tmp_path.glob("runs/*/*/run.json")}
    assert runs == {(mode, task) for mode in modes for task in ("sst", "cfimdb")}
    assert (tmp_path / "predictions" / "pretrain-sst-dev-out.csv").exists()  # the names of the course's script
    assert (tmp_path / "predictions" / "finetune-cfimdb-test-out.csv").exists()


def test_what_is_missing_is_named_before_anything_trains(run, tiny, sample, tmp_path, refusal):
    flags = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path / "out"), *FULL]
    assert "ids-cfimdb-train.csv" in refusal(classifier.main, flags)
    assert not list(tmp_path.iterdir())


def test_limit_counts_for_a_file_of_ones_own(tiny, sample, tmp_path, capsys):
    paths = [x for split in ("train", "dev") for x in (f"--{split}", str(sample / f"ids-sst-{split}.csv"))]
    argv = ["--pretrained", str(tiny), "--epochs", "1", "--limit", "12", "--skip_predictions", "--out", str(tmp_path)]
    classifier.main([*argv, *paths])
    assert "12 train, 12 dev" in capsys.readouterr().out


def test_limit_may_be_a_number_for_each_data_set():
    args = classifier.get_args(["--limit", "100,50", "--out", "x"])
    assert args.limit == {"sst": 100, "cfimdb": 50}
    for task in args.rows.values():
        assert classifier.for_task(args, task).limit[task.name] == args.limit[task.name]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--train x", ("--train x needs --dev",)),
        ("--dev x", ("--dev x needs --train",)),
        ("--test x", ("--test x needs --train",)),
        ("--tasks sst --train x --dev y", ("--tasks", "--train")),
        ("--cfimdb_batch_size 4 --train x --dev y", ("--cfimdb_batch_size", "--train")),
        ("--tasks sst,sts", ("--tasks sts", "sst, cfimdb")),
        ("--cfimdb_batch_size 0", ("--cfimdb_batch_size",)),
        ("--cfimdb_batch_size 4 --tasks sst", ("--cfimdb_batch_size", "--tasks")),
        ("--no_decay_norms", ("--no_decay_norms", "--weight_decay")),
        ("--option pretrain --fine-tune-mode full-model", ("--option pretrain", "--fine-tune-mode full-model")),
        ("--option freeze --fine-tune-mode full-model", ("--option freeze", "--fine-tune-mode full-model")),
        ("--schedule sqrt", ("--schedule",)),  # a flag of the other script
        ("--smart 5 --smart_tasks sst", ("--smart_tasks",)),  # this, too
        ("--pairs joint", ("--pairs joint", "--text2")),
        ("--smart_epsilon 1e-3", ("--smart_epsilon", "--smart above 0")),
        ("--bregman_beta 0.9", ("--bregman_beta", "--bregman above 0")),
        ("--bregman=-1", ("--bregman",)),
    ],
)
def test_flags_that_cannot_be_combined_are_one_line(refusal, flags, named):
    line = refusal(classifier.main, flags.split())
    assert all(flag in line for flag in named), line


def test_an_epoch_has_every_example_once_the_last_short_batch_included(run, tmp_path, monkeypatch):
    """20 rows in batches of 8 are three updates."""
    import multitask_classifier

    updates, step = [], multitask_classifier.AdamW.step
    monkeypatch.setattr(multitask_classifier.AdamW, "step", lambda self: (updates.append(1), step(self)))
    classifier.main(["--out", str(tmp_path), *run.argv(*FULL, "--tasks", "cfimdb", "--skip_predictions")])
    assert len(updates) == 3
