"""Recipes: every row of the reports is there, says what its report says, and trains."""

import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest

import classifier
import multitask_classifier
from minbert.command_line import recipe_values
from minbert.errors import UserError
from minbert.pretraining import script as pretraining
from minbert.recipe import FOLDER, TABLES, listing, names, parse_recipe, read_recipe
from minbert.sampling import SCHEDULES, Plan
from minbert.settings import from_keywords
from minbert.smart import BregmanTerm, smoothness
from tests.cli.folders import write_cfimdb
from tests.cli.reports import FACTS, OF_SMART, OFF, READINGS, SCORES, SECONDS, SMART_DEFAULTS

COURSE = {"sst": 8544, "para": 141506, "sts": 6040}  # training examples in the course's files
SCRIPTS = {"m": multitask_classifier, "c": classifier, "p": pretraining}


def get_args(name: str, *more: str):
    script = SCRIPTS[read_recipe(name).script]
    return script.get_args(["--recipe", name, *more])


@pytest.fixture(autouse=True)
def weights_of_further_pretraining(tmp_path, monkeypatch):
    """D's rows begin from runs/d-read-mlm and runs/d-read-mlm-nli, which must be there."""
    monkeypatch.chdir(tmp_path)
    for name in READINGS:
        (tmp_path / "runs" / name).mkdir(parents=True)


# ------------------------------------------------------------------------------------------ what the reports say


def test_the_tables_are_the_reports_rows_in_their_order():
    rows = [name for table in TABLES.values() for name in table.recipes]
    assert rows == [*FACTS, "lambda-sweep"] and list(FACTS) == list(SCORES)
    assert [len(TABLES[report].recipes) for report in "ABCDE"] == [5, 9, 4, 5, 7]
    assert set(rows) | set(READINGS) <= set(names()) == {path.stem for path in FOLDER.glob("*.txt")}


@pytest.mark.parametrize("name", FACTS)
def test_a_recipe_does_what_its_report_says(name):
    args = get_args(name)
    for key, value in FACTS[name].items():
        assert (args.heads[key] if key in args.heads else getattr(args, key)) == value, key
    for key, value in OFF.items():  # and nothing that the report does not have
        if key not in FACTS[name] and name not in OF_SMART:
            assert getattr(args, key) == value, key
    assert ("smart" in args.terms) == (name in OF_SMART or "smart" in FACTS[name])


@pytest.mark.parametrize("name", READINGS)
def test_a_recipe_of_further_pretraining_does_what_its_report_says(name, sample):
    args = get_args(name, "--data", str(sample))
    assert {key: getattr(args, key) for key in READINGS[name]} == READINGS[name]
    assert args.out == Path("runs", name)  # where D's rows take their weights from


def test_smarts_defaults_are_what_the_reports_say():
    parameters = inspect.signature(smoothness).parameters
    defaults = {name: parameters[name].default for name in ("epsilon", "sigma", "steps")}
    beta = inspect.signature(BregmanTerm).parameters["beta"].default
    assert parameters["eta"].default is None  # which is 100·ε
    assert defaults | {"eta_to_epsilon": 100, "beta": beta} == SMART_DEFAULTS


def steps_of(name: str) -> tuple[int, dict[str, int]]:
    """Steps in the second epoch of a recipe, and each task's batch size, with the course's files."""
    args = get_args(name)
    plan = Plan(COURSE, args.batch_size, args.epochs, args.seed, args.steps_per_epoch, priorities=args.priorities)
    return len(SCHEDULES[args.schedule].steps(plan, 1)), SCHEDULES[args.schedule].sizes(plan)


def test_the_numbers_of_steps_and_examples_are_the_reports():
    """A: 1,000 batches. B: floor(N_sts / 64) rounds; 64 / 3 / 2 so that all of Quora is seen. E: N_sts / 8 · 3."""
    assert [steps_of(name)[0] for name in TABLES["A"].recipes] == [1000] * 5
    assert steps_of("b-round-robin")[0] == 6040 // 64
    for name in ("b-interleaved", "b-interleaved-relational"):
        assert steps_of(name) == (2212, {"sst": 3, "para": 64, "sts": 2}) and 2211 * 64 < 141506 <= 2212 * 64
    assert steps_of("e-pal-annealed")[0] == 6040 // 8 * 3
    assert steps_of("d-fine-tune")[0] == 8845  # all of Quora, 16 at a time


def test_the_first_line_has_the_scores_and_the_seconds_of_the_report():
    for name, scores in SCORES.items():
        tasks = ("sst", "para", "sts") if len(scores) == 3 else ("sst", "cfimdb")
        assert read_recipe(name).scores == dict(zip(tasks, scores, strict=True)), name
        assert read_recipe(name).seconds == SECONDS.get(name), name


def test_the_sweep_stands_for_six_runs():
    """B, §3.1: "λ = {0.01, 0.1, 1, 5, 10, 100} for a small number of iterations"."""
    recipe = read_recipe("lambda-sweep")
    assert (recipe.flag, [float(value) for value in recipe.values]) == ("--smart", [0.01, 0.1, 1, 5, 10, 100])
    runs = [get_args("lambda-sweep", "--smart", value) for value in recipe.values]
    assert [args.terms["smart"]["smart"] for args in runs] == [0.01, 0.1, 1, 5, 10, 100]


def test_every_recipe_says_what_the_report_leaves_unsaid():
    for name in names():
        comment = " ".join(line for line in read_recipe(name).path.read_text("utf-8").splitlines() if line[:1] == "#")
        assert "nsaid" in comment or name not in (*FACTS, *READINGS, "lambda-sweep"), name


def test_an_installed_package_has_every_recipe(monkeypatch):
    pytest.importorskip("setuptools")  # which brings distutils
    monkeypatch.chdir(FOLDER.parents[1])
    patterns = importlib.import_module("distutils.core").run_setup("setup.py", stop_after="init").package_data
    for path in FOLDER.iterdir():
        assert any(path.relative_to(FOLDER.parent).match(pattern) for pattern in patterns["minbert"]), path


# ------------------------------------------------------------------------------------------ each one trains


@pytest.mark.parametrize("name", [name for name in names() if name != "lambda-sweep"])
def test_a_recipe_trains_a_tiny_bert_for_three_steps(name, tiny, sample, tmp_path, monkeypatch):
    """Three steps, or of `sequential` a batch of each task, which its rows of four examples are."""
    monkeypatch.setattr(multitask_classifier, "evaluate", lambda model, data: dict.fromkeys(data, 0.5))
    recipe, data = read_recipe(name), sample
    if recipe.script == "c":
        data = tmp_path / "data"
        data.mkdir()
        write_cfimdb(sample, data)
        for file in sample.glob("ids-sst-*"):
            (data / file.name).write_bytes(file.read_bytes())
    argv = ["--recipe", name, "--pretrained", str(tiny), "--data", str(data), "--limit", "4", "--epochs", "1"]
    argv += ["--out", str(tmp_path / "out")] + (["--skip_predictions"] if recipe.script != "p" else [])
    if recipe_values(recipe.script, name).get("schedule") != "sequential":
        argv += ["--steps_per_epoch", "3"]
    SCRIPTS[recipe.script].main(argv)
    assert list((tmp_path / "out").rglob("metrics.jsonl"))


# ------------------------------------------------------------------------------------------ the flag


def test_flags_beside_a_recipe_replace_its_own_wherever_they_stand():
    recipe = ["--recipe", "b-interleaved-smart"]
    plain = multitask_classifier.get_args(recipe)
    assert (plain.smart, plain.batch_size, plain.schedule) == (5, 16, "interleaved")
    for argv in (["--batch_size", "4", *recipe], [*recipe, "--batch_size", "4"]):
        args = multitask_classifier.get_args(argv)
        assert (args.smart, args.batch_size, args.schedule) == (5, 4, "interleaved")
    assert multitask_classifier.get_args([*recipe, "--smart", "0"]).terms.keys() == {"bregman"}


def test_keywords_take_a_recipe_too():
    ours = from_keywords("m", recipe="e-pal-pcgrad", epochs=2)
    theirs = multitask_classifier.get_args(["--recipe", "e-pal-pcgrad", "--epochs", "2"])
    assert ours.values == theirs.values and ours.additions == {"adapter": {"adapter": "pal"}}
    with pytest.raises(UserError, match="lambda-sweep"):
        from_keywords("m", recipe="lambda-sweep")


def test_a_run_of_a_recipe_is_in_run_json_and_resumes(refusal, tiny, sample, tmp_path, monkeypatch, capsys):
    """run.json has the recipe's flags with the others over them; --resume takes its flags from there."""
    out, scored = tmp_path / "out", []
    argv = ["--recipe", "b-sst-only", "--pretrained", str(tiny), "--data", str(sample), "--limit", "4", "--epochs", "2"]
    argv += ["--skip_predictions", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["multitask_classifier.py", *argv])
    monkeypatch.setattr(multitask_classifier, "evaluate", stop_at(3, scored))
    with pytest.raises(SystemExit):
        multitask_classifier.main()
    capsys.readouterr()
    description = json.loads((out / "run.json").read_text("utf-8"))
    assert description["command"].startswith("multitask_classifier.py --recipe b-sst-only --pretrained")
    flags = description["flags"]
    assert (flags["recipe"], flags["lr"], flags["epochs"], flags["train_tasks"]) == ("b-sst-only", 1e-5, 2, ["sst"])
    line = refusal(multitask_classifier.main, ["--recipe", "b-round-robin", "--resume", "--out", str(out)])
    assert "--recipe b-round-robin" in line and "had b-sst-only" in line
    place = ["--resume", "--out", str(out)]
    for again in (place, [*argv, "--resume"], ["--recipe", "b-sst-only", *place]):  # the recipe has 10 epochs
        args = multitask_classifier.get_args(again)
        assert (args.recipe, args.lr, args.epochs, args.train_tasks) == ("b-sst-only", 1e-5, 2, ["sst"])
    multitask_classifier.main(["--resume", "--out", str(out)])
    assert [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]


def stop_at(call: int, calls: list):
    """An `evaluate` that is interrupted, once, at its nth call."""

    def evaluate(model, data):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return dict.fromkeys(data, 0.5)

    return evaluate


def test_a_recipe_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(
        "\ufeff# Mine: SST .6\r\n\r\n--lr 3e-5  --epochs 2\r\n--sts_loss cosine # at last\r\n--option=finetune\r\n"
    )
    args = multitask_classifier.get_args(["--recipe", str(path)])
    assert (args.lr, args.epochs, args.sts_loss, args.mode) == (3e-5, 2, "cosine", "full-model")
    assert read_recipe(str(path)).title == "Mine"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("--lr 1e-5\n--lr fast", "line 2: argument --lr"),
        ("# a line\n\n--schedule sometimes", "line 3: argument --schedule"),
        ("--loss 3", "line 1: unrecognized arguments: --loss 3"),
        ("epochs 3", "line 1: 'epochs' is neither a flag nor"),
        ('--out "a', "line 1: no closing quotation"),
        ("--recipe b-frozen", "cannot name another"),
        ("classifier.py\n--lr 1", "is a recipe for classifier.py, not for multitask_classifier.py"),
        ("--smart 1 | 2\n--rdrop 1 | 2", "line 2: one flag may have several values"),
        ("--smart 1 |", "line 1: one flag may have several values"),
        ("--smart |", "line 1: one flag may have several values"),
        ("--smart 1 | 5", "has several values of --smart (1, 5): add one"),
        ("--lr_dec constant | linear", "has several values of --lr_decay (constant, linear): add one"),
        ("\n--smrt 0.1 | 1", "line 2: unrecognized arguments: --smrt 0.1"),
        ("--smart 0.1 | fast", "line 1: argument --smart"),
        ("--smart 5\n--smart 0.1 | 1", "has several values of --smart"),
        ("--pretrained", "line 1: argument --pretrained: expected one argument"),
        ("--quickstart", "--quickstart"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_with_its_line(refusal, tmp_path, text, named):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    line = refusal(multitask_classifier.main, ["--recipe", str(path)])
    assert named in line and str(path) in line


def test_one_of_several_values_may_be_the_default(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("--lr_decay constant | linear\n")
    for value in ("constant", "linear"):
        assert multitask_classifier.get_args(["--recipe", str(path), "--lr_decay", value]).lr_decay == value
        assert from_keywords("m", recipe=str(path), lr_decay=value).lr_decay == value


def test_a_name_that_is_no_recipe_is_refused_with_the_nearest_one(refusal):
    line = refusal(multitask_classifier.main, ["--recipe", "b-rond-robin"])
    assert "b-rond-robin" in line and "did you mean b-round-robin, b-round-robin-smart or" in line
    assert "--list_recipes" in line and "mean" not in refusal(multitask_classifier.main, ["--recipe", "qqq"])


def test_a_row_whose_weights_are_not_there_says_how_to_make_them(refusal, tmp_path):
    (tmp_path / "runs" / "d-read-mlm").rmdir()
    line = refusal(multitask_classifier.main, ["--recipe", "d-mlm"])
    assert "python -m minbert.pretraining --recipe d-read-mlm`" in line
    assert multitask_classifier.get_args(["--recipe", "d-mlm", "--pretrained", "minilm"]).pretrained == "minilm"


@pytest.mark.parametrize("script", [multitask_classifier, classifier])
def test_list_recipes_has_every_row_with_its_scores(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--list_recipes"])
    text = capsys.readouterr().out
    assert stop.value.code in (0, None) and text.strip() == listing()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert set(lines) == set(names())
    for name, scores in SCORES.items():
        assert all(f"{score:.3f}".lstrip("0") in lines[name] for score in scores), name


def test_a_recipe_is_read_without_running_anything_of_it():
    recipe = parse_recipe("x", Path("x.txt"), "--out $(rm -rf x) `y`\n")
    assert recipe.lines == [(1, ["--out", "$(rm", "-rf", "x)", "`y`"])]
