"""A page of many runs: each run's numbers are on it, rows are sorted, names are short, and it fits a phone."""

import random
from itertools import pairwise

import pytest

from minbert.report import blocks
from minbert.report.__main__ import main, report
from minbert.report.compare import group_names
from tests.browser import browser
from tests.report.folders import line, see, with_flags, write_run

pytestmark = pytest.mark.xdist_group("report page")
ROWS = {  # name of a recipe → its flags, as in the reports' tables
    "baseline-fine-tuned": {}, "baseline-frozen": {"mode": "last-linear-layer", "lr": 1e-3},
    "b-interleaved-square-root-and-cosine-head": {"schedule": "sqrt", "sts_head": "cosine", "pairs": "joint"},
    "c-smart": {"smart": 5.0, "bregman": 1.0}, "c-smart-pcgrad": {"smart": 5.0, "bregman": 1.0, "combine": "pcgrad"},
    "c-smart-pcgrad-cosine": {"smart": 5.0, "bregman": 1.0, "combine": "pcgrad", "sts_loss": "cosine"},
    "d-lora": {"lora_rank": 8, "lora_targets": "query,value"}, "d-lora-per-task": {"lora_rank": 8, "lora_per_task": 1},
    "e-additive": {"adapter": "pal"}, "e-sequential-annealed": {"schedule": "annealed", "warmup": 0.1},
}  # fmt: skip
PLAIN = {"mode": "full-model", "lr": 2e-5, "schedule": "round_robin", "sts_head": "difference", "pairs": "separate",
         "smart": 0.0, "bregman": 0.0, "combine": "separate", "sts_loss": "mse", "lora_rank": 0, "lora_targets": None,
         "lora_per_task": 0, "adapter": "none", "warmup": 0.0, "epochs": 10}  # fmt: skip


def many(folder, rows: int, seeds: int = 3):
    """`seeds` runs of ten epochs of each of the first `rows` recipes, with scores that no two share."""
    noise = random.Random(0)
    for i, (name, flags) in enumerate(list(ROWS.items())[:rows]):
        for seed in range(11711, 11711 + seeds):
            start = {"sst": 0.2 + i / 100, "para": 0.6 + i / 200, "sts": i / 50}
            dev = [{task: x + 0.02 * e + noise.random() / 50 for task, x in start.items()} for e in range(11)]
            lines = [line(e, dev=x, overall=(x["sst"] + x["para"] + (x["sts"] + 1) / 2) / 3, best=e == 10)
                     for e, x in enumerate(dev)]  # fmt: skip
            write_run(folder / f"{name}-{seed}", with_flags(seed, **PLAIN | flags), lines, rows={})
    return folder


@pytest.mark.parametrize("rows", (4, 10))
def test_each_runs_numbers_are_on_the_page(tmp_path, rows, no_matplotlib):
    from minbert.report.folders import find_runs
    from minbert.report.read import read_run

    runs = [read_run(path) for path in find_runs(many(tmp_path / "runs", rows))]
    seen = see(report([tmp_path / "runs"]))
    head, *table = seen.tables["The numbers of each run"]
    assert head[:6] == ["run", "Overall", "SST-5 sentiment", "Quora paraphrase", "STS-B similarity", "seed"]
    by_name = {row[0]: row[1:] for row in table}
    assert len(by_name) == len(runs) == 3 * rows
    for run in runs:
        last = run.lines[-1]
        scores = [last["overall"], *last["dev"].values()]
        assert by_name[run.name][:7] == [*map(blocks.score, scores), str(run.seed), "10", "10 of 10"]
    epochs = {row[0]: row[1:] for row in seen.tables["The overall dev score of each run by epoch"][1:]}
    assert all(epochs[run.name] == [blocks.score(x["overall"]) for x in run.lines] for run in runs)
    assert seen.text.count("outputs/sst-dev.jsonl") == 1  # a note about all runs stands once


def test_the_best_rows_are_first_and_named_by_what_their_runs_share(tmp_path, no_matplotlib):
    seen = see(report([many(tmp_path / "runs", 10)]))
    means = seen.column("Scores, time and memory", "Overall")
    values = [float(cell.split()[0]) for cell in means.values()]
    assert values == sorted(values, reverse=True) and set(means) == {f"{name} (3 runs)" for name in ROWS}
    for title in ("Overall: dev score of each run", "STS-B similarity: dev score by epoch"):
        assert [row[0] for row in seen.tables[title][1:]] == list(means)


def test_many_flags_that_differ_are_one_column_of_what_deviates(tmp_path, no_matplotlib):
    seen = see(report([many(tmp_path / "runs", 10)]))
    differ = {row[0]: row[1] for row in seen.tables["What differs"][1:]}
    common = differ.pop("the commonest values")
    assert "--fine-tune-mode full-model" in common and "--lora_targets –" in common and "--warmup 0," in common + ","
    assert differ["c-smart-pcgrad (3 runs)"] == "--smart 5, --combine pcgrad, --bregman 1"
    assert differ["baseline-fine-tuned (3 runs)"] == "nothing" and len(differ) == 10


def test_the_command_for_one_runs_page_works(tmp_path, no_matplotlib, capsys):
    seen = see(report([many(tmp_path / "my runs", 3, seeds=4)]))
    command = seen.text.split("python -m minbert.report ")[1]
    folder = command[1 : command.index("'", 1)]  # its blank is quoted
    main([folder])
    assert "Learning curves" in see(tmp_path / "my runs" / folder.split("/")[-1] / "report.html").text


@pytest.mark.parametrize(
    "groups, names",
    [
        ([["c-smart-11711", "c-smart-11712"], ["c-smart-pcgrad-1"]], ["c-smart (2 runs)", "c-smart-pcgrad-1"]),
        ([["a-1/sst", "a-2/sst"], ["a-1/cfimdb", "a-2/cfimdb"]], ["a/sst (2 runs)", "a/cfimdb (2 runs)"]),
        ([["seed1", "seed2", "seed3"]], ["seed1 and 2 more"]),  # they share no whole word
        ([["a-1", "a-2"], ["a-3", "a-4"]], ["a-1 and 1 more", "a-3 and 1 more"]),  # they would both be "a"
    ],
)
def test_groups_have_names_that_tell_them_apart(groups, names):
    assert group_names(groups) == names


def test_scores_that_cannot_be_compared_are_said_to_be(tmp_path, no_matplotlib):
    write_run(tmp_path / "a", rows={}), write_run(tmp_path / "b", with_flags(8), rows={})
    assert "cannot be compared" not in see(report([tmp_path])).text
    write_run(tmp_path / "c", lines=[line(1, dev={"sst": 0.9}, overall=0.9)], rows={})
    assert "Scores on other tasks or other examples cannot be compared." in see(report([tmp_path])).text


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def window():
    pytest.importorskip("matplotlib")
    with browser() as page:
        yield page


@pytest.fixture(scope="module", params=(4, 10), ids=("12 runs", "30 runs"))
def page(tmp_path_factory, window, request):
    return report([many(tmp_path_factory.mktemp("runs"), request.param)])


OPEN = "document.querySelectorAll('details').forEach(x => x.open = true)"
CUT = """return [...document.querySelectorAll('svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => { const b = text.getBoundingClientRect();
    return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1;
  }).map(text => text.textContent)})"""
WIDE = """return [...document.querySelectorAll('main *')].filter(x => !x.closest('svg') && !x.closest('table') &&
  x.getBoundingClientRect().right > window.innerWidth).map(x => x.outerHTML.slice(0, 99))"""


@pytest.mark.parametrize("width", (390, 1280))
def test_a_page_of_many_runs_fits_its_window(window, page, width):
    window.open(page, width)
    window.run(OPEN)
    assert window.overflow() <= 0 and window.run(WIDE) == [] and window.run(CUT) == [] and window.errors() == []


@pytest.mark.parametrize("width", (390, 1280))
def test_a_page_of_many_runs_passes_the_accessibility_checker(window, page, width):
    window.open(page, width)
    window.run(OPEN)
    assert window.axe() == []


def test_a_rows_name_stays_in_sight_when_its_table_is_moved(window, page):
    window.open(page, 390)
    left = window.run("""const all = [...document.querySelectorAll('.scroll')];
      const wide = all.find(x => x.scrollWidth > x.clientWidth + 99);
      wide.scrollLeft = 99; return wide.querySelector('tbody th').getBoundingClientRect().left""")
    assert left >= 0


def test_lines_with_a_name_differ_in_dash_and_marker(page):
    pictures = pytest.importorskip("minbert.report.canvas")
    looks = [pictures.style(i) for i in range(42)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 42
    text = page.read_text("utf-8")
    assert ("the 7 others" in text) == ("30 runs" in text)  # of four groups all have a name


def test_numbers_at_the_ends_of_equal_lines_do_not_touch():
    pictures = pytest.importorskip("minbert.report.pictures")
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    pictures.PICTURES["curves"](
        figure, {f"run {i}": [(0, 0.1, 0.1, 0.1), (1, 0.5, 0.5, 0.5)] for i in range(6)}, "r", 6
    )
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    assert all(upper.y0 - lower.y0 > 0.8 * lower.height for lower, upper in pairwise(boxes))
