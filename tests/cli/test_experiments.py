"""`python -m minbert.experiments`: the rows' runs, and the tables of them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import classifier
import multitask_classifier
from minbert import experiments
from minbert.errors import one_line_errors
from minbert.recipe import TABLES
from tests.cli.folders import write_cfimdb
from tests.cli.test_experiments_tables import rows_of
from tests.run.crashes import in_a_process

pytestmark = pytest.mark.xdist_group("experiments")  # the runs are made once
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(sample, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for file in sample.glob("*.csv"):
        (folder / file.name).write_bytes(file.read_bytes())
    write_cfimdb(sample, folder)
    return folder


@pytest.fixture(scope="module")
def words(request, tiny, data, tmp_path_factory) -> list[str]:
    """A command line for a row whose weights are made first; with --slow also for two other rows."""
    out = tmp_path_factory.mktemp("experiments")
    table = "b-sst-only,d-mlm,baseline-frozen" if request.config.getoption("--slow") else "d-mlm"
    return ["--table", table, "--pretrained", str(tiny), "--data", str(data),
            "--limit", "6", "--epochs", "2", "--out", str(out), "--jobs", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(words) -> Path:
    """The folder of those runs, done."""
    experiments.main(words)
    return Path(words[words.index("--out") + 1])


# ------------------------------------------------------------------------------------------------ the runs


@pytest.mark.slow
def test_each_row_has_a_run_folder_and_its_figures_in_the_table(runs):
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {
        "b-sst-only-11711", "d-read-mlm", "d-mlm-11711", "baseline-frozen-11711",
    }  # fmt: skip
    text = (runs / "tables-rows.md").read_text("utf-8")
    rows = {row[-1].strip("`"): row for row in rows_of(text)}
    head = next(line for line in text.splitlines() if line.startswith("| row"))
    lines = (runs / "b-sst-only-11711" / "metrics.jsonl").read_text().splitlines()
    best = max(map(json.loads, lines[1:]), key=lambda line: line["dev"]["sst"])  # the first of equal ones
    cells = dict(zip([cell.strip() for cell in head.split("|")[1:-1]], rows["b-sst-only-11711"], strict=True))
    assert (cells["SST theirs"], cells["Quora theirs"], cells["STS theirs"]) == (".525", ".522", ".240")
    for title, task in (("SST", "sst"), ("Quora", "para"), ("STS", "sts")):
        assert float(cells[f"{title} ours"]) == pytest.approx(best["dev"][task], abs=5e-4)
    assert cells["s theirs"] == "25" and float(cells["GiB"]) > 0.1
    both = dict(zip([cell.strip() for cell in head.split("|")[1:-1]], rows["baseline-frozen-11711"], strict=True))
    assert both["SST ours"] and both["CFIMDB ours"] and both["CFIMDB theirs"] == ".780"
    assert "--limit 6" in text and f"--pretrained {runs / 'd-read-mlm'}" in text


def test_the_weights_of_a_row_are_made_first_and_used(runs):
    description = json.loads((runs / "d-mlm-11711" / "run.json").read_text())
    assert description["flags"]["pretrained"] == str(runs / "d-read-mlm")
    assert json.loads((runs / "d-read-mlm" / "run.json").read_text())["finished"] <= description["started"]


@pytest.mark.slow
def test_runs_that_were_done_are_not_done_again(runs, words, capsys):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json*")}
    experiments.main(words)
    assert "4 runs, 4 of them done before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*.json*")} == before


def test_more_seeds_share_the_weights_that_were_made_with_the_first(runs, words, tmp_path):
    weights, row = jobs(*words, "--seed", "11712")
    assert (row.name, experiments.state_of(weights), experiments.state_of(row)) == ("d-mlm-11712", "done", "new")
    assert "--seed 11711" in " ".join(weights.words)
    weights, _ = jobs(*words, "--seed", "11712", "--out", str(tmp_path))
    assert "--seed 11712" in " ".join(weights.words)


@pytest.mark.slow
def test_a_folder_with_another_run_is_refused(runs, words, refusal):
    line = refusal(experiments.main, [*words, "--limit", "5"])
    assert "--limit 6, not 5" in line and "name another --out" in line and str(runs) in line


def test_predictions_are_added_to_runs_that_were_done_without(runs, words):
    (job,) = (job for job in jobs(*words, "--predictions") if job.name == "d-mlm-11711")
    assert experiments.state_of(job) == "stopped" and not (job.out / "predictions").exists()
    lines = (job.out / "metrics.jsonl").read_text()
    multitask_classifier.main(experiments.command_for(job)[1:])
    assert experiments.state_of(job) == "done" and len(list((job.out / "predictions").iterdir())) == 6
    assert (job.out / "metrics.jsonl").read_text() == lines  # nothing was trained again


def test_read_makes_the_tables_from_the_folders_that_are_there(runs, words, tmp_path):
    """Another machine may have made them; their names do not matter."""
    for path in runs.iterdir():
        if path.is_dir():
            path.rename(tmp_path / f"job-{path.name}")
    experiments.main(["--table", "D", "--read", "--out", str(tmp_path)])
    for path in tmp_path.iterdir():
        if path.is_dir():
            path.rename(runs / path.name.removeprefix("job-"))
    rows = rows_of((tmp_path / "tables-D.md").read_text("utf-8"))
    assert [row[-1] for row in rows] == ["not run", "`job-d-mlm-11711`", *["not run"] * 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "status"), [(os.kill, signal.SIGTERM, 143), (os.killpg, signal.SIGINT, 130)]
)
def test_an_interrupted_run_goes_on_where_it_stopped(words, tmp_path, send, number, status):
    """A terminal sends its Ctrl-C to the whole process group."""
    words = [*words, "--table", "c-baseline", "--epochs", "25", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "minbert.experiments", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    metrics = tmp_path / "c-baseline-11711" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        time.sleep(0.02)
        assert process.poll() is None
    send(process.pid, number)
    assert process.wait() == status
    assert "without saving" not in (tmp_path / "c-baseline-11711.log").read_text()
    run = json.loads((metrics.parent / "run.json").read_text())
    assert "finished" not in run and len(before := metrics.read_text().splitlines()) < 26
    experiments.main(words)
    lines = metrics.read_text().splitlines()
    assert lines[: len(before)] == before and [json.loads(line)["epoch"] for line in lines] == list(range(26))
    assert "resumed" in (tmp_path / "c-baseline-11711.log").read_text()


CHILD = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: print(signal.Signals(number).name, flush=True))
print("ready", flush=True)
signal.pause()
time.sleep(0.3)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process group is stopped")
def test_ctrl_c_in_a_terminal_reaches_a_run_as_one_sigterm(tmp_path, monkeypatch):
    """A second signal would end it without saving."""
    monkeypatch.setattr(experiments, "command_for", lambda job: ["-S", "-c", CHILD])
    job = experiments.Job("a", "", "m", [], tmp_path / "a")

    def ctrl_c():
        while not (job.log.exists() and job.log.read_text()):
            time.sleep(0.01)
        os.killpg(0, signal.SIGINT)

    def in_a_terminal():
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=ctrl_c, daemon=True).start()

    def main(argv):
        with one_line_errors():
            experiments.run_all([job], 1)

    assert in_a_process(main, [], in_a_terminal) == (130, "stopped by Ctrl-C\n")
    assert job.log.read_text().split() == ["ready", "SIGTERM"]


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_what_begins_from_its_weights_is_not_run(tiny, tmp_path, capsys):
    argv = ["--table", "d-mlm", "--pretrained", str(tiny), "--data", "nowhere", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        experiments.main(argv)
    assert stop.value.code.startswith("error: 2 of 2 runs failed, first d-read-mlm: nowhere")
    assert "d-mlm-11711: failed (its weights, d-read-mlm, are not there)" in capsys.readouterr().out
    assert rows_of((tmp_path / "tables-rows.md").read_text("utf-8"))[0][-1] == (
        "not run: its weights, d-read-mlm, are not there"
    )


# ------------------------------------------------------------------------------------------------ the commands


def test_print_lists_a_command_a_line_that_the_scripts_take(capsys, tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    experiments.main(["--table", "all", "--seeds", "2", "--pretrained", str(tiny), "--limit", "9", "--print",
                      "--cfimdb_batch_size", "4", "--out", str(tmp_path / "o")])  # fmt: skip
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    rows = sum(len(table.recipes) for table in TABLES.values()) - 1
    assert len(commands) == 2 * (rows + 6) + 2 and all(command[0] == "python" for command in commands)
    sweep = [command for command in commands if "lambda-sweep" in command]
    assert {command[command.index("--smart") + 1] for command in sweep} == {"0.01", "0.1", "1", "5", "10", "100"}
    outs = [command[command.index("--out") + 1] for command in commands]
    assert len(set(outs)) == len(outs)
    for command in commands:
        if not command[command.index("--pretrained") + 1].startswith(str(tmp_path)) and command[1] != "-m":
            script = {"classifier.py": classifier, "multitask_classifier.py": multitask_classifier}[command[1]]
            args = script.get_args(command[2:])
            assert set(args.limit.values()) == {9} and str(args.out) in outs
            assert args.script == "m" or args.cfimdb_batch_size == 4


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--table is needed"),
        (["--table", "F"], "the tables are baselines, A, B, C, D, E, sweep, or a recipe"),
        (["--table", "b-rond-robin"], "did you mean b-round-robin"),
        (["--table", "B", "--recipe", "c-smart"], "--recipe: is set for each run"),
        (["--table", "B", "--limits", "3"], "--limits: none of the scripts"),
        (["--table", "B", "--cfimdb_batch_size", "3"], "--cfimdb_batch_size: none of the scripts"),
        (["--table", "B", "--epochs", "few"], "--epochs"),
        (["--table", "B", "--print", "--read"], "--read cannot be combined with --print"),
        (["--table", "B", "3"], "unrecognized argument: 3"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_runs(refusal, tmp_path, argv, named):
    assert named in refusal(experiments.main, [*argv, "--out", str(tmp_path / "out")] if argv else [])
    assert not (tmp_path / "out").exists()


def jobs(*argv: str) -> list[experiments.Job]:
    return experiments.jobs_of(*experiments.get_args(argv))


def test_a_recipe_that_names_its_weights_in_any_way_has_them_made_first(tmp_path):
    path = tmp_path / "mine.txt"
    for line in ("--pretrained runs/d-read-mlm", "--pretrained=runs/d-read-mlm", "--lr 1 --pretr runs/d-read-mlm"):
        path.write_text(f"{line}\n")
        assert [job.name for job in jobs("--table", str(path))] == ["d-read-mlm", "mine-11711"]


def test_values_that_are_paths_make_folders_side_by_side(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("--sst_train a/x.csv | b/x.csv\n")
    made = jobs("--table", str(path), "--out", str(tmp_path / "out"))
    assert [job.out.relative_to(tmp_path / "out").name for job in made] == [
        "mine-sst_train-a-x.csv-11711", "mine-sst_train-b-x.csv-11711",
    ]  # fmt: skip
    assert all(job.out.parent == job.log.parent == tmp_path / "out" for job in made)


def test_two_recipes_that_would_share_a_folder_are_refused(refusal, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "mine.txt", tmp_path / "other" / "mine.txt"]
    for path in paths:
        path.write_text("--lr 1e-5\n")
    line = refusal(experiments.main, ["--table", ",".join(map(str, paths)), "--print"])
    assert f"{paths[0]} and {paths[1]} would both run in" in line and "rename" in line


@pytest.mark.parametrize(
    ("more", "folders"), [(["--train", "t.csv", "--dev", "d.csv"], [""]), ([], ["sst", "cfimdb"]),
                          (["--tasks", "cfimdb"], ["cfimdb"])]
)  # fmt: skip
def test_the_state_of_a_classifiers_run_is_that_of_all_its_folders(tmp_path, more, folders):
    (job,) = jobs("--table", "baseline-frozen", "--out", str(tmp_path), *more)
    run, states = {"flags": experiments.values_of(job), "data": {}, "plan": {"files": {}}}, []
    for name in folders:
        states.append(experiments.state_of(job))
        (job.out / name).mkdir(parents=True)
        (job.out / name / "run.json").write_text(json.dumps(run))
        states.append(experiments.state_of(job))
        (job.out / name / "run.json").write_text(json.dumps(run | {"finished": "2026"}))
    assert [*states, experiments.state_of(job)] == ["new", *["stopped"] * (2 * len(folders) - 1), "done"]
    (job,) = jobs("--table", "baseline-frozen", "--out", str(tmp_path), "--predictions", *more)
    assert experiments.state_of(job) == "stopped"  # they are still to be written
    for name in folders:
        (job.out / name / "predictions").mkdir()
    assert experiments.state_of(job) == "done"
