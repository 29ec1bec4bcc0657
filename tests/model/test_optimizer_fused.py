"""The fused form of AdamW against the readable one, which test_optimizer.py compares with others."""

import copy
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from minbert.optimizer import AdamW
from tests.model.test_optimizer import COURSE, thousand_small_decays, thousand_steps_of_the_course

SHAPES = [(40, 30), (64,), (3, 5, 7), (1,)]
GROUPS = [  # of options, and of how many steps each of its parameters has a gradient in one
    ({"weight_decay": 0.1}, 1),
    ({"lr": 3e-2, "betas": (0.5, 0.9), "eps": 1e-3}, 3),
    ({"correct_bias": False, "weight_decay": 0.5}, 1),
    ({"betas": (0.0, 0.99), "lr": 1e-4}, 2),
]


def parameters(dtype: torch.dtype, seed: int = 0) -> list[list[nn.Parameter]]:
    """Parameters of every shape for every group."""
    random = torch.Generator().manual_seed(seed)
    return [[nn.Parameter(torch.randn(s, generator=random, dtype=dtype)) for s in SHAPES] for _ in GROUPS]


def optimizer(groups: list[list[nn.Parameter]], fused: bool) -> AdamW:
    return AdamW([{"params": p, **options} for p, (options, _) in zip(groups, GROUPS, strict=True)], fused=fused)


def give_gradients(groups: list[list[nn.Parameter]], step: int):
    """The same gradients for the same step, of many sizes; every third parameter of some groups has none."""
    random = torch.Generator().manual_seed(step)
    for group, (_, every) in zip(groups, GROUPS, strict=True):
        for i, p in enumerate(group):
            g = torch.randn(p.shape, generator=random, dtype=torch.float64) * 10.0 ** -(i + step % 5)
            p.grad = g.to(p.dtype) if (step + i) % every == 0 else None


def distance(ours: list[list[nn.Parameter]], theirs: list[list[nn.Parameter]]) -> float:
    """The largest relative distance of two sets of parameters."""
    pairs = [(p, q) for ps, qs in zip(ours, theirs, strict=True) for p, q in zip(ps, qs, strict=True)]
    return max(((p - q).norm() / q.norm()).item() for p, q in pairs)


def apart(dtype: torch.dtype, steps: int = 300) -> float:
    """How far the two forms are apart after many steps; the fused one is saved and loaded on the way."""
    fused, readable = parameters(dtype), parameters(dtype)
    ours, theirs = optimizer(fused, True), optimizer(readable, False)
    for step in range(steps):
        if step == steps // 2:
            state = copy.deepcopy(ours.state_dict())
            ours = optimizer(fused, False)  # the saved options replace these
            ours.load_state_dict(state)
        for groups, one in ((fused, ours), (readable, theirs)):
            give_gradients(groups, step)
            one.step()
    counts = [{one.state[p]["step"] for p in chain(*groups)} for one, groups in ((ours, fused), (theirs, readable))]
    assert counts[0] == counts[1] and len(counts[0]) > 1
    return distance(fused, readable)


def test_many_steps_of_both_forms_are_the_same_in_float64():
    assert apart(torch.float64) < 1e-13


def test_many_steps_of_both_forms_are_the_same_in_float32():
    """Each step rounds once or twice; 300 steps of groups whose weights decay by half of a percent."""
    assert apart(torch.float32) < 1e-6


def test_one_step_of_both_forms_differs_by_the_last_bit_at_most():
    fused, readable = parameters(torch.float32), parameters(torch.float32)
    for groups, form in ((fused, True), (readable, False)):
        give_gradients(groups, 0)
        optimizer(groups, form).step()
    assert distance(fused, readable) < 1e-7


def test_the_kernels_own_eps_would_be_another():
    """torch's ε stands behind the correction of v. The first step of a small gradient shows it."""
    p, q = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    for one in (AdamW([p], fused=True), torch.optim.AdamW([q], lr=1e-3, eps=1e-6, weight_decay=0.0, fused=True)):
        p.grad = q.grad = torch.tensor([1e-4])
        one.step()
    assert p.item() / q.item() == pytest.approx(0.760 / 0.990, abs=1e-3)


def test_the_fused_form_passes_the_courses_check_and_its_small_decays():
    class Fused(AdamW):
        def __init__(self, params, **options):
            super().__init__(params, **options, fused=True)

    np.testing.assert_allclose(thousand_steps_of_the_course(Fused), COURSE, rtol=1e-5, atol=1e-8)
    assert 0.95 < thousand_small_decays(Fused) < 1.05


def test_what_does_not_lie_in_order_is_updated_by_the_readable_form():
    """The kernel goes through memory: a transposed gradient would be given to other weights."""
    start, g = torch.randn(4, 6), torch.randn(6, 4)
    results = []
    for fused in (True, False):
        p = nn.Parameter(start.clone())
        one = AdamW([p], fused=fused)
        for _ in range(3):
            p.grad = g.T
            assert not p.grad.is_contiguous()
            one.step()
        results.append(p.detach())
        assert one.state[p]["step"] == 3
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_the_fused_form_is_the_kernel(monkeypatch):
    """Where it could be used the readable form is not, and the other way round."""
    calls = []
    real = torch._fused_adamw_
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *args, **options: calls.append(1) or real(*args, **options))
    for fused, count in ((True, len(GROUPS)), (False, 0)):
        groups = parameters(torch.float32)
        for p in chain(*groups):
            p.grad = torch.ones_like(p)
        calls.clear()
        optimizer(groups, fused).step()
        assert len(calls) == count


@pytest.mark.parametrize("fused", [True, False])
def test_a_copy_of_an_optimizer_keeps_its_form(fused):
    p = nn.Parameter(torch.ones(2))
    assert copy.deepcopy(AdamW([p], fused=fused)).param_groups[0]["fused"] is fused
