"""minbert/tasks.py: losses and predictions on numbers worked by hand, and the table against the files' own headers."""

import csv
import math

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from minbert.data import Dataset, Example
from minbert.tasks import (
    STS_LOSSES,
    TASKS,
    binary_loss,
    classification_loss,
    cosine_loss,
    pearson,
    predict_binary,
    predict_class,
    predict_number,
    regression_divergence,
    regression_loss,
)
from minbert.tokenizer import SPECIAL, BertTokenizer

ln = math.log


def column(*numbers: float) -> torch.Tensor:
    """Outputs of a head with one number an example: (B, 1)."""
    return torch.tensor([float(n) for n in numbers])[:, None]


def labels(*numbers: float) -> torch.Tensor:
    """Labels as a batch holds them: (B,), float."""
    return torch.tensor([float(n) for n in numbers])


# ---------------------------------------------------------------------------------------------- losses


def test_cross_entropy_by_hand():
    p = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.5])  # logits that are log-probabilities: the softmax gives p back
    loss = classification_loss(p.log().repeat(2, 1), labels(4, 0))
    assert loss.item() == pytest.approx((-ln(0.5) - ln(0.05)) / 2, rel=1e-6)
    assert classification_loss(torch.zeros(3, 5), labels(0, 2, 4)).item() == pytest.approx(ln(5))


def test_binary_cross_entropy_by_hand():
    loss = binary_loss(column(ln(3), ln(3)), labels(1, 0))  # σ(ln 3) = ¾
    assert loss.item() == pytest.approx((-ln(0.75) - ln(0.25)) / 2, rel=1e-6)
    assert binary_loss(column(0, 0, 0), labels(0, 1, 1)).item() == pytest.approx(ln(2))


def test_squared_error_by_hand():
    assert regression_loss(column(2.6, 1.0), labels(2.6, 3.0)).item() == pytest.approx(2 / 25)  # (0² + (2/5)²)/2


def test_cosine_loss_by_hand():
    # cos .6, label 4 (y = .8): .8·.4 + .2·.6 = .44;  cos -.5, label 1 (y = .2): .2·1.5 + .8·0 = .30
    assert cosine_loss(column(3.0, -2.5), labels(4, 1)).item() == pytest.approx((0.44 + 0.30) / 2, rel=1e-6)


@pytest.mark.parametrize(("output", "label"), [(5.0, 5), (0.0, 0), (-5.0, 0)])
def test_the_cosine_loss_asks_of_the_ends_what_the_paper_asks(output, label):
    """Alike: the same direction. Not alike: no common direction, and a right angle is enough."""
    assert cosine_loss(column(output), labels(label)).item() == 0.0


def test_the_cosine_loss_pulls_together_what_is_alike_and_apart_what_is_not():
    for label, direction in ((5, -1), (0, +1)):
        outputs = column(2.0).requires_grad_()
        cosine_loss(outputs, labels(label)).backward()
        assert outputs.grad.sign().item() == direction  # the sign of dloss/dcos


@pytest.mark.parametrize("name", list(STS_LOSSES))
def test_sts_losses_keep_the_fraction_of_a_label(name):
    loss = STS_LOSSES[name]
    assert loss(column(2.6), labels(2.6)).item() != loss(column(2.6), labels(2)).item()
    assert not torch.equal(loss(column(1.0), labels(2.6)), loss(column(1.0), labels(3)))


def test_label_2_6_stays_2_6_on_its_way_to_the_loss():
    examples = [Example(str(i), ("a", "b"), label) for i, label in enumerate((2.6, 0.2))]
    batch = Dataset(TASKS["sts"], examples, BertTokenizer([*SPECIAL, "a", "b"])).batch([0, 1])
    assert batch.labels.is_floating_point()
    torch.testing.assert_close(batch.labels, torch.tensor([2.6, 0.2]))
    assert TASKS["sts"].loss(column(2.6, 0.2), batch.labels).item() == 0.0
    # what whole labels would cost: (.12² + .04²)/2
    assert TASKS["sts"].loss(column(2.6, 0.2), batch.labels.long().float()).item() == pytest.approx(0.008)


@pytest.mark.parametrize("loss", [binary_loss, regression_loss, cosine_loss])
def test_every_example_meets_its_own_label(loss):
    """(B, 1) minus (B,) would broadcast to (B, B) and compare everybody with everybody."""
    outputs, targets = column(0.5, 4.0, 2.0), labels(0, 1, 1)
    one_by_one = [loss(outputs[i : i + 1], targets[i : i + 1]).item() for i in range(3)]
    assert loss(outputs, targets).item() == pytest.approx(sum(one_by_one) / 3)


@pytest.mark.parametrize("K", [2, 5])
def test_cross_entropy_contains_the_softmax_once(K):
    """Sure and right costs nothing. With a second softmax in front it would still cost ln(1 + (K-1)/e)."""
    logits = torch.zeros(1, K)
    logits[0, 1] = 1000.0
    assert classification_loss(logits, labels(1)).item() == 0.0
    twice = classification_loss(logits.softmax(dim=-1), labels(1)).item()
    assert twice == pytest.approx(ln(1 + (K - 1) / math.e))
    assert twice == pytest.approx({2: 0.3133, 5: 0.9048}[K], abs=5e-5)


@pytest.mark.parametrize(("logit", "label"), [(1000.0, 1), (-1000.0, 0)])
def test_binary_cross_entropy_contains_the_sigmoid_once(logit, label):
    assert binary_loss(column(logit), labels(label)).item() == 0.0
    assert binary_loss(column(-logit), labels(label)).item() == 1000.0  # sure and wrong: |x|, and not infinite
    twice = binary_loss(column(logit).sigmoid(), labels(label)).item()
    assert twice == pytest.approx({1: ln(1 + 1 / math.e), 0: ln(2)}[label])  # .3133 and .6931


def test_the_table_trains_each_task_by_its_own_loss():
    """Each row's loss at an output of its shape that fits the label, and at one that does not."""
    right = {"sst": torch.eye(5)[3:4] * 99, "cfimdb": torch.eye(2)[1:] * 99, "para": column(999), "sts": column(2.6)}
    right["nli"] = torch.eye(3)[2:] * 99
    label = {"sst": 3, "cfimdb": 1, "para": 1, "sts": 2.6, "nli": 2}
    assert set(right) == set(TASKS)
    for name, task in TASKS.items():
        assert right[name].shape == (1, task.outputs)
        assert task.loss(right[name], labels(label[name])).item() == 0.0
        assert task.loss(-right[name], labels(label[name])).item() > 1


# ---------------------------------------------------------------------------------------------- divergences


def test_the_table_tells_each_task_s_answers_apart_by_its_own_divergence():
    """By hand: Σ (p - q)·log(p/q) over the answers, and for a number the squared difference on the loss's scale."""
    p, q = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]]), torch.tensor([[0.4, 0.1, 0.2, 0.2, 0.1]])
    half = torch.tensor([[0.5, 0.5]])
    three_quarters = torch.tensor([[0.25, 0.75]])
    pairs = {  # two outputs, and how far they are apart
        "sst": (p.log(), q.log(), 0.3 * ln(4) + 0.1 * ln(2) + 0.2 * ln(2)),
        "cfimdb": (half.log(), three_quarters.log(), 0.25 * ln(2) + 0.25 * ln(1.5)),
        "para": (column(0), column(ln(3)), 0.25 * ln(2) + 0.25 * ln(1.5)),  # σ(0) = ½, σ(ln 3) = ¾
        "sts": (column(3.5), column(1.0), 0.25),  # (2.5/5)²
        "nli": (torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log(), 0.5 * ln(2)),
    }
    assert set(pairs) == set(TASKS)
    for name, (a, b, expected) in pairs.items():
        divergence = TASKS[name].divergence
        assert divergence(a, b).shape == (1,)
        assert divergence(a, b).item() == pytest.approx(expected) == pytest.approx(divergence(b, a).item()), name


@pytest.mark.parametrize("name", list(TASKS))
def test_no_distance_between_equal_answers_and_each_example_its_own(name):
    torch.manual_seed(0)
    a, b = torch.randn(2, 7, TASKS[name].outputs).unbind()
    divergence = TASKS[name].divergence
    assert divergence(a, a.clone()).tolist() == [0.0] * 7
    apart = divergence(a, b)
    assert apart.shape == (7,) and (apart > 0).all()
    b[3] = a[3]
    assert divergence(a, b).tolist() == [*apart[:3].tolist(), 0.0, *apart[4:].tolist()]


def test_a_similarity_is_as_far_from_another_as_from_a_label():
    """So that λ weighs the same against the loss of STS as against the others'."""
    outputs, targets = column(2.6, 1.0, 5.5), labels(2.6, 3.0, 0.0)
    assert TASKS["sts"].divergence(outputs, targets[:, None]).mean().item() == pytest.approx(
        TASKS["sts"].loss(outputs, targets).item()
    )
    assert TASKS["sts"].divergence is regression_divergence


# ---------------------------------------------------------------------------------------------- predictions


def test_a_class_is_the_largest_logit():
    logits = torch.tensor([[0.1, 0.3, 0.2, -5.0, 0.0], [-9.0, -8.0, -7.0, -6.0, -5.0], [2.0, 1.0, 0.0, 0.0, 0.0]])
    predictions = predict_class(logits)
    assert predictions.tolist() == [1, 4, 0] and predictions.dtype == np.int64
    assert predict_class(logits.softmax(dim=-1)).tolist() == [1, 4, 0]


def test_a_question_is_a_paraphrase_from_above_one_half():
    """The boundary is at p = ½, logit 0, and ½ itself is a no, as NumPy's and PyTorch's rounding to even makes it."""
    predictions = predict_binary(column(-50, -0.5, -1e-3, 0.0, 1e-3, 0.5, 50))
    assert predictions.tolist() == [0, 0, 0, 0, 1, 1, 1] and predictions.dtype == np.float32
    # a sigmoid too many would call all of them paraphrases but the half; a logit rounded as it is, few
    assert predict_binary(column(-50, -0.5, 0.4).sigmoid()).tolist() != predict_binary(column(-50, -0.5, 0.4)).tolist()
    assert column(0.4).round().item() != predict_binary(column(0.4)).item()


def test_a_similarity_is_read_as_it_is():
    """No sigmoid, no cut to whole numbers, no clamp."""
    assert predict_number(column(-0.25, 2.5, 7.75)).tolist() == [-0.25, 2.5, 7.75]


# ---------------------------------------------------------------------------------------------- scores


def test_pearson_is_the_slope_of_standard_scores():
    """scipy's straight-line fit knows r by another road."""
    random = np.random.default_rng(3)
    x = random.uniform(0, 5, 200)
    y = (0.3 * x + random.normal(0, 1, 200)).astype(np.float32)
    assert pearson(y, x) == pytest.approx(linregress(x, y).rvalue, rel=1e-9)


def test_pearson_does_not_ask_for_the_scale_but_for_the_direction():
    x = np.array([0.2, 2.6, 3.0, 5.0])
    assert pearson(10 * x - 3, x) == pytest.approx(1.0) and pearson(-x, x) == pytest.approx(-1.0)
    sigmoid = 1 / (1 + np.exp(-x))
    assert pearson(sigmoid, x) < 0.95  # why no sigmoid may stand before it


def test_pearson_of_one_answer_for_all_is_nothing():
    x = np.array([0.2, 2.6, 3.0, 5.0])
    for constant in (np.zeros(4), np.full(4, 0.1, dtype=np.float32)):
        assert pearson(constant, x) == 0.0 and pearson(x, constant) == 0.0
    assert pearson(x[:1], x[:1]) == 0.0
    assert pearson(np.array([1, 1, 1, 1 + 1e-6]), x) == pytest.approx(linregress(x, [0, 0, 0, 1]).rvalue)


@pytest.mark.parametrize(
    ("task", "score", "normalised"),
    [("sts", -1.0, 0.0), ("sts", 0.0, 0.5), ("sts", 0.8, 0.9), ("sts", 1.0, 1.0),
     ("sst", 0.3, 0.3), ("para", 0.0, 0.0), ("cfimdb", 1.0, 1.0)],
)  # fmt: skip
def test_normalised_scores_lie_between_0_and_1(task, score, normalised):
    assert TASKS[task].normalised(score) == pytest.approx(normalised)


# ---------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("task", "file"), [("sst", "ids-sst-train.csv"), ("para", "quora-train.csv"), ("sts", "sts-train.csv")]
)
def test_a_row_describes_its_file(sample, task, file):
    """The columns are the file's, every label is in range, both ends of the range occur, and whole means whole."""
    row = TASKS[task]
    with open(sample / file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert {*row.texts, row.label} == {name for name in rows[0] if name and name != "id"}
    assert row.is_pair == ("sentence2" in rows[0])
    found = {float(r[row.label]) for r in rows}
    assert (min(found), max(found)) == row.label_range
    assert row.whole == all(label == int(label) for label in found)


def test_outputs_and_words_fit_the_labels():
    for task in TASKS.values():
        low, high = task.label_range
        classes = high - low + 1
        assert task.outputs == (1 if task.loss in (binary_loss, regression_loss) else classes)
        assert len(task.words) == (classes if task.whole else 0)
    assert TASKS["sst"].words[0] == "negative" and TASKS["sst"].words[4] == "positive"
    assert "same" in TASKS["para"].words[1]
