"""The page of one run: its numbers, the text of strangers on it, and the page without matplotlib."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from minbert.report import blocks
from minbert.report.__main__ import main, report
from minbert.report.folders import Run
from minbert.report.over_time import rates, schedule
from minbert.report.page import Page, page_html, shortened
from minbert.report.read import read_run
from tests.report.folders import OVERALL, ROWS, SCORES, Seen, description, line, see, write_run

DEV = "Dev scores beside chance, before training and the best other run"


@pytest.fixture
def page(tmp_path, no_matplotlib):
    """The page of the run in `folders.py`, without pictures, as the standard library reads it."""
    return see(report([write_run(tmp_path / "run")]))


def test_the_page_begins_with_how_the_run_was_made(page):
    assert "python multitask_classifier.py --lr 2e-5 --smart 1" in page.text
    changed = [["--lr", "2e-05"], ["--smart", "1"], ["--fine-tune-mode", "full-model"]]  # not "--mode", its key
    assert page.tables["Flags that are not the default"][1:] == changed
    facts = page.column("Seed, versions and machine", "value")
    assert (facts["seed"], facts["weights"], facts["versions"]) == ("7", "minilm", "python 3.11.9, torch 2.6.0")
    assert facts["time in all"] == "10 min 0 s"
    assert page.column("Files, by their sha256", "sha256")["data: sst/dev"] == "sstdev" * 4
    headings = [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[:3] == ["h1", "h2", "h2"] and page.text.index("How it was made") < page.text.index("Dev scores")


def test_scores_stand_beside_chance_and_before_training(page):
    scores, chance, before = (page.column(DEV, head) for head in ("this run", "chance", "before training"))
    assert {"SST-5 sentiment": "0.500", "Quora paraphrase": "0.750"}.items() <= scores.items()
    assert scores["STS-B similarity"] == f"{SCORES['sts']:.3f}" and scores["overall"] == f"{OVERALL:.3f}"
    assert list(chance.values()) == ["0.333", "0.750", "0.000", f"{(1 / 3 + 0.75 + 0.5) / 3:.3f}"]
    assert list(before.values()) == ["0.200", "0.500", "0.000", "0.400"]
    assert page.column(DEV, "best other run")["overall"] == "–" and "No other run in the folder" in page.text
    assert "have seen" not in page.text and "has seen question pairs of Quora" in page.text  # the weights are minilm


def test_the_learning_curves_have_each_epoch_and_the_kept_one(page):
    curve = page.tables["SST-5 sentiment: accuracy by epoch"]
    assert curve[0] == ["epoch", "dev", "train", "loss"]
    assert curve[1:3] == [["0", "0.200", "–", "–"], ["1", "0.300", "0.300", "1.500"]]
    assert curve[3] == ["2 (kept)", "0.500", "0.600", "0.750"]


def test_the_analyses_have_the_numbers_of_the_answers(page):
    confusion = page.tables["SST-5 sentiment: true class and predicted class"]
    assert confusion[1] == ["negative", "1", "1", "0", "0", "0", "2"]
    assert confusion[-1] == ["predicted in all", "1", "3", "0", "0", "2", "6"]
    table = "SST-5 sentiment: precision, recall and F1 of each class"
    assert page.column(table, "precision")["somewhat negative"] == "0.333"
    assert page.column(table, "precision")["neutral"] == "–" and page.column(table, "F1")["positive"] == "0.667"
    numbers = page.column("STS-B similarity: predictions against labels", "mean prediction for these labels")
    assert numbers["4.5 to 5"] == "6.00" and numbers["2 to 2.5"] == "–"
    assert "Predictions are off by 1.00 on average, and their mean is 0.50 above that of the labels." in page.text
    assert "Label “somewhat positive”. The model says “positive” (99.0%)" in page.text
    assert "“Superb .”" not in page.text and "Superb ." not in page.text  # a right answer is no mistake


def test_the_techniques_and_the_cost_are_there(page):
    assert page.column("Cosines between the tasks' gradients", "sst and sts") == {
        "1": "-0.25",
        "2": "-0.5",
        "3": "-0.75",
    }
    assert page.column("SMART's smoothness term", "sst after")["3"] == "1.2e-06"
    assert page.column("SMART's largest noise, max|δ|", "sst")["1"] == "1e-05"
    shares = page.tables["The schedule: each task's share of the batches"]
    assert shares[1] == ["1", "10 (20%)", "30 (60%)", "10 (20%)"]
    cost = page.tables["Learning rate, time and memory"]
    assert cost[1] == ["1", "1.5e-05", "30 s", "12.5", "1.50"] and cost[3][2] == "1 min 30 s"
    assert "2.00 GiB in all: on a CUDA device by this run, and on a CPU by the whole process so far" in page.text
    assert page.column("The whole log", "epoch 2")["cosines/sst,sts"] == "-0.5"


LR = "The learning rate is the size of a step. "


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({"lr": 2e-5, "warmup": 0.0, "lr_decay": "constant"},
         LR + "The rate begins with its full size, --lr 2e-05, and stays there."),
        ({"lr": 2e-5, "warmup": 0.06, "lr_decay": "linear", "head_lr": 1e-3},
         LR + "The rate rises in a straight line to its full size, --lr 2e-05, in the first 6% of the steps (--warmup) "
         "and then falls to 0 at the last step (--lr_decay linear). The heads have a rate of their own, --head_lr "
         "0.001, which moves in the same way."),
        ({"lr": None, "warmup": 0.0, "lr_decay": "linear"}, LR + "The rate begins with its full size, the default, and "
         "then falls to 0 at the last step (--lr_decay linear)."),
        ({}, LR.strip()),  # nothing is known
    ],
)  # fmt: skip
def test_the_page_says_how_the_learning_rate_moves(flags, expected):
    assert rates(Run(Path("x"), {"flags": flags})).strip() == expected


def test_without_matplotlib_the_page_says_so_and_each_number_is_a_table(page):
    assert "pip install matplotlib" in page.text and "svg" not in [tag for tag, _ in page.elements]
    assert "details" in [tag for tag, _ in page.elements]  # the long tables stay folded


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</style></title></table><h1>", "&lt;b&gt; &amp;",
    "'\"><svg onload=alert(1)>", "\x00\x08\x1b[31m\x7f", "\ud800", "‮evil‬", "$\\frac{1}{0}$ _{", "x" * 5000, "", "\n\n",
    "{0} %s ${x}", "]]>", "<!--", "🎬 Ünïcödé 漢字",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_from_data_stays_text(tmp_path, text, no_matplotlib):
    rows = {"sst": [(text, [text], 0, 4, [0, 0, 0, 0, 5])], text[:9].strip("/\0\n") or "t": [(text, text, 1, 0, [1.0])]}
    rows = {name: row for name, row in rows.items() if not re.search(r"[/\0\ud800\x08]", name)}
    run = description(command=text, changed={text: text}, versions={text: text}, seed=text)
    lines = [line(1), line(2, **{text or "t": {text: 1.0}, "cosines": {text: 0.5}})]
    path = report([write_run(tmp_path / "run", run, lines, rows)])
    seen, plain = see(path), path.read_text("utf-8")
    tags = {tag for tag, _ in seen.elements}
    assert not tags & {"script", "img", "svg"} and not re.search(r"[\x00-\x08\x1b\x7f]", plain)
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)
    assert [tag for tag, _ in seen.elements].count("h1") == 1
    if text.isprintable() and 0 < len(text) < 100:
        assert text in seen.text  # as it was, every sign of it


def test_text_from_data_stays_text_in_a_picture():
    pictures = pytest.importorskip("minbert.report.pictures")
    series = {text: [(1, i), (2, float("nan")), (3, i + 1)] for i, text in enumerate(HOSTILE)}
    block = blocks.Picture("x", HOSTILE[1], HOSTILE[2], ("lines", (series, HOSTILE[8])), ("epoch",), [("1",)])
    text = page_html(HOSTILE[0], [blocks.Section("x", [block])], Page(pictures))
    seen = Seen()
    seen.feed(text)
    tags = [tag for tag, _ in seen.elements]
    assert tags.count("svg") == tags.count("h1") == 1
    assert not {"script", "img"} & {*tags} and "$\\frac{1}{0}$ _{" in text
    ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.S)[0])  # it is well-formed


def test_a_long_text_is_cut_and_says_so():
    assert shortened("x" * 700) == "x" * 600 + " … (700 characters in all)" and shortened("x" * 600) == "x" * 600


def test_the_command_prints_the_page_and_says_what_is_missing(tmp_path, capsys, no_matplotlib):
    folder = write_run(tmp_path / "run")
    main([str(folder), "--out", str(tmp_path / "other.html")])
    out, err = capsys.readouterr()
    assert Path(out.split()[1]) == tmp_path / "other.html" and see(tmp_path / "other.html").text
    assert err.count("\n") == 1 and "pip install matplotlib" in err and not (folder / "report.html").exists()


def test_a_page_whose_name_does_not_end_in_html_is_refused_before_it_is_written(tmp_path, refusal):
    folder = write_run(tmp_path / "run")
    line = refusal(main, [str(folder), "--out", str(tmp_path / "both")])
    assert line.endswith(f"name {tmp_path / 'both'}.html") and not (tmp_path / "both").exists()


def test_pictures_are_svg_inside_and_png_beside_with_a_title_and_a_table_each(tmp_path):
    pytest.importorskip("matplotlib")
    path = report([write_run(tmp_path / "run", rows={"sts": ROWS["sts"]})])
    seen, files = see(path), sorted((tmp_path / "run" / "report-pictures").glob("*.png"))
    pictures = [attributes for tag, attributes in seen.elements if tag == "svg"]
    titles = {attributes["id"] for tag, attributes in seen.elements if tag == "title" and "id" in attributes}
    assert len(pictures) == len(files) >= 9
    assert all(picture["role"] == "img" and picture["aria-labelledby"] in titles for picture in pictures)
    assert [tag for tag, _ in seen.elements].count("figure") == len(pictures) <= len(seen.tables)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "mathdefault" not in path.read_text("utf-8")  # a formula that nobody renders


def test_a_run_without_an_epoch_has_no_pictures_and_the_page_names_none(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main([str(write_run(tmp_path / "run", lines=[], rows={}))])
    assert capsys.readouterr().err == "" and not (tmp_path / "run" / "report-pictures").exists()
    assert "PNG" not in see(tmp_path / "run" / "report.html").text


def test_the_picture_of_a_long_schedule_says_which_epochs_it_has(tmp_path):
    """No more than 40 bars have room."""
    for epochs, drawn in ((40, range(1, 41)), (41, range(2, 42))):
        folder = write_run(tmp_path / str(epochs), lines=[line(n) for n in range(epochs + 1)], rows={})
        picture = schedule(read_run(folder), "batches")
        assert list(picture.draw[1][0]) == [*drawn] and len(picture.rows) == epochs
        assert ("The picture has the last 40 epochs" in picture.text) == (epochs > 40)


def test_a_task_that_is_scored_and_not_trained_has_a_curve(tmp_path, no_matplotlib):
    lines = [line(n, **({"loss": {"sst": 1.0}} if n else {}), train={}) for n in range(3)]
    seen = see(report([write_run(tmp_path / "run", lines=lines, rows={})]))
    assert seen.tables["Quora paraphrase: accuracy by epoch"][-1] == ["2 (kept)", "0.750"]
    assert "Quora paraphrase and STS-B similarity are scored and not trained." in seen.text
    assert "Trained on SST-5 sentiment (sst) for 2 epochs in" in seen.text


def test_a_picture_is_the_same_whenever_it_is_made():
    pictures = pytest.importorskip("minbert.report.pictures")
    draw = ("lines", ({"a": [(1, 0.5), (2, 0.25)]}, "score"))
    assert pictures.render(draw, "title", "name") == pictures.render(draw, "title", "name")


def test_pictures_need_no_screen():
    """Matplotlib's pyplot, which looks for a screen, is never loaded."""
    pytest.importorskip("matplotlib")
    code = (
        "import sys; from minbert.report import pictures\n"
        "pictures.render(('lines', ({'a': [(1, .5)]}, 'x')), 'title', 'name')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    "text, expected",
    [
        (blocks.duration(59.4), "59 s"), (blocks.duration(59.7), "1 min 0 s"), (blocks.duration(9.97), "10 s"),
        (blocks.duration(3.25), "3.2 s"), (blocks.duration(61), "1 min 1 s"),
        (blocks.duration(3661), "1 h 1 min"), (blocks.share(0.004), "0.4%"), (blocks.share(0.996), "99.6%"),
        (blocks.share(0.0004), "less than 0.1%"), (blocks.share(0.9996), "more than 99.9%"), (blocks.share(0), "0%"),
        (blocks.spread([0.5, 0.52, 0.54]), "0.520 (0.500 to 0.540)"), (blocks.value([1, "a", True]), "1, a, yes"),
        (blocks.score(float("nan")), "–"), (blocks.count(12345), "12,345"),
    ],
)  # fmt: skip
def test_numbers_as_text(text, expected):
    assert text == expected
