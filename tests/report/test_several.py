"""Several runs on one page: which differ, in what, by how much, and which is the best other one."""

from pathlib import Path

import pytest

from minbert.flags import flags_of
from minbert.report.__main__ import main, report
from minbert.report.compare import Group, best_other, counts, in_groups
from minbert.report.folders import Run
from minbert.report.read import read_run
from minbert.report.side_by_side import seeds
from tests.report.folders import DATA, OVERALL, ROWS, description, line, see, with_flags, write_run

pytestmark = pytest.mark.usefixtures("no_matplotlib")


def scored(overall: float, epoch: int = 2) -> list[dict]:
    """A log whose kept epoch has this score for each task, with r = 2·overall - 1 for STS."""
    dev = {"sst": overall, "para": overall, "sts": 2 * overall - 1}
    return [line(0), line(1, best=False), line(epoch, dev=dev, overall=overall, best=True)]


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one setting and one run of another, which has a higher rate."""
    for seed, score in ((1, 0.5), (2, 0.6), (3, 0.52)):
        write_run(tmp_path / "runs" / f"low-{seed}", with_flags(seed), scored(score), rows={})
    write_run(tmp_path / "runs" / "high", with_flags(1, lr=1e-3, batch_size=64), scored(0.7), rows={})
    return tmp_path / "runs"


def test_only_flags_that_differ_are_shown(runs):
    differ = see(report([runs])).tables["What differs"]
    assert differ[0] == ["run", "--lr", "--batch_size"]
    assert differ[1:] == [["high", "0.001", "64"], ["low (3 runs)", "2e-05", "8"]]


def test_runs_of_other_seeds_are_one_row_with_mean_and_range(runs):
    seen = see(report([runs]))
    scores = seen.column("Scores, time and memory", "Overall")
    assert scores == {"high": "0.700", "low (3 runs)": "0.540 (0.500 to 0.600)"}
    assert seen.column("Scores, time and memory", "seeds")["low (3 runs)"] == "1 to 3"
    assert seen.column("Scores, time and memory", "STS-B similarity")["low (3 runs)"] == "0.080 (0.000 to 0.200)"
    assert seen.column("Scores, time and memory", "time")["high"] == "1 min 30 s"  # 30 s and 60 s
    assert seen.tables["Overall: dev score of each run"][2] == ["low (3 runs)", "0.500", "0.600", "0.520"]
    assert seen.column("Overall: dev score by epoch", "epoch 2")["low (3 runs)"] == "0.540 (0.500 to 0.600)"
    assert [tag for tag, _ in seen.elements].count("h1") == 1 and "each by itself" in seen.text


def test_other_data_other_weights_and_other_versions_are_not_another_seed(tmp_path):
    changes = (
        {"data": {"sst/dev": "0"}},
        {"data": DATA | {"sst/train": DATA["sst/dev"], "sst/dev": DATA["sst/train"]}},  # exchanged: cross-validation
        {"weights": {"name": "minilm", "x.safetensors": "6"}},
        {"versions": {"torch": "2.7"}},
    )
    for i, change in enumerate(({}, *changes)):
        write_run(tmp_path / str(i), description(**change))
    groups = in_groups([read_run(tmp_path / str(i)) for i in range(5)])
    assert len(groups) == 5
    assert list(groups[0].different) == ["data (digest)", "weights (digest)", "python's version", "torch's version"]


def test_a_flag_that_did_not_exist_yet_has_its_default(tmp_path):
    """So runs of an earlier version, which wrote a script's letter, are in one group with later runs."""
    then, now = ({"script": script} for script in ("m", "multitask_classifier.py"))
    for i, about in enumerate(
        (with_flags(1) | then, with_flags(2, even_batches="examples") | now, with_flags(3, even_batches="tokens") | now)
    ):
        write_run(tmp_path / str(i), about)
    groups = in_groups([read_run(tmp_path / str(i)) for i in range(3)])
    assert [group.seeds for group in groups] == [[1, 2], [3]]
    assert groups[0].different == {"--even_batches": "examples"}


def test_the_folder_of_a_run_and_where_its_data_are_make_no_difference(tmp_path):
    write_run(tmp_path / "a", with_flags(1, out="a", data="/x", save_every="10m"))
    write_run(tmp_path / "b", with_flags(2, out="b", data="/y", save_every="1"))
    assert len(in_groups([read_run(tmp_path / "a"), read_run(tmp_path / "b")])) == 1


def test_flags_of_places_make_no_difference_and_the_number_of_held_out_sentences_does(tmp_path):
    """A name's ending does not say what a flag is: --held_out is a number, --sst_dev_out a file."""
    places = {flag.key for script in "mcp" for flag in flags_of(script).values() if flag.metavar in ("FILE", "DIR")}
    assert len(places) > 20 and not [key for key in places if counts(key, has_data=True)]
    assert all(counts(key, has_data=True) for key in ("held_out", "sts_loss", "train_tasks", "max_length"))
    for seed in (1, 2):
        write_run(tmp_path / str(seed), with_flags(seed, held_out=seed), rows={})
    assert len(in_groups([read_run(tmp_path / str(seed)) for seed in (1, 2)])) == 2


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3, 1, 2], "1 to 3"), ([1, 2, 4294967295], "1, 2, 4294967295"), ([1, 2, 2], "1, 2, 2"), ([1, 2], "1, 2")],
)
def test_seeds_that_follow_each_other_are_a_range(numbers, text):
    assert seeds(Group("", [Run(Path("x"), {"seed": n}) for n in numbers], {}, frozenset())) == text


def test_the_best_other_run_is_of_the_same_dev_files(runs):
    write_run(runs / "easier", description(data={}, seed=9), scored(0.99), rows={})
    other = description(data=description()["data"] | {"sst/dev": "another"})
    write_run(runs / "elsewhere", other, scored(0.98), rows={})
    limited = description(plan={"files": {}, "limit": {"sst": 10}})
    write_run(runs / "limited", limited, scored(0.97), rows={})
    rival, count = best_other(read_run(runs / "low-1"))
    assert (rival.path.name, count) == ("high", 3)
    seen = see(report([runs / "low-1"]))
    table = "Dev scores beside chance, before training and the best other run"
    assert seen.column(table, "best other run")["overall"] == "0.700"
    assert "The best other run in the folder of 3 others with the same dev examples is high." in seen.text


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for seed in ("a", "b"):
        write_run(tmp_path / seed / "sst", rows={})
    seen = see(report([tmp_path / "a" / "sst", tmp_path / "b" / "sst"], tmp_path / "both.html"))
    assert "Run a/sst" in seen.text and "Run b/sst" in seen.text


def test_a_run_that_is_named_twice_counts_once(runs):
    seen = see(report([runs / "high", runs / "high", runs / "." / "high"], runs / "page.html"))
    assert "Side by side" not in seen.text and "Run high" in seen.text


def test_many_runs_are_not_shown_one_by_one(tmp_path):
    for seed in range(9):
        write_run(tmp_path / "runs" / str(seed), with_flags(seed), rows={})
    seen = see(report([tmp_path / "runs"]))
    assert seen.column("Scores, time and memory", "seeds") == {"0 and 8 more": "0 to 8"}
    assert "does not show each run by itself" in seen.text and "How it was made" not in seen.text


def test_runs_of_different_tasks_and_a_damaged_one_share_a_page(tmp_path, capsys):
    write_run(tmp_path / "all")
    write_run(
        tmp_path / "one", lines=[line(1, dev={"sst": 0.25}, loss={"sst": 1.0}, train={})], rows={"sst": ROWS["sst"]}
    )
    write_run(tmp_path / "bad", lines=[])
    (tmp_path / "bad" / "run.json").write_text("nonsense")
    main([str(tmp_path)])
    seen = see(tmp_path / "report.html")
    scores = seen.column("Scores, time and memory", "Quora paraphrase")
    assert scores == {"all": "0.750", "bad": "–", "one": "–"}
    assert seen.text.count("Run ") >= 3 and "run.json is not JSON" in seen.text


def test_an_overall_score_is_not_compared_with_that_of_fewer_tasks(tmp_path):
    write_run(tmp_path / "three", rows={})
    write_run(tmp_path / "one", lines=[line(1, dev={"sst": 0.99}, overall=0.99, loss={}, train={})], rows={})
    seen = see(report([tmp_path]))
    table = seen.column("Scores, time and memory", "Overall")
    assert list(table.items()) == [("three", f"{OVERALL:.3f}"), ("one", "–")]  # not first with 0.990
    for title in ("Overall: dev score of each run", "Overall: dev score by epoch"):
        assert [row[0] for row in seen.tables[title]] == ["run", "three"]


def test_the_page_of_several_goes_into_the_folder_that_holds_the_first(runs, capsys):
    main([str(runs / "high"), str(runs / "low-1")])
    assert (runs / "report.html").exists()
