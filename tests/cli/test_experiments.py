"""`python -m minbert.experiments`: the rows' runs, and the tables of them."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import classifier
import multitask_classifier
from minbert import experiments
from minbert.recipe import TABLES
from minbert.results import markdown
from tests.cli.folders import write_cfimdb

pytestmark = pytest.mark.xdist_group("experiments")  # the runs are made once
ROOT = Path(__file__).resolve().parents[2]


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("row", "---")]


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


@pytest.mark.slow
def test_a_folder_with_another_run_is_refused(runs, words, refusal):
    line = refusal(experiments.main, [*words, "--limit", "5"])
    assert "--limit 6, not 5" in line and "name another --out" in line and str(runs) in line


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
def test_an_interrupted_run_goes_on_where_it_stopped(words, tmp_path):
    words = [*words, "--table", "c-baseline", "--epochs", "25", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "minbert.experiments", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "c-baseline-11711" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    run = json.loads((metrics.parent / "run.json").read_text())
    assert "finished" not in run and len(before := metrics.read_text().splitlines()) < 26
    experiments.main(words)
    lines = metrics.read_text().splitlines()
    assert lines[: len(before)] == before and [json.loads(line)["epoch"] for line in lines] == list(range(26))
    assert "resumed" in (tmp_path / "c-baseline-11711.log").read_text()


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
        (["--table", "b-rond-robin"], "near it are b-round-robin"),
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


# ------------------------------------------------------------------------------------------------ the tables


def write_run(folder: Path, recipe: str, seed: int, sts: float, limit: str = "300", finished: bool = True):
    """A run's folder with one epoch of 10 + seed seconds, written by hand."""
    folder.mkdir(parents=True)
    run = {"script": "m", "seed": seed, "flags": {"recipe": recipe, "limit": limit, "seed": seed}, "started": "2026"}
    (folder / "run.json").write_text(json.dumps(run | ({"finished": "2026"} if finished else {})))
    dev = {"sst": 0.5, "para": 1.0, "sts": sts}
    lines = [{"epoch": 0, "dev": {"sst": 0, "para": 0, "sts": 0}, "peak_memory_gib": 9.0}]
    lines += [{"epoch": 1, "dev": dev, "best": True, "seconds": 10 + seed, "peak_memory_gib": 1 + seed / 4}]
    lines += [{"epoch": 2, "dev": dict.fromkeys(dev, 0.3), "best": False, "seconds": 10 + seed, "peak_memory_gib": 1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_row_is_the_mean_and_the_standard_deviation_of_its_seeds(tmp_path):
    """-.1, 0, .1 has the mean 0 and the standard deviation .1; 11, 12 and 13 s the mean 12."""
    for number, sts in ((1, -0.1), (2, 0.0), (3, 0.1)):
        write_run(tmp_path / f"run{number}", "b-round-robin", number, sts)
    row = rows_of(markdown(tmp_path, {"B": TABLES["B"]}))[3]
    assert row == ["round-robin", ".524", ".500 ± .000", ".726", "1.000 ± .000", ".583", ".000 ± .100", "67", "12",
                   "1.75", "`run1`, `run2`, `run3`"]  # fmt: skip


def test_runs_with_other_flags_are_rows_of_their_own(tmp_path):
    write_run(tmp_path / "a", "c-smart", 1, -0.25)
    write_run(tmp_path / "a" / "older-run", "c-smart", 1, 0.9)  # what --overwrite puts aside
    write_run(tmp_path / "b", "c-smart", 1, 0.5, limit="1000", finished=False)
    rows = rows_of(markdown(tmp_path, {"C": TABLES["C"]}))
    assert [row[0] for row in rows[1:3]] == ["SMART `--limit 300`", "SMART `--limit 1000`"]
    assert [row[6] for row in rows[1:3]] == ["-.250", ".500"] and rows[2][-1] == "`b` (unfinished)"


def test_a_run_without_an_epoch_has_no_figures(tmp_path):
    write_run(tmp_path / "a", "c-smart", 1, 0.5, finished=False)
    metrics = tmp_path / "a" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    assert rows_of(markdown(tmp_path, {"C": TABLES["C"]}))[1][-3:] == ["", "", "`a` (unfinished)"]


def test_a_row_without_a_run_says_why(tmp_path):
    (tmp_path / "c-smart-11711.log").write_text("reading\nerror: data: no such file | folder\n")
    text = markdown(tmp_path, {"C": TABLES["C"]})
    assert "No row of this table was run." in text
    assert re.search(r"^\| SMART \|.*\| not run: data: no such file \\\| folder \|$", text, re.M)


def test_a_damaged_run_is_refused_by_name(tmp_path, refusal):
    write_run(tmp_path / "a", "c-smart", 1, 0.5)
    (tmp_path / "a" / "metrics.jsonl").write_text('{"epoch": 1, "dev')
    line = refusal(experiments.main, ["--table", "C", "--read", "--out", str(tmp_path)])
    assert str(tmp_path / "a") in line
