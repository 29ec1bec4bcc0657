"""Losses and divergences on numbers worked by hand."""

import math

import pytest
import torch

from minbert.data import Dataset, Example
from minbert.tasks import (
    KINDS,
    STS_LOSSES,
    TASKS,
    binary_loss,
    classification_loss,
    cosine_loss,
    regression_divergence,
    regression_loss,
)
from minbert.tokenizer import SPECIAL, BertTokenizer
from tests.tasks.columns import column, labels, ln


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
def test_the_cosine_loss_is_0_at_cosine_1_for_label_5_and_at_cosine_0_and_below_for_label_0(output, label):
    assert cosine_loss(column(output), labels(label)).item() == 0.0


def test_the_cosine_loss_raises_the_cosine_of_label_5_and_lowers_that_of_label_0():
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
    # with whole labels the loss would be (.12² + .04²)/2
    assert TASKS["sts"].loss(column(2.6, 0.2), batch.labels.long().float()).item() == pytest.approx(0.008)


@pytest.mark.parametrize("loss", [binary_loss, regression_loss, cosine_loss])
def test_every_example_is_compared_with_its_own_label(loss):
    """(B, 1) minus (B,) would broadcast to (B, B) and compare every example with every label."""
    outputs, targets = column(0.5, 4.0, 2.0), labels(0, 1, 1)
    one_by_one = [loss(outputs[i : i + 1], targets[i : i + 1]).item() for i in range(3)]
    assert loss(outputs, targets).item() == pytest.approx(sum(one_by_one) / 3)


@pytest.mark.parametrize("K", [2, 5])
def test_cross_entropy_contains_the_softmax_once(K):
    """A right answer with probability 1 has loss 0. After a second softmax the loss would be ln(1 + (K-1)/e)."""
    logits = torch.zeros(1, K)
    logits[0, 1] = 1000.0
    assert classification_loss(logits, labels(1)).item() == 0.0
    twice = classification_loss(logits.softmax(dim=-1), labels(1)).item()
    assert twice == pytest.approx(ln(1 + (K - 1) / math.e))
    assert twice == pytest.approx({2: 0.3133, 5: 0.9048}[K], abs=5e-5)


@pytest.mark.parametrize(("logit", "label"), [(1000.0, 1), (-1000.0, 0)])
def test_binary_cross_entropy_contains_the_sigmoid_once(logit, label):
    assert binary_loss(column(logit), labels(label)).item() == 0.0
    assert (
        binary_loss(column(-logit), labels(label)).item() == 1000.0
    )  # a wrong answer has the loss |x|, which is finite
    twice = binary_loss(column(logit).sigmoid(), labels(label)).item()
    assert twice == pytest.approx({1: ln(1 + 1 / math.e), 0: ln(2)}[label])  # .3133 and .6931


def test_each_row_of_the_table_has_the_loss_of_its_task():
    """Each row's loss at an output of its shape that fits the label, and at one that does not."""
    right = {"sst": torch.eye(5)[3:4] * 99, "cfimdb": torch.eye(2)[1:] * 99, "para": column(999), "sts": column(2.6)}
    right["nli"] = torch.eye(3)[2:] * 99
    label = {"sst": 3, "cfimdb": 1, "para": 1, "sts": 2.6, "nli": 2}
    assert set(right) == set(TASKS)
    for name, task in TASKS.items():
        assert right[name].shape == (1, task.outputs)
        assert task.loss(right[name], labels(label[name])).item() == 0.0
        assert task.loss(-right[name], labels(label[name])).item() > 1


# ------------------------------------------------------------------------------------------ divergences


def test_each_row_of_the_table_has_the_divergence_of_its_task():
    """By hand: Σ (p - q)·log(p/q) over the answers, and for a number the squared difference on the loss's scale."""
    p, q = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]]), torch.tensor([[0.4, 0.1, 0.2, 0.2, 0.1]])
    half = torch.tensor([[0.5, 0.5]])
    three_quarters = torch.tensor([[0.25, 0.75]])
    pairs = {  # two outputs, and their divergence
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
def test_equal_outputs_have_divergence_0_and_each_example_has_its_own(name):
    torch.manual_seed(0)
    a, b = torch.randn(2, 7, TASKS[name].outputs).unbind()
    divergence = TASKS[name].divergence
    assert divergence(a, a.clone()).tolist() == [0.0] * 7
    apart = divergence(a, b)
    assert apart.shape == (7,) and (apart > 0).all()
    b[3] = a[3]
    assert divergence(a, b).tolist() == [*apart[:3].tolist(), 0.0, *apart[4:].tolist()]


def test_the_divergence_of_two_similarities_is_the_loss_of_one_with_the_other_as_label():
    """So that λ weighs the same against the loss of STS as against the others'."""
    outputs, targets = column(2.6, 1.0, 5.5), labels(2.6, 3.0, 0.0)
    assert TASKS["sts"].divergence(outputs, targets[:, None]).mean().item() == pytest.approx(
        TASKS["sts"].loss(outputs, targets).item()
    )
    assert KINDS["number"].divergence is regression_divergence
