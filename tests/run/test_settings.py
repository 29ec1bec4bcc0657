"""Flags as rows of tables, and the settings that follow from them, from the command line and from keywords."""

import importlib

import pytest

import classifier
import multitask_classifier
from minbert import flags
from minbert.errors import UserError
from minbert.parser import Flag
from minbert.settings import from_keywords
from minbert.tasks import TASKS, Task
from tests.tasks.small_models import build


def test_the_rows_that_are_read_from_the_source_are_those_of_the_imported_module():
    for technique in flags.techniques().values():
        module = importlib.import_module(f"minbert.{technique.module}")
        names = [flag.name for flag in module.FLAGS[technique.name]]
        assert [flag.name for flag in technique.flags] == names
        assert technique.name in getattr(module, technique.table)


def test_a_technique_may_say_of_which_type_its_tables_are(tmp_path, monkeypatch):
    text = 'FLAGS: dict[str, list[Flag]] = {"mine": [Flag("--mine", "", number, 0.0)]}\nTERMS: dict = {"mine": None}\n'
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(flags, "PACKAGE", tmp_path)
    assert [technique.switch.name for technique in flags.techniques.__wrapped__().values()] == ["--mine"]


@pytest.mark.parametrize(
    "table",
    ["sampling.SCHEDULES", "pcgrad.COMBINE", "bert.ATTENTION", "tasks.STS_LOSSES", "smart.NOISE", "heads.HEADS"],
)
def test_the_choices_that_are_read_from_the_source_are_the_tables_keys(table):
    module, name = table.split(".")
    assert flags.keys(table) == tuple(getattr(importlib.import_module(f"minbert.{module}"), name))


def test_the_heads_of_a_kind_are_read_from_the_source():
    from minbert.heads import PAIR_HEADS

    assert flags.keys("heads.PAIR_HEADS.number") == PAIR_HEADS["number"]


@pytest.mark.parametrize("script", "mcp")
def test_each_flag_of_a_script_has_one_row_and_a_help_text(script):
    rows = [flag for group in flags.groups(script).values() for flag in group]
    assert len({flag.key for flag in rows}) == len(rows) == len({flag.name for flag in rows})
    assert all(flag.help and not flag.help.endswith(".") for flag in rows)


@pytest.mark.parametrize("script", "mcp")
def test_what_a_flag_needs_or_excludes_is_a_flag(script):
    every = {flag.name for s in "mcp" for flag in flags.flags_of(s).values()}
    for flag in flags.flags_of(script).values():
        assert not flag.needs or flag.needs.split()[0] in every
        assert set(flag.not_with) <= every


def test_an_error_about_a_long_value_is_a_short_line(refusal):
    line = refusal(multitask_classifier.main, ["--pairs", "x" * 5000])
    assert "is neither separate nor joint" in line and len(line) < 1000


@pytest.mark.parametrize("name", ["--out", "--data", "--sst_dev_out", "--sst_dev"])
def test_an_empty_name_of_a_file_is_refused(refusal, name):
    line = refusal(multitask_classifier.main, [f"{name}=", "--quickstart"])
    assert f"argument {name}: an empty text names no file or folder" in line


def test_a_flag_says_how_it_is_turned_on():
    assert Flag("--smart", "", float, 0.0).wanted() == "--smart above 0"
    assert Flag("--adapter", "", default="none").wanted() == "--adapter"
    assert Flag("--lora_rank", "", int, 0).written({"lora_rank": 8}) == "--lora_rank 8"


def test_the_quickstart_from_python_is_that_of_the_command_line():
    by_name, written = from_keywords("m", quickstart=True), multitask_classifier.get_args(["--quickstart"])
    assert by_name.values == written.values and by_name.heads == written.heads and by_name.lr == written.lr
    assert from_keywords("m", quickstart=True, epochs=7, out="mine").values["epochs"] == 7


def test_a_term_s_settings_are_the_flags_that_were_given_under_short_names():
    args = multitask_classifier.get_args(["--smart=5", "--smart_steps=2", "--bregman=1", "--bregman_beta=.9,.99"])
    assert args.terms == {"smart": {"smart": 5.0, "steps": 2}, "bregman": {"bregman": 1.0, "beta": (0.9, 0.99)}}
    assert multitask_classifier.get_args([]).terms == multitask_classifier.get_args([]).additions == {}


def test_an_addition_s_settings_are_the_flags_that_were_given_under_short_names():
    args = multitask_classifier.get_args(["--lora_rank", "8", "--lora_targets", "query,value", "--adapter", "pal"])
    assert args.additions == {"lora": {"rank": 8, "targets": ("query", "value")}, "adapter": {"adapter": "pal"}}


# ------------------------------------------------------------------------------------------ keywords


def test_keywords_give_the_settings_of_the_flags():
    words = ["--epochs=3", "--smart=5", "--smart_tasks=sst,sts", "--lora_rank=4", "--task_weights=1,2,3", "--limit=8"]
    terms = {"smart": 5, "smart_tasks": ["sst", "sts"]}
    ours = from_keywords("m", epochs=3, lora_rank=4, task_weights=[1, 2, 3], limit=8, **terms)
    theirs = multitask_classifier.get_args(words)
    for name in ("epochs", "terms", "additions", "task_weights", "limit", "mode", "heads", "files", "changed"):
        assert str(getattr(ours, name)) == str(getattr(theirs, name)), name


def test_keywords_are_refused_as_flags_are():
    for keywords, words in (
        ({"smart_steps": 2}, "--smart_steps 2 needs --smart"),
        ({"epochs": 0}, "epochs"),
        ({"schedule": "sometimes"}, "schedule"),
        ({"combine": "pcgrad"}, "--combine pcgrad"),
        ({"tasks": "sst,nli"}, "--tasks nli"),
    ):
        with pytest.raises(UserError, match=words):
            from_keywords("m", **keywords)
    with pytest.raises(TypeError, match="unknown keyword epoch; the keywords are"):
        from_keywords("m", epoch=3)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"limit": "5,6"}, "--limit 5,6: give one number above 0"),
        ({"limit": "few"}, "--limit few: give one number above 0"),
        ({"tasks": "sst"}, "--tasks chooses among the course's data sets and cannot be combined with --train"),
        ({"cfimdb_batch_size": 2}, "--cfimdb_batch_size is for one of the course's data sets and cannot be combined "
         "with --train"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_data_set_of_ones_own_is_refused(more, line):
    with pytest.raises(UserError) as caught:
        from_keywords("c", train="t.csv", dev="d.csv", **more)
    assert str(caught.value) == line


def test_a_model_that_is_there_has_its_device_and_its_precision():
    """A keyword could not change them, and run.json would say otherwise."""
    model = build()
    for name, value in (("use_gpu", True), ("precision", "fp16")):
        with pytest.raises(TypeError, match=name):
            multitask_classifier.train(model, None, {}, **{name: value})


def test_training_a_model_that_is_there_takes_the_flags_of_training_alone():
    task = Task("topic", ("text",), "topic", words=("food", "space"))
    args = from_keywords("m", [task], of_training=True, epochs=2, smart=1)
    assert args.tasks == ["topic"] and args.task_weights == {"topic": 1.0}
    for keywords in ({"combine": "pcgrad"}, {"steps_per_epoch": "3xsts"}, {"smart": 5, "smart_tasks": ["sts"]}):
        from_keywords("m", [TASKS["sst"], TASKS["sts"]], of_training=True, **keywords)
    for name in ("pretrained", "lora_rank", "pairs"):
        with pytest.raises(TypeError, match=name):
            from_keywords("m", [task], of_training=True, **{name: 1})


@pytest.mark.parametrize("question", [{"predict": ["A film."]}, {"predict_only": True}, {"list_recipes": True}])
def test_a_question_is_no_keyword_of_a_run_which_would_train(question):
    (name,) = question
    with pytest.raises(TypeError, match=f"unknown keyword {name}"):
        multitask_classifier.run(**question)


def test_a_run_that_is_resumed_from_python_has_the_flags_of_its_folder(tiny, sample, tmp_path):
    few = {"pretrained": str(tiny), "data": str(sample), "limit": 8, "epochs": 1, "tasks": ["sst"], "lr": 1e-3}
    scores = multitask_classifier.run(**few, skip_predictions=True, out=tmp_path)
    place = ["--resume", "--out", str(tmp_path)]
    assert from_keywords("m", out=tmp_path, resume=True).values == multitask_classifier.get_args(place).values
    assert multitask_classifier.run(out=tmp_path, resume=True, epochs=1, skip_predictions=True) == scores
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    with pytest.raises(UserError, match=r"--lr 0\.1: the run in .* had 0\.001; --resume keeps the run's flags"):
        from_keywords("m", out=tmp_path, resume=True, lr=0.1)
    with pytest.raises(UserError, match="--resume needs --out"):
        from_keywords("m", resume=True)


def test_run_takes_keywords_and_returns_the_dev_scores(tiny, sample, tmp_path):
    scores = multitask_classifier.run(
        pretrained=str(tiny), data=str(sample), limit=8, epochs=1, tasks=["sst", "sts"], out=str(tmp_path)
    )
    assert scores.keys() == {"sst", "sts"} and (tmp_path / "predictions" / "sts-dev-output.csv").exists()


def test_the_two_scripts_have_the_same_settings_where_both_have_the_flag():
    one, other = multitask_classifier.get_args([]), classifier.get_args([])
    both = flags.flags_of("m").keys() & flags.flags_of("c").keys() - {"tasks"}
    assert {key: getattr(one, key) for key in both} == {key: getattr(other, key) for key in both}
