"""Predictions and scores, on numbers worked by hand and against scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, spearmanr

from minbert.tasks import accuracy, macro_f1, pearson, predict_binary, predict_class, predict_number, spearman
from tests.tasks.columns import column


def test_a_class_is_the_largest_logit():
    logits = torch.tensor([[0.1, 0.3, 0.2, -5.0, 0.0], [-9.0, -8.0, -7.0, -6.0, -5.0], [2.0, 1.0, 0.0, 0.0, 0.0]])
    predictions = predict_class(logits)
    assert predictions.tolist() == [1, 4, 0] and predictions.dtype == np.int64
    assert predict_class(logits.softmax(dim=-1)).tolist() == [1, 4, 0]


def test_a_pair_is_a_paraphrase_where_its_probability_is_above_one_half():
    """The boundary is p = ½, logit 0. At ½ itself the answer is no, for NumPy and PyTorch round to even."""
    predictions = predict_binary(column(-50, -0.5, -1e-3, 0.0, 1e-3, 0.5, 50))
    assert predictions.tolist() == [0, 0, 0, 0, 1, 1, 1] and predictions.dtype == np.float32
    # a second sigmoid, or a rounded logit, would give other answers
    assert predict_binary(column(-50, -0.5, 0.4).sigmoid()).tolist() != predict_binary(column(-50, -0.5, 0.4)).tolist()
    assert column(0.4).round().item() != predict_binary(column(0.4)).item()


def test_a_similarity_is_read_as_it_is():
    """There is no sigmoid, no rounding and no clamp."""
    assert predict_number(column(-0.25, 2.5, 7.75)).tolist() == [-0.25, 2.5, 7.75]


# ------------------------------------------------------------------------------------------ correlations


def test_pearson_is_the_r_of_scipys_straight_line_fit():
    random = np.random.default_rng(3)
    x = random.uniform(0, 5, 200)
    y = (0.3 * x + random.normal(0, 1, 200)).astype(np.float32)
    assert pearson(y, x) == pytest.approx(linregress(x, y).rvalue, rel=1e-9)


def test_pearson_depends_on_the_direction_and_not_on_the_scale():
    x = np.array([0.2, 2.6, 3.0, 5.0])
    assert pearson(10 * x - 3, x) == pytest.approx(1.0) and pearson(-x, x) == pytest.approx(-1.0)
    sigmoid = 1 / (1 + np.exp(-x))
    assert pearson(sigmoid, x) < 0.95  # so no sigmoid may stand before it


def test_pearson_of_a_constant_side_is_0():
    x = np.array([0.2, 2.6, 3.0, 5.0])
    for constant in (np.zeros(4), np.full(4, 0.1, dtype=np.float32)):
        assert pearson(constant, x) == 0.0 and pearson(x, constant) == 0.0
    assert pearson(x[:1], x[:1]) == 0.0
    assert pearson(np.array([1, 1, 1, 1 + 1e-6]), x) == pytest.approx(linregress(x, [0, 0, 0, 1]).rvalue)


def test_spearman_is_scipys_with_and_without_ties():
    random = np.random.default_rng(4)
    x = random.uniform(0, 5, 200)
    y = (x**3 + random.normal(0, 20, 200)).astype(np.float32)
    assert spearman(y, x) == pytest.approx(spearmanr(y, x).statistic, rel=1e-9)
    assert spearman(y.round(-1), x.round()) == pytest.approx(spearmanr(y.round(-1), x.round()).statistic, rel=1e-9)


def test_spearman_of_four_rows_by_hand():
    """Ranks 1, 2, 3, 4 and 2, 1, 4, 3: r = 1 - 6·Σd²/(n·(n² - 1)) = 1 - 6·4/60 = .6. A tie of two has the rank 1½."""
    labels = np.array([0.0, 1.0, 2.0, 50.0])
    assert spearman(np.array([3.0, -7.0, 90.0, 4.0]), labels) == pytest.approx(0.6)
    # Ranks 1½, 1½, 3, 4 less 2½ are -1, -1, ½, 1½, with the labels' ranks -1½, -½, ½, 1½: 4.5/√(4.5·5)
    assert spearman(np.array([1.0, 1.0, 2.0, 3.0]), labels) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_spearman_is_1_for_every_rising_function_and_pearson_is_not():
    x = np.linspace(0, 5, 50)
    assert spearman(np.exp(3 * x), x) == pytest.approx(1.0) and pearson(np.exp(3 * x), x) < 0.7
    assert spearman(-np.exp(3 * x), x) == pytest.approx(-1.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", [pearson, spearman])
def test_a_correlation_that_is_not_defined_is_0(score):
    x = np.array([0.2, 2.6, 3.0, 5.0])
    for predictions, labels in ((np.zeros(4), x), (x, np.zeros(4)), (x[:1], x[:1]), (x * np.nan, x), (x * np.inf, x)):
        assert score(predictions, labels) == 0.0


# ------------------------------------------------------------------------------------------ classes


def test_accuracy_is_the_share_of_right_predictions():
    assert accuracy(np.array([0, 4, 2, 2]), np.array([0.0, 4.0, 1.0, 3.0])) == 0.5


def test_macro_f1_of_six_rows_by_hand():
    """Class 0: TP 2, FP 1, FN 1, F1 = 4/6. Class 1: TP 1, FP 1, FN 1, F1 = 2/4. Class 2: TP 1, F1 = 1."""
    predictions, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([0.0, 0.0, 1.0, 1.0, 0.0, 2.0])
    assert macro_f1(predictions, labels) == pytest.approx((4 / 6 + 2 / 4 + 1) / 3)


def test_a_class_on_one_side_alone_counts_with_f1_0():
    """Class 1 is never predicted, class 2 is predicted once and is no label. F1 of class 0 is 2·2/(2·2 + 0 + 0) = 1."""
    assert macro_f1(np.array([0, 0, 2]), np.array([0, 0, 1])) == pytest.approx(1 / 3)


def test_macro_f1_sees_a_rare_class_that_accuracy_does_not():
    """99 of 100 are class 0. Predictions that are all 0 have accuracy .99 and macro F1 (2·99/199 + 0)/2."""
    predictions, labels = np.zeros(100), np.array([1.0] + [0.0] * 99)
    assert accuracy(predictions, labels) == 0.99
    assert macro_f1(predictions, labels) == pytest.approx(99 / 199)


def literal_macro_f1(predictions: list[int], labels: list[int]) -> float:
    """The mean of the harmonic means of precision and recall, 0 where one of them is not defined or both are 0."""
    result = []
    for k in sorted({*predictions, *labels}):
        right = sum(p == y == k for p, y in zip(predictions, labels, strict=True))
        precision, recall = (right / side.count(k) if k in side else 0.0 for side in (predictions, labels))
        result.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return sum(result) / len(result)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_macro_f1_is_the_mean_of_harmonic_means_of_precision_and_recall(rows):
    predictions, labels = zip(*rows, strict=True)
    expected = literal_macro_f1(list(predictions), list(labels))
    assert macro_f1(np.array(predictions), np.array(labels, dtype=float)) == pytest.approx(expected)
