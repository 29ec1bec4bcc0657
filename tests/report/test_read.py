"""Folders of runs that are not finished or damaged: what can be read is shown, what cannot is a note on the page."""

import json
import math
import shutil

import pytest

from minbert.checkpoint import save_model
from minbert.errors import UserError
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer
from minbert.report.__main__ import main, report
from minbert.report.folders import find_runs, flatten
from minbert.report.read import read_run
from minbert.tasks import Task
from tests.report.folders import ROWS, SCORES, description, line, see, write_run

pytestmark = pytest.mark.usefixtures("no_matplotlib")


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def test_a_whole_run_is_read_without_a_note(folder):
    run = read_run(folder)
    assert run.notes == [] and run.kept["epoch"] == 2 and run.scores == SCORES and run.seed == 7
    assert [len(run.answers[task]) for task in ROWS] == [6, 4, 4] and run.took == 600


ABSENT = {
    "run.json": "run.json is not there.",
    "metrics.jsonl": "No epoch of training is in the log.",
    "outputs/sst-dev.jsonl": "outputs/sst-dev.jsonl is not there",
    "outputs": "outputs/sst-dev.jsonl, outputs/para-dev.jsonl, outputs/sts-dev.jsonl are not there",
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_part_that_is_absent_is_said_and_the_rest_is_shown(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    seen = see(report([folder]))
    assert ABSENT[name] in seen.text
    assert ("python multitask_classifier.py --lr 2e-5" in seen.text) == (name != "run.json")
    assert ("Learning curves" in seen.text) == (name != "metrics.jsonl")
    assert any("precision" in table for table in seen.tables) == (name != "outputs")


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "outputs/sst-dev.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[]", b"nonsense", b"{", b"[" * 9999, b"null"], ids=range(7)
)
def test_a_damaged_part_never_stops_the_page(folder, name, content):
    (folder / name).write_bytes(content)
    assert see(report([folder])).text and read_run(folder).notes


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.999])
def test_a_file_that_was_cut_short_loses_only_its_last_line(folder, share):
    content = (folder / "metrics.jsonl").read_bytes()
    cut = content[: int(share * len(content))]
    (folder / "metrics.jsonl").write_bytes(cut)
    run = read_run(folder)
    assert len(run.lines) == cut.count(b"\n") and "left out" in str(run.notes)


def test_lines_of_the_wrong_kind_are_left_out_and_named(tmp_path):
    wrong = [
        line(1),
        {"epoch": "two"},
        {"epoch": 2.5},
        {"epoch": 2, "dev": {"sst": "good"}, "loss": 3, "overall": None},
    ]
    run = read_run(write_run(tmp_path / "run", lines=wrong))
    notes = " ".join(run.notes)
    assert [x["epoch"] for x in run.lines] == [1, 2]
    assert "2 lines (2, 3) are left out (its epoch is not a whole number)" in notes
    assert "line 4: dev.sst; line 4: loss: not a number, left out" in notes


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, True, None, "0.5", [0.5]], ids=range(7))
def test_scores_that_are_no_number_do_not_stop_the_page(tmp_path, value):
    lines = [line(0), line(1, dev={"sst": value, "para": 0.5, "sts": 0.1}, overall=value)]
    assert see(report([write_run(tmp_path / "run", lines=lines)])).text


def test_answers_that_do_not_fit_their_task_are_left_out(tmp_path):
    rows = [*ROWS["sst"], ("s7", ["x"], 9, 0, [1, 0, 0, 0, 0]), ("s8", ["x"], 1, math.nan, [1, 0, 0, 0, 0])]
    run = read_run(write_run(tmp_path / "run", rows=ROWS | {"sst": rows}))
    assert len(run.answers["sst"]) == 6
    assert "line 7 is left out (not an answer of the task sst" in str(run.notes)
    assert "line 8 is left out (label, prediction and outputs must be finite numbers)" in str(run.notes)


def test_answers_without_an_id_have_the_number_that_prediction_files_give_them(tmp_path):
    rows = [(None, *row[1:]) for row in ROWS["sst"]]  # as evaluation.py writes them; it counts the rows from 0
    run = read_run(write_run(tmp_path / "run", rows={"sst": rows, "para": ROWS["para"]}))
    assert [answer.id for answer in run.answers["sst"]] == ["0", "1", "2", "3", "4", "5"]
    assert [answer.id for answer in run.answers["para"]] == ["p1", "p2", "p3", "p4"]


def test_outputs_of_another_model_than_the_kept_one_are_noted(tmp_path):
    rows = [(id, texts, y, 4, outputs) for id, texts, y, _, outputs in ROWS["sst"]]
    notes = str(read_run(write_run(tmp_path / "run", rows=ROWS | {"sst": rows})).notes)
    assert "gives sst a score of 0.167, the log has 0.500 for epoch 2" in notes


def test_an_unfinished_run_says_how_far_it_came(tmp_path):
    seen = see(report([write_run(tmp_path / "run", lines=[line(0), line(1)], rows={})]))
    assert "The run ended early, or is not finished: 1 of 3 epochs are in the log." in seen.text


def test_a_task_of_ones_own_is_known_from_the_best_model(tmp_path, tiny):
    topics = Task("topics", ("headline",), "topic", words=("sport", "science", "politics"))
    model = MultitaskBert(load_bert(tiny), [topics])
    save_model(tmp_path / "run" / "best", model, load_tokenizer(tiny))
    rows = {"topics": [("1", ["A goal"], 0, 2, [0, 0, 1]), ("2", ["A vote"], 2, 2, [0, 0, 1])]}
    seen = see(report([write_run(tmp_path / "run", lines=[{"epoch": 1, "dev": {"topics": 0.5}}], rows=rows)]))
    assert seen.column("topics: precision, recall and F1 of each class", "precision")["politics"] == "0.500"
    (tmp_path / "run" / "best" / "state.json").write_text("{}")  # damaged: the classes have numbers and no words
    seen = see(report([tmp_path / "run"]))
    assert "best/ does not define" in seen.text
    assert seen.column("topics: precision, recall and F1 of each class", "precision")["2"] == "0.500"


def test_a_pretrainings_log_is_a_page_too(tmp_path):
    lines = [{"epoch": n, "mlm_loss": 3.0 - n, "masked_word_accuracy": 0.25 * n, "nli": 0.5} for n in range(3)]
    lines = [x | ({"loss": {"mlm": 2.0, "nli": 1.0}} if x["epoch"] else {}) for x in lines]
    seen = see(report([write_run(tmp_path / "run", description(flags={"epochs": 2}), lines, {})]))
    assert seen.tables["Held out: masked word accuracy by epoch"][1:] == [["0", "0"], ["1", "0.25"], ["2", "0.5"]]


def test_each_number_of_a_line_has_a_path():
    assert flatten({"epoch": 1, "dev": {"sst": 0.5}, "smart": {"sst": {"before": 2.0}}, "seconds": 3.0}) == {
        "dev/sst": 0.5, "smart/sst/before": 2.0, "seconds": 3.0,
    }  # fmt: skip


def test_runs_are_found_in_a_folder_and_one_folder_below(tmp_path):
    for name in ("b", "a"):
        write_run(tmp_path / "runs" / name)
    write_run(tmp_path / "other" / "deep" / "sst")
    assert [p.name for p in find_runs(tmp_path / "runs")] == ["a", "b"]
    assert [p.name for p in find_runs(tmp_path / "runs" / "a")] == ["a"]
    assert [p.name for p in find_runs(tmp_path / "other")] == ["sst"]
    write_run(tmp_path / "runs" / "a-of-two" / "sst")  # classifier.py's: one folder a data set
    assert [p.name for p in find_runs(tmp_path / "runs")] == ["a", "sst", "b"]


def test_a_folder_without_a_run_is_one_line(tmp_path, refusal):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in (("empty", "no run is inside it"), ("none", "no such folder"), ("file", "is a file")):
        assert words in refusal(main, [str(tmp_path / name)])
    with pytest.raises(UserError, match="name a file"):
        report([write_run(tmp_path / "run")], tmp_path)


def test_a_file_that_is_not_a_page_of_ours_is_never_overwritten(folder, refusal):
    (folder / "report.html").write_text("<p>mine</p>")
    assert "is no page of this program" in refusal(main, [str(folder)])
    assert (folder / "report.html").read_text() == "<p>mine</p>"


def test_a_report_changes_nothing_else_in_the_folder(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report([folder]), report([folder])  # the second replaces the first
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    new = {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()}
    assert new <= {"report.html", "report-pictures"} and before.items() <= after.items()
    assert json.loads((folder / "run.json").read_text()) == description()
