"""Scores and predictions of a model, in the order of the data; chance; answers in words."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Dataset, Example, eval_batches
from minbert.evaluation import chance, evaluate, in_words, outputs, overall, predict, score, write_predictions
from minbert.multitask import MultitaskBert
from minbert.tasks import (
    TASKS,
)
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(50)]
TOKENIZER = BertTokenizer([*SPECIAL, *WORDS])


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "expected"),
    [
        ("sst", np.array([0, 4, 2, 2]), [0.0, 4.0, 1.0, 3.0], 0.5),
        ("para", f32(1, 0, 1), [1.0, 0.0, 0.0], 2 / 3),
        ("cfimdb", np.array([1]), [1.0], 1.0),
        ("sts", f32(1, 2, 3, 4), [1.0, 3.0, 2.0, 4.0], 0.8),  # r = 4 / (√5·√5)
        ("sts", f32(1, 2, 3), [5.0, 4.0, 3.0], -1.0),
        ("sts", f32(2, 2, 2), [1.0, 2.0, 3.0], 0.0),  # one number for all: not defined, so 0
        ("sts", f32(1, 2, 3), [1.0, 1.0, 1.0], 0.0),
        ("sts", f32(1), [1.0], 0.0),
    ],
)
def test_scores_worked_by_hand(task, predictions, labels, expected):
    assert score(TASKS[task], predictions, labels) == pytest.approx(expected)


def test_pearson_is_numpys_on_random_numbers():
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 500)
    predictions = (labels + random.normal(0, 1, 500)).astype(np.float32)
    assert score(TASKS["sts"], predictions, list(labels)) == pytest.approx(np.corrcoef(predictions, labels)[0, 1])


def test_overall_is_the_courses():
    scores = {"sst": 0.5, "para": 0.8, "sts": 0.6}
    assert overall(scores) == pytest.approx((0.5 + 0.8 + (0.6 + 1) / 2) / 3) == pytest.approx(0.7)
    assert overall({"sst": 0.5}) == 0.5 and overall({"sts": -1.0}) == 0.0


def test_chance_is_the_commonest_label():
    assert chance(TASKS["para"], [1.0, 0.0, 0.0]) == pytest.approx(2 / 3)
    assert chance(TASKS["sst"], [3.0] * 4 + [0.0, 1.0, 2.0, 4.0, 0.0, 1.0]) == pytest.approx(0.4)
    assert chance(TASKS["sts"], [1.0, 1.0, 1.0]) == 0.0


# ------------------------------------------------------------------------------------------ predicting


class Sums(nn.Module):
    """A model whose output for an example is the sum of the ids of its first row, by which it can be recognised."""

    device = torch.device("cpu")
    autocast = staticmethod(nullcontext)

    def forward(self, batch):
        return batch.input_ids[: len(batch)].sum(dim=1, keepdim=True)


def shuffled(task: str, count: int = 300) -> Dataset:
    """Examples of many lengths in a random order."""
    random = np.random.default_rng(1)
    texts = [[" ".join(random.choice(WORDS, random.integers(1, 60))) for _ in range(2)] for _ in range(count)]
    part = 2 if TASKS[task].is_pair else 1
    examples = [Example(f"id{i}", tuple(text[:part]), 1.0) for i, text in enumerate(texts)]
    return Dataset(TASKS[task], examples, TOKENIZER)


@pytest.mark.parametrize("task", ["sst", "sts"])
def test_predictions_come_back_in_the_order_of_the_data(task, tmp_path):
    data = shuffled(task)
    order = [i for batch in eval_batches(data) for i in batch.indices]
    assert order != sorted(order)  # they are evaluated by length
    expected = [2 + 3 + sum(TOKENIZER.encode([e.texts[0]])[0]) for e in data.examples]  # [CLS] is 2, [SEP] is 3
    sums = outputs(Sums(), data)[:, 0]
    assert sums.tolist() == expected
    write_predictions(tmp_path / "out.csv", data.task, data.examples, sums.int().numpy())
    rows = [line.split(" , ") for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert rows == [[f"id{i}", f"{value} "] for i, value in enumerate(expected)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(TOKENIZER.vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, hidden_dropout_prob=0.4,
    )  # fmt: skip
    return MultitaskBert(BertModel(config), ["sst", "para", "sts"], dropout=0.5)


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_without_dropout_and_leave_the_mode(model, training):
    data = shuffled("sst", 20)
    model.train(training)
    first = outputs(model, data)
    assert torch.equal(first, outputs(model, data)) and first.shape == (20, 5)
    assert all(module.training is training for module in model.modules())
    assert not first.requires_grad
    batch = data.batch(list(range(20)))
    torch.testing.assert_close(first, model.eval()(batch).detach())
    model.train()
    assert not torch.equal(model(batch), model(batch))  # with dropout the outputs would differ


def test_evaluate_scores_every_task(model):
    data = {"sst": shuffled("sst", 30), "sts": shuffled("sts", 30)}
    scores = evaluate(model, data)
    assert list(scores) == ["sst", "sts"]
    assert scores["sst"] == np.mean(outputs(model, data["sst"]).argmax(dim=1).numpy() == 1)
    assert scores["sts"] == 0.0  # the labels are all the same


def test_each_task_predicts_in_the_form_of_its_kind():
    assert TASKS["sst"].predict(torch.tensor([[0.0, 3.0, 1.0, 0.0, 0.0]])).tolist() == [1]
    assert TASKS["para"].predict(torch.tensor([[0.1], [-0.1], [0.0]])).tolist() == [1.0, 0.0, 0.0]
    assert TASKS["sts"].predict(torch.tensor([[2.5], [-0.5]])).tolist() == [2.5, -0.5]


def test_predict_gives_one_number_an_example(model):
    for task in ("sst", "para", "sts"):
        assert predict(model, shuffled(task, 7)).shape == (7,)


# ------------------------------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    ("task", "output", "text"),
    [
        ("sst", [math.log(p) for p in (0.1, 0.05, 0.05, 0.3, 0.5)], "positive (50%), somewhat positive (30%)"),
        ("para", [math.log(3)], "the same question (75%), different questions (25%)"),
        ("cfimdb", [math.log(9), 0.0], "negative (90%), positive (10%)"),
        ("sts", [2.64], "2.6 of 5"),
        ("sts", [7.0], "5.0 of 5"),
        ("sts", [-1.0], "0.0 of 5"),
    ],
)
def test_answers_in_words(task, output, text):
    assert in_words(TASKS[task], torch.tensor(output)) == text
