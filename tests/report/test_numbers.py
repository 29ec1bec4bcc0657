"""The statistics of a run's answers, against hand-worked examples, closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minbert.report import numbers
from minbert.report.folders import Answer
from minbert.tasks import TASKS, macro_f1
from tests.report.folders import ROWS

SST, PARA, STS = TASKS["sst"], TASKS["para"], TASKS["sts"]


def answers(task: str) -> list[Answer]:
    return [Answer(id, tuple(texts), y, p, tuple(outputs)) for id, texts, y, p, outputs in ROWS[task]]


def of(labels, predictions, outputs=(0.0,)) -> list[Answer]:
    return [Answer("", ("",), y, p, tuple(outputs)) for y, p in zip(labels, predictions, strict=True)]


def test_the_confusion_matrix_has_labels_in_rows_and_predictions_in_columns():
    by_hand = [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert numbers.confusion(SST, answers("sst")).tolist() == by_hand


def test_precision_recall_and_f1_of_a_worked_example():
    scores = numbers.class_scores(SST, answers("sst"))
    assert [(s.precision, s.recall, s.f1) for s in scores] == [
        (1, 1 / 2, pytest.approx(2 / 3)),
        (pytest.approx(1 / 3), 1, 1 / 2),
        (None, 0, 0),  # never predicted
        (None, 0, 0),
        (1 / 2, 1, pytest.approx(2 / 3)),
    ]
    assert [(s.labels, s.predictions) for s in scores] == [(2, 1), (1, 3), (1, 0), (1, 0), (1, 2)]


def test_a_class_that_neither_side_has_has_no_scores():
    scores = numbers.class_scores(PARA, of([0, 0], [0, 0]))
    assert (scores[0].f1, scores[1].precision, scores[1].recall, scores[1].f1) == (1, None, None, None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_the_mean_of_the_f1_is_the_macro_f1_that_a_run_prints(pairs):
    labels, predictions = zip(*pairs, strict=True)
    f1 = [s.f1 for s in numbers.class_scores(SST, of(labels, predictions)) if s.f1 is not None]
    assert np.mean(f1) == pytest.approx(macro_f1(np.array(predictions), np.array(labels)))


def test_wilsons_interval_is_the_closed_form():
    n, p, z = 4, 3 / 4, stats.norm.ppf(0.975)
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert numbers.interval(PARA, answers("para")) == pytest.approx(expected)


def test_the_interval_of_r_is_fishers():
    predictions, labels = numbers.arrays(answers("sts"))
    r = np.corrcoef(predictions, labels)[0, 1]
    expected = np.tanh(np.arctanh(r) + np.array([-1, 1]) * stats.norm.ppf(0.975) / math.sqrt(4 - 3))
    assert numbers.interval(STS, answers("sts")) == pytest.approx(expected)


@pytest.mark.parametrize("labels, predictions", [([1, 2, 3], [1, 2, 3]), ([1] * 5, [1, 2, 3, 4, 5])])
def test_an_interval_of_r_that_is_not_defined_is_left_out(labels, predictions):
    assert numbers.interval(STS, of(labels, predictions)) is None


def test_probabilities_are_pytorchs():
    outputs = torch.tensor([row[4] for row in ROWS["sst"]], dtype=torch.float64)
    assert np.allclose(numbers.probabilities(SST, answers("sst")), outputs.softmax(-1))
    outputs = torch.tensor([row[4] for row in ROWS["para"]], dtype=torch.float64)
    assert np.allclose(numbers.probabilities(PARA, answers("para"))[:, 1:], outputs.sigmoid())
    assert np.allclose(numbers.probabilities(PARA, answers("para")).sum(1), 1)


def test_the_calibration_of_a_worked_example():
    """The confidences are σ(1) = .731, once right and once wrong, and σ(2) = .881 and σ(3) = .953, which are right."""
    bins, error = numbers.calibration(PARA, answers("para"))
    full = {round(b.low, 1): (b.count, b.confidence, b.accuracy) for b in bins if b.count}
    one, two, three = (1 / (1 + math.exp(-x)) for x in (1, 2, 3))
    assert full == {
        0.7: (2, pytest.approx(one), 0.5),
        0.8: (1, pytest.approx(two), 1),
        0.9: (1, pytest.approx(three), 1),
    }
    assert error == pytest.approx((2 * (one - 0.5) + (1 - two) + (1 - three)) / 4)


@pytest.mark.parametrize("outputs", [[1e4, 0, 0, 0, 0], [0.0] * 5])
def test_a_confidence_at_the_edge_of_a_bin_has_a_bin(outputs):
    bins, _ = numbers.calibration(SST, of([0, 1], [0, 0], outputs))
    place = 9 if outputs[0] else 1  # the confidence is 1, or exactly 1/5, in (.1, .2]
    assert [b.count for b in bins] == [2 * (b == place) for b in range(10)]


def test_the_distributions_are_numpys_histograms_and_hold_what_is_beyond_the_scale():
    ranges = numbers.distributions(STS, answers("sts"))
    predictions, labels = numbers.arrays(answers("sts"))
    edges = np.linspace(0, 5, 11)
    assert [r.labels for r in ranges] == np.histogram(labels, edges)[0].tolist()
    assert [r.predictions for r in ranges] == np.histogram(predictions.clip(0, 5), edges)[0].tolist()
    assert [(r.low, r.mean) for r in ranges if r.mean is not None] == [(0, 1), (1, 2), (4, 3), (4.5, 6)]


def test_the_error_and_the_bias_of_numbers():
    score = numbers.number_score(STS, answers("sts"))
    assert score == (1.0, 0.5, 1)  # off by +1 +1 -1 +1; one prediction is beyond 5


def test_the_worst_mistakes_come_first_and_right_answers_do_not_come():
    worst = numbers.mistakes(SST, answers("sst"))
    assert [m.answer.id for m in worst] == ["s5", "s4", "s2"]
    assert worst[0].true_probability == pytest.approx(1 / (4 + math.exp(6)))
    assert worst[0].probability == pytest.approx(math.exp(6) / (4 + math.exp(6)))
    assert [m.answer.id for m in numbers.mistakes(STS, of([1, 2, 3], [1, 4, 3.5]))] == ["", ""]
    assert [m.size for m in numbers.mistakes(STS, of([1, 2, 3], [1, 4, 3.5]))] == [2, 0.5]


def test_mistakes_so_certain_that_their_probability_is_0_keep_their_order():
    rows = [Answer(name, ("",), 0, 1, (0, size, 0, 0, 0)) for name, size in (("a", 800), ("b", 900), ("c", 850))]
    assert [m.answer.id for m in numbers.mistakes(SST, rows)] == ["b", "c", "a"]
    assert len(numbers.mistakes(SST, rows * 9)) == 10
