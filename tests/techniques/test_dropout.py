"""Dropout in blocks: its rate, its mean and variance, its independence, and when it is the same as nn.Dropout."""

import math

import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.dropout import BlockDropout, draw_in_blocks
from minbert.multitask import MultitaskBert
from tests.tasks.small_models import CONFIG

N = 1_000_000


def masks(p: float, count: int = 1, n: int = N, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What is left of ones, `count` times; returns (count, n)."""
    torch.manual_seed(1)
    layer = BlockDropout(p)
    return torch.stack([layer(torch.ones(n, dtype=dtype)) for _ in range(count)])


def errors(share: float, p: float, n: int = N) -> float:
    """How many standard errors a share of n draws is from p."""
    return abs(share - p) / math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("place", range(4))
def test_each_of_the_four_draws_of_a_number_drops_its_share(p, place):
    dropped = (masks(p)[0, place::4] == 0).double().mean().item()
    assert errors(dropped, p, N // 4) < 4


@pytest.mark.parametrize("p", [0.1, 0.3, 1 / 3])
def test_the_mean_stays(p):
    """Var(x·k/(1 - p)) = p/(1 - p) for x = 1, and what is kept has one value, which balances the share exactly."""
    ones = masks(p)[0].double()
    assert abs(ones.mean().item() - 1) < 4 * math.sqrt(p / (1 - p) / N)
    assert ones.var().item() == pytest.approx(p / (1 - p), rel=0.02)
    assert ones.unique().tolist() == [0, pytest.approx(1 / (1 - round(p * 65536) / 65536), rel=1e-7)]


def test_bfloat16_numbers_keep_their_mean():
    """1/(1 - p) rounded to bfloat16 would take .15% from every sum; rounding each product does not."""
    torch.manual_seed(0)
    x = torch.rand(N).bfloat16()
    y = BlockDropout(0.1)(x)
    assert y.dtype == torch.bfloat16
    kept = y != 0
    assert (y[kept].double().sum() / x[kept].double().sum()).item() == pytest.approx(1 / 0.9, rel=2e-4)


def test_neighbours_and_steps_are_independent():
    """The product of two masks of independent draws drops 1 - (1 - p)² of the numbers."""
    p, (one, two) = 0.3, masks(0.3, 2) != 0
    both = 1 - (1 - p) ** 2
    assert errors(1 - (one & two).double().mean().item(), both) < 4
    for shift in (1, 2, 3, 4, 5, 8, 312 * 4, 624 * 4):  # inside a number, between numbers, a round of the generator
        shared = (one[shift:] & one[:-shift]).double().mean().item()
        assert errors(1 - shared, both) < 5  # neighbours' products overlap, which makes the error a little larger


def test_the_gradient_passes_where_the_number_passes():
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    y = BlockDropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (2, 3, 5), (4, 1)], ids=str)
def test_every_shape_keeps_its_shape(shape):
    assert BlockDropout(0.5)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize("p", [0.0, 1.0, 0.5])
def test_in_evaluation_and_at_the_ends_of_the_rate_it_is_nn_dropout(p):
    x = torch.randn(100)
    ours, theirs = BlockDropout(p), nn.Dropout(p)
    if p == 0.5:
        ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))


def test_the_seed_fixes_the_draws_and_a_saved_state_goes_on_with_them():
    layer, x = BlockDropout(0.5), torch.ones(101)
    torch.manual_seed(7)
    first, state = layer(x), torch.get_rng_state()
    second = layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), second) and not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(layer(x), first)


def test_every_dropout_of_a_model_is_replaced_and_its_weights_keep_their_names():
    model = MultitaskBert(BertModel(CONFIG), ["sst", "sts"], additions={"lora": {"rank": 2, "dropout": 0.2}})
    names, rates = list(model.state_dict()), [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    draw_in_blocks(model.eval())
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert all(type(m) is BlockDropout and not m.training for m in dropouts)
    assert [m.p for m in dropouts] == rates and len(rates) > 10
    assert list(model.state_dict()) == names


def test_a_whole_bert_in_training_has_the_variance_of_its_torch_twin():
    """Over many draws, the outputs' mean and spread are those of torch's dropout."""
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**{**vars(CONFIG), "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}))
    ids, mask = torch.randint(5, 20, (1, 6)).expand(4000, 6), torch.ones(4000, 6, dtype=torch.long)
    statistics = []
    for replace in (False, True):
        if replace:
            draw_in_blocks(bert)
        with torch.no_grad():
            outputs = bert.train()(ids, mask)["pooler_output"]
        statistics.append((outputs.mean(0), outputs.std(0)))
    (mean, std), (our_mean, our_std) = statistics
    assert ((mean - our_mean).abs() < 6 * std / math.sqrt(2000)).all()
    torch.testing.assert_close(our_std, std, rtol=0.1, atol=1e-3)
