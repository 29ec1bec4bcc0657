"""The learning rate over a run: against its formula, and against PyTorch's and transformers' schedulers.

transformers' `get_linear_schedule_with_warmup` counts from 0/W, so its first step trains nothing. Ours counts from 1/W
and reaches the full rate one step earlier. From step W on the two are the same.
"""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minbert.optimizer import AdamW, lr_factor, set_lr

DECAYS = pytest.mark.parametrize("decay", ["constant", "linear"])


def factors(total: int, warmup: float = 0.0, decay: str = "constant") -> list[float]:
    return [lr_factor(step, total, warmup, decay) for step in range(total)]


def optimizer_with(*rates: float) -> AdamW:
    return AdamW([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in rates])


# ------------------------------------------------------------------------------------------ the formula


def test_ten_steps_worked_by_hand():
    """Ten steps, four of them warm-up: quarters up to 1, then from 6/6 down by sixths; the eleventh would be at 0."""
    assert factors(10, 0.4, "linear") == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert lr_factor(10, 10, 0.4, "linear") == 0
    assert factors(10, 0.4) == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1, 1])


def test_no_warmup_begins_at_the_full_rate():
    assert factors(5) == [1, 1, 1, 1, 1]
    assert factors(5, 0.0, "linear") == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


@DECAYS
def test_all_warmup_ends_at_the_full_rate(decay):
    assert factors(4, 1.0, decay) == pytest.approx([0.25, 0.5, 0.75, 1])


@DECAYS
def test_a_run_of_one_step_has_the_full_rate(decay):
    assert [lr_factor(0, 1, warmup, decay) for warmup in (0.0, 1.0)] == [1, 1]


def test_the_factor_is_the_formulas_in_fractions():
    """The lower of two lines, (step + 1)/W and (total - step)/(total - W), and never above 1; W need not be whole."""
    for total, sixteenths in itertools.product([1, 7, 100], range(17)):
        W = Fraction(sixteenths, 16) * total
        for step in range(total):
            up = (step + 1) / W if W else Fraction(1)
            down = (total - step) / (total - W) if W < total else Fraction(1)
            assert lr_factor(step, total, sixteenths / 16, "constant") == pytest.approx(float(min(up, 1)))
            assert lr_factor(step, total, sixteenths / 16, "linear") == pytest.approx(float(min(up, down, 1)))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from(["constant", "linear"]))
def test_the_rate_rises_then_stays_or_falls_above_zero_and_is_never_above_one(total, warmup, decay):
    xs = factors(total, warmup, decay)
    assert all(0 < x <= 1 for x in xs)
    top = xs.index(max(xs))
    assert xs[: top + 1] == sorted(xs[: top + 1])
    assert xs[top:] == sorted(xs[top:], reverse=True)
    assert decay == "linear" or max(xs) == 1


# ------------------------------------------------------------------------------------------ other libraries

RUNS = pytest.mark.parametrize(("total", "W"), [(10, 0), (10, 1), (10, 4), (64, 16), (30, 30)])


@DECAYS
@RUNS
def test_pytorchs_scheduler_with_our_factor_gives_the_same_rates(total, W, decay):
    """LambdaLR multiplies what each group began with, and so does set_lr."""
    ours, theirs = optimizer_with(1e-3, 1e-5), optimizer_with(1e-3, 1e-5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: lr_factor(step, total, W / total, decay))
    for step in range(total):
        set_lr(ours, lr_factor(step, total, W / total, decay))
        assert [g["lr"] for g in ours.param_groups] == pytest.approx([g["lr"] for g in theirs.param_groups], rel=1e-12)
        if step + 1 < total:
            theirs.step()
            scheduler.step()


def transformers_factors(total: int, W: int, decay: str) -> list[float]:
    from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

    optimizer = optimizer_with(1.0)
    if decay == "linear":
        scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=W, num_training_steps=total)
    else:
        scheduler = get_constant_schedule_with_warmup(optimizer, num_warmup_steps=W)
    xs = []
    for _ in range(total + 1):
        xs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return xs


@DECAYS
@RUNS
def test_transformers_is_one_step_behind_in_the_warmup_and_the_same_after_it(total, W, decay):
    """ours(step) = theirs(step + 1) for step < W - 1, 1 at step W - 1, and theirs(step) for step ≥ W."""
    ours, theirs = factors(total, W / total, decay), transformers_factors(total, W, decay)
    assert ours[: max(W - 1, 0)] == pytest.approx(theirs[1 : max(W, 1)])
    assert ours[W:] == pytest.approx(theirs[W:total])
    if W:
        assert ours[W - 1] == pytest.approx(1)
        assert theirs[0] == 0 and ours[0] == pytest.approx(1 / W)  # their first step is lost


# ------------------------------------------------------------------------------------------ setting the rate


def test_every_group_keeps_its_own_rate():
    optimizer = optimizer_with(1e-3, 1e-5)
    for factor in (0.5, 0.0, 0.25, 1.0):
        for _ in range(3):  # a repetition changes nothing
            set_lr(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [1e-3 * factor, 1e-5 * factor]


def test_a_step_has_the_length_of_the_rate_that_was_set():
    """AdamW's first step is the learning rate (with ε = 0)."""
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdamW([p], lr=0.1, eps=0.0)
    p.grad = torch.ones_like(p)
    set_lr(optimizer, 0.25)
    optimizer.step()
    assert p.item() == pytest.approx(-0.025)


def test_a_saved_optimizer_remembers_its_initial_rates():
    optimizer = optimizer_with(1e-3, 1e-5)
    set_lr(optimizer, 0.1)
    resumed = optimizer_with(1.0, 1.0)
    resumed.load_state_dict(optimizer.state_dict())
    set_lr(resumed, 0.5)
    rates = [group["lr"] for group in resumed.param_groups]
    assert rates == [0.5e-3, 0.5e-5] and not any(map(math.isnan, rates))
