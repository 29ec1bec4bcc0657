"""The table of tasks against the files' own headers, its kinds, and tasks of one's own."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from minbert.bert import BertModel
from minbert.checkpoint import load_model, save_model
from minbert.data import Dataset, Example
from minbert.errors import UserError
from minbert.evaluation import all_scores, evaluate, in_words, overall
from minbert.heads import PAIR_HEADS
from minbert.multitask import MultitaskBert
from minbert.tasks import KINDS, TASKS, Task, task_row
from tests.tasks.columns import column, labels, ln
from tests.tasks.small_models import CONFIG, TOKENIZER


@pytest.mark.parametrize(
    ("task", "file"), [("sst", "ids-sst-train.csv"), ("para", "quora-train.csv"), ("sts", "sts-train.csv")]
)
def test_a_row_of_the_table_describes_its_file(sample, task, file):
    """Its columns are the file's, its range is the labels', and its labels are whole numbers where the file's are."""
    row = TASKS[task]
    with open(sample / file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert {*row.texts, row.label} == {name for name in rows[0] if name and name != "id"}
    assert row.is_pair == ("sentence2" in rows[0])
    values = {float(r[row.label]) for r in rows}
    assert (min(values), max(values)) == row.label_range
    assert row.whole == all(label == int(label) for label in values)


def test_outputs_and_words_are_as_many_as_the_labels():
    outputs = {"sst": 5, "para": 1, "sts": 1, "cfimdb": 2, "nli": 3}
    assert {name: task.outputs for name, task in TASKS.items()} == outputs
    for task in TASKS.values():
        low, high = task.label_range
        assert len(task.words) == (high - low + 1 if task.whole else 0)
    assert TASKS["sst"].words[0] == "negative" and TASKS["sst"].words[4] == "positive"
    assert "same" in TASKS["para"].words[1]


@pytest.mark.parametrize(
    ("task", "score", "normalised"),
    [("sts", -1.0, 0.0), ("sts", 0.0, 0.5), ("sts", 0.8, 0.9), ("sts", 1.0, 1.0),
     ("sst", 0.3, 0.3), ("para", 0.0, 0.0), ("cfimdb", 1.0, 1.0)],
)  # fmt: skip
def test_normalised_scores_lie_between_0_and_1(task, score, normalised):
    assert TASKS[task].normalised(score) == pytest.approx(normalised)


# ------------------------------------------------------------------------------------------ kinds


def test_the_course_and_nli_have_the_kinds_that_their_labels_say():
    kinds = {"sst": "classes", "para": "yes_no", "sts": "number", "cfimdb": "classes", "nli": "classes"}
    assert {name: task.kind for name, task in TASKS.items()} == kinds
    assert set(KINDS) == set(kinds.values()) == set(PAIR_HEADS)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("classes", ["accuracy", "macro F1"]),
        ("yes_no", ["accuracy", "macro F1"]),
        ("number", ["Pearson r", "Spearman ρ"]),
    ],
)
def test_a_kind_has_two_scores_and_the_first_is_the_tasks(kind, names):
    task = next(task for task in TASKS.values() if task.kind == kind)
    assert list(task.scores) == names and task.score_name == names[0]
    predictions, labels = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])
    assert all_scores(task, predictions, labels) == {
        name: KINDS[kind].scores[name](predictions, labels) for name in names
    }
    assert task.score(predictions, labels) == all_scores(task, predictions, labels)[names[0]]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_predicts_one_value_an_example_in_the_form_that_is_written(name):
    task = TASKS[name]
    predictions = task.predict(torch.randn(7, task.outputs))
    forms = {"classes": np.int64, "yes_no": np.float32, "number": np.float32}
    assert predictions.shape == (7,) and predictions.dtype == forms[task.kind]


# ------------------------------------------------------------------------------------------ tasks of one's own

TOPICS = Task("topics", texts=("headline",), label="topic", words=("sport", "science", "politics"))
EASE = Task("ease", texts=("sentence",), label="ease", kind="number", label_range=(-20.0, 80.0))
MINE = replace(TASKS["para"], name="mypair")


def test_a_task_of_classes_follows_from_its_words():
    assert (TOPICS.kind, TOPICS.label_range, TOPICS.outputs) == ("classes", (0, 2), 3)
    assert (TOPICS.title, TOPICS.score_name) == ("topics", "accuracy")
    assert TOPICS.whole and not TOPICS.is_pair and not TOPICS.has_ids and TOPICS.columns == ("headline",)
    assert TOPICS.loss(torch.zeros(2, 3), labels(0, 2)).item() == pytest.approx(ln(3))
    assert TOPICS.normalised(0.25) == 0.25


def test_a_task_of_numbers_is_trained_on_a_scale_from_0_to_1():
    """On -20…80, 30 and 5 differ by a quarter of the range."""
    assert EASE.outputs == 1 and not EASE.whole and EASE.score_name == "Pearson r"
    assert EASE.loss(column(30), labels(5)).item() == pytest.approx(0.25**2)
    assert EASE.divergence(column(30), column(5)).tolist() == pytest.approx([0.25**2])
    assert EASE.predict(column(30, 99)).tolist() == [30, 99]
    assert EASE.normalised(-0.5) == 0.25


def test_a_copy_of_a_row_under_another_name_is_the_same_task():
    outputs, truth = column(2.0, -1.0), labels(1, 1)
    assert MINE.loss(outputs, truth) == TASKS["para"].loss(outputs, truth)
    assert (MINE.outputs, MINE.is_pair, MINE.words, MINE.score_name) == (1, True, TASKS["para"].words, "accuracy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ranking", "label_range": (0, 1)}, "must be one of classes, yes_no, number"),
        ({"texts": "headline", "words": ("a", "b")}, "tuple of one or two columns"),
        ({"texts": ("a", "b", "c"), "words": ("a", "b")}, "tuple of one or two columns"),
        ({"texts": (), "words": ("a", "b")}, "tuple of one or two columns"),
        ({}, "words or more for its labels, or a label_range"),
        ({"words": ("the only one",)}, "words or more for its labels, or a label_range"),
        ({"kind": "number"}, "needs a label_range and takes no words"),
        ({"kind": "number", "words": ("low", "high")}, "needs a label_range and takes no words"),
        ({"label_range": (3, 0)}, "3 to 0"),
        ({"kind": "yes_no", "words": ("no", "maybe", "yes")}, "labels of a yes_no task are 0 and 1"),
        ({"kind": "yes_no", "label_range": (0, 5)}, "labels of a yes_no task are 0 and 1"),
        ({"words": ("a", "b", "c"), "label_range": (0, 1)}, "3 words for the labels 0 to 1"),
        ({"label_range": (-1, 1)}, "at least 0"),
        ({"label_range": (0, 2.5)}, "whole numbers"),
    ],
    ids=str,
)  # fmt: skip
def test_a_task_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=f"task mine: .*{message}"):
        Task(**{"name": "mine", "texts": ("sentence",), "label": "label"} | options)


def test_a_task_is_saved_by_its_name_or_by_its_values():
    """A row that was changed is saved by its values, so that an old checkpoint keeps its meaning."""
    changed = replace(TASKS["sst"], words=("a", "b", "c", "d", "e"))
    assert TASKS["sst"].plain() == "sst" and changed.plain()["words"] == changed.words
    for task in (*TASKS.values(), TOPICS, EASE, MINE, changed):
        assert task_row(task.plain()) == task
    as_lists = {key: list(value) if isinstance(value, tuple) else value for key, value in TOPICS.plain().items()}
    assert task_row(as_lists) == TOPICS  # as JSON has it
    with pytest.raises(UserError, match="no task is called sts2; there are sst, para"):
        task_row("sts2")


def test_a_model_answers_tasks_of_ones_own_and_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    model = MultitaskBert(BertModel(CONFIG), [TOPICS, EASE, MINE, "sst"]).eval()
    assert model.build["heads"] == {"topics": "linear", "ease": "linear", "mypair": "difference", "sst": "linear"}
    data = {
        task.name: Dataset(task, [Example(None, ("w1 w2", "w3")[: len(task.texts)], y) for y in (0.0, 1.0)], TOKENIZER)
        for task in model.tasks.values()
    }
    assert [model(d.batch([0, 1])).shape for d in data.values()] == [(2, 3), (2, 1), (2, 1), (2, 5)]
    assert model.heads["ease"].scale * model.heads["ease"].head.linear.bias.item() == 30.0  # the middle of its scale
    scores = evaluate(model, data)
    assert list(scores) == ["topics", "ease", "mypair", "sst"]
    assert overall(scores, model.tasks) == pytest.approx(
        (scores["topics"] + (scores["ease"] + 1) / 2 + scores["mypair"] + scores["sst"]) / 4
    )

    save_model(tmp_path / "model.pt", model, TOKENIZER)
    again, _ = load_model(tmp_path / "model.pt")
    assert again.tasks == model.tasks
    for d in data.values():
        assert torch.equal(again.eval()(d.batch([0, 1])), model(d.batch([0, 1])))


def test_answers_in_words_are_the_words_of_ones_own_task():
    assert in_words(TOPICS, torch.tensor([0.0, ln(6), ln(3)])) == "science (60%), politics (30%)"
    assert in_words(MINE, torch.tensor([ln(3)])) == "the same question (75%), different questions (25%)"
    assert in_words(EASE, torch.tensor([-99.0])) == "-20.0 of 80"
    assert in_words(replace(MINE, words=()), torch.tensor([ln(3)])) == "1 (75%), 0 (25%)"
    assert (
        in_words(replace(TOPICS, words=(), label_range=(0, 2)), torch.tensor([0.0, ln(6), ln(3)])) == "1 (60%), 2 (30%)"
    )


def test_a_loss_of_ones_own_task_reaches_its_head_and_bert():
    model = MultitaskBert(BertModel(CONFIG), [TOPICS, MINE], dropout=0.0)
    data = Dataset(TOPICS, [Example(None, ("w1 w2",), y) for y in (0.0, 2.0)], TOKENIZER)
    batch = data.batch([0, 1])
    TOPICS.loss(model(batch), batch.labels).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    mine = {id(p) for p in model.parameters_of("topics")}
    assert reached == {name for name, p in model.named_parameters() if id(p) in mine}
