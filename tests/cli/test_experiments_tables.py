"""The tables of `python -m minbert.experiments`, from folders of runs that are written by hand."""

import json
import re
from pathlib import Path

from minbert import experiments
from minbert.recipe import TABLES, Table
from minbert.results import markdown


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("row", "---")]


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


def test_runs_on_other_files_are_rows_of_their_own(tmp_path):
    """Where the files are is of no matter for --resume; what the predictions are called is of none for the scores."""
    for name, flags in (("a", {"sst_train": "x.csv"}), ("b", {"sst_train": "y.csv"}), ("c", {"sst_dev_out": "z.csv"})):
        write_run(tmp_path / name, "c-smart", 1, 0.5)
        about = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(about | {"flags": about["flags"] | flags}))
    rows = rows_of(markdown(tmp_path, {"C": TABLES["C"]}))
    assert [row[0] for row in rows[1:4]] == ["SMART `--sst_train x.csv`", "SMART `--sst_train y.csv`", "SMART"]


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


def test_the_error_in_the_log_of_a_recipe_with_a_longer_name_is_not_its_own(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("# Mine\n--smart 1 | 2\n")
    for name in ("b-interleaved-smart-11711", "mine-smart-2-11711"):
        (tmp_path / f"{name}.log").write_text(f"error: {name}\n")
    tables = {"B": TABLES["B"], "rows": Table("Single rows", (str(mine),))}
    cells = {row[0]: row[-1] for row in rows_of(markdown(tmp_path, tables))}
    assert cells["interleaved, all of Quora"] == "not run" and cells["Mine"] == "not run: mine-smart-2-11711"
    assert cells["interleaved and SMART"] == "not run: b-interleaved-smart-11711"


def test_a_classifier_that_was_stopped_before_its_second_data_set_is_unfinished(tmp_path):
    for names in (["sst"], ["cfimdb"]):
        for name in names:
            write_run(tmp_path / "a" / name, "baseline-frozen", 1, 0.5)
            about = tmp_path / "a" / name / "run.json"
            about.write_text(json.dumps(json.loads(about.read_text()) | {"script": "classifier.py"}))
        cell = rows_of(markdown(tmp_path, {"baselines": TABLES["baselines"]}))[0][-1]
        assert cell == ("`a` (unfinished)" if names == ["sst"] else "`a`")


def test_a_damaged_run_is_refused_by_name(tmp_path, refusal):
    write_run(tmp_path / "a", "c-smart", 1, 0.5)
    (tmp_path / "a" / "metrics.jsonl").write_text('{"epoch": 1, "dev')
    line = refusal(experiments.main, ["--table", "C", "--read", "--out", str(tmp_path)])
    assert str(tmp_path / "a") in line
