"""AdamW against the course's figures, against `torch.optim.AdamW`, and against steps that can be computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from minbert.optimizer import AdamW

S = math.sqrt(1 - 0.999)  # √(1 - β₂), the correction of the first step


def steps(p: list[float], gradients: list[float], optimizer=AdamW, **options) -> np.ndarray:
    """How far each of `gradients` moves p, downhill counted positive: (steps, len(p)), in units of p."""
    p = nn.Parameter(torch.tensor(p, dtype=torch.float64))
    optimizer = optimizer([p], **options)
    positions = [p.detach().clone()]
    for g in gradients:
        p.grad = torch.full_like(p, g)
        optimizer.step()
        positions.append(p.detach().clone())
    return -torch.stack(positions).diff(dim=0).numpy()


def first_step(g: float, optimizer=AdamW, **options) -> float:
    """The first step from p = 0 with lr 1e-3, divided by lr."""
    return steps([0.0], [g], optimizer, **{"lr": 1e-3, "eps": 1e-6} | options).item() / 1e-3


# ------------------------------------------------------------------------------------------ the course


def thousand_steps_of_the_course(optimizer_class=AdamW) -> np.ndarray:
    """The course's regression: a linear model learns (x₀ + x₁, -x₂) from 1,000 samples; its weights afterwards."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    optimizer = optimizer_class(model.parameters(), lr=1e-3, weight_decay=1e-4, correct_bias=True)
    for _ in range(1000):
        optimizer.zero_grad()
        x = torch.FloatTensor(rng.uniform(size=[3]))
        y = torch.stack([x[0] + x[1], -x[2]])
        ((y - model(x)) ** 2).sum().backward()
        optimizer.step()
    return model.weight.detach().numpy()


COURSE = [[0.55482787, 0.86665666, 0.07291982], [-0.44724506, -0.2951228, -0.2717272]]


def test_the_weights_after_a_thousand_steps_are_the_courses():
    """CMU's check of 2022 has the strictest tolerance of all years: rtol 1e-5, atol 1e-8."""
    np.testing.assert_allclose(thousand_steps_of_the_course(), COURSE, rtol=1e-5, atol=1e-8)


def thousand_small_decays(optimizer_class=AdamW) -> float:
    """αλ = 1e-7, 1,000 times on zero gradients: the share of p that is gone, in units of 1e-4."""
    p = nn.Parameter(torch.linspace(0.1, 1, 1000))
    before = p.detach().double()
    optimizer = optimizer_class([p], lr=1e-3, weight_decay=1e-4)
    for _ in range(1000):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    return ((before - p.detach().double()) / before).mean().item() / 1e-4


def test_a_thousand_small_decays_in_float32_take_a_ten_thousandth():
    """p·(1 - 1e-4) is left, up to p's own rounding. As a factor, 1 - 1e-7 would be rounded to 1 - 1.19e-7."""
    assert 0.95 < thousand_small_decays() < 1.05


# ------------------------------------------------------------------------------------------ torch.optim.AdamW

GROUPS = (  # lr at the start, betas, eps, weight decay
    (1e-2, (0.9, 0.999), 1e-6, 0.0),
    (3e-3, (0.8, 0.99), 1e-3, 0.5),  # a large eps and a large decay: an error in either would show
    (1e-1, (0.0, 0.9), 1e-8, 0.02),
)


def thousand_steps(dtype: torch.dtype, shift_decay: bool = True, scale_eps: bool = True) -> float:
    """1,000 steps of ours and of torch's on the same gradients; the largest relative distance on the way.

    Both keep the same m and v. Write c = √(1 - β₂ᵗ). With ε′ for torch's ε the two updates are

        torch   α/(1 - β₁ᵗ) · m / (√v/c + ε′)   =   α·c/(1 - β₁ᵗ) · m / (√v + c·ε′)
        ours                                        α·c/(1 - β₁ᵗ) · m / (√v + ε)

    and are one and the same update u_t for ε′ = ε/c: torch gets another eps in each step.

    The decay, with d_t = 1 - α_t·λ (here α_t is the learning rate of step t):

        ours    p_t = d_t·(p_{t-1} - u_t)           after the update, both parts
        torch   q_t = δ_t·q_{t-1} - u_t             before the update, the old value only

    Let q_t be our value between update and decay, p_{t-1} - u_t. Then p_t = d_t·q_t and q_t = d_{t-1}·q_{t-1} - u_t,
    which is torch's line with δ_t = d_{t-1} (and d_0 = 1): torch gets the decay of the step before, and what it holds
    lacks exactly the last decay. Since torch decays by 1 - α_t·λ′, this is λ′_t = λ·α_{t-1}/α_t.

    A parameter counts its own steps, and takes none without a gradient, in both. So each has a torch group to itself.
    """
    random = torch.Generator().manual_seed(1)
    start = [torch.randn(3, 2, generator=random, dtype=torch.float64).to(dtype) for _ in range(2 * len(GROUPS))]
    ours = [nn.Parameter(p.clone()) for p in start]
    theirs = [nn.Parameter(p.clone()) for p in start]
    settings = [dict(lr=lr, betas=betas, eps=eps, weight_decay=decay) for lr, betas, eps, decay in GROUPS]
    our_adamw = AdamW([{"params": ours[2 * i : 2 * i + 2], **s} for i, s in enumerate(settings)])
    their_adamw = torch.optim.AdamW([{"params": [p], **settings[i // 2]} for i, p in enumerate(theirs)])

    count, last_lr, d = [0] * len(ours), [0.0] * len(ours), [1.0] * len(ours)
    worst = 0.0
    for step in range(1000):
        rates = [s["lr"] * (1.1 + math.sin(step + i)) for i, s in enumerate(settings)]  # another rate in every step
        for group, lr in zip(our_adamw.param_groups, rates, strict=True):
            group["lr"] = lr
        for i, (p, q, group) in enumerate(zip(ours, theirs, their_adamw.param_groups, strict=True)):
            p.grad = q.grad = None
            if i % 2 and step % 3 != 1:  # every second parameter has a gradient in every third step only
                continue
            g = torch.randn(3, 2, generator=random, dtype=torch.float64) * 10 ** (-3 * (i % 3))
            p.grad, q.grad = g.to(dtype), g.to(dtype)
            count[i] += 1
            (lr, s) = (rates[i // 2], settings[i // 2])
            group["lr"] = lr
            if scale_eps:
                group["eps"] = s["eps"] / math.sqrt(1 - s["betas"][1] ** count[i])
            if shift_decay:
                group["weight_decay"] = s["weight_decay"] * last_lr[i] / lr
                d[i] = 1 - lr * s["weight_decay"]
                last_lr[i] = lr
        our_adamw.step()
        their_adamw.step()
        for p, q, last_decay in zip(ours, theirs, d, strict=True):
            distance = (p - q * last_decay).norm() / p.norm()
            worst = max(worst, distance.item())
    assert count[0] == 1000 and count[1] == 333
    return worst


def test_a_thousand_steps_equal_torchs_in_float64():
    assert thousand_steps(torch.float64) < 1e-12


def test_a_thousand_steps_equal_torchs_in_float32():
    assert thousand_steps(torch.float32) < 1e-4


# ------------------------------------------------------------------------------------------ by hand


def test_weight_decay_is_not_a_gradient():
    """With g = 0 there is no update, only p·lr·λ. As an L2 term it would be normalised away, to lr for any p."""
    options = dict(lr=1e-3, weight_decay=0.1)
    np.testing.assert_allclose(steps([3.0, 30.0], [0.0], **options)[0], [3e-4, 3e-3], rtol=1e-9)
    coupled = steps([3.0, 30.0], [0.0], torch.optim.Adam, **options)[0]
    np.testing.assert_allclose(coupled, [1e-3, 1e-3], rtol=1e-6)


def test_weight_decay_takes_the_plain_learning_rate_after_the_update():
    """p = 2, g = 1, ε = 0: the update is lr exactly, then (2 - .1)·(1 - .1·.5) = 1.805; before it, 1.8."""
    assert 2 - steps([2.0], [1.0], lr=0.1, eps=0.0, weight_decay=0.5).item() == pytest.approx(1.805, rel=1e-12)


def test_the_first_step_is_the_learning_rate():
    """Bias correction makes m̂ = g and v̂ = g². Without it: (1-β₁)/√(1-β₂) = 3.16. Without the root: .032."""
    assert first_step(1.0) == pytest.approx(1 / (1 + 1e-6 / S), rel=1e-9)
    assert first_step(1.0) == pytest.approx(1, rel=1e-4)
    assert first_step(-7.0) == pytest.approx(-1, rel=1e-4)


def test_correct_bias_false_leaves_m_and_v_as_they_are():
    assert first_step(1.0, correct_bias=False) == pytest.approx(0.1 / (S + 1e-6), rel=1e-9)
    assert first_step(1.0, correct_bias=False) == pytest.approx(3.162, rel=1e-3)


def test_eps_stands_outside_the_root_and_is_not_corrected():
    """g = 1e-4: s·g/(s·g + ε), s = √(1-β₂), is .760. Inside the root it would be .0995; torch's form gives .990."""
    assert first_step(1e-4) == pytest.approx(S * 1e-4 / (S * 1e-4 + 1e-6), rel=1e-9)
    assert first_step(1e-4) == pytest.approx(0.760, abs=5e-4)
    assert first_step(1e-4, torch.optim.AdamW) == pytest.approx(0.990, abs=5e-4)


def test_three_steps_of_a_known_sequence():
    """g = 1, -1, 1 with ε = 0: v̂ stays 1, and m̂ = 1, (.09-.1)/(1-.9²) = -1/19, (.081-.09+.1)/(1-.9³) = 91/271."""
    np.testing.assert_allclose(steps([0.0], [1, -1, 1], lr=0.5, eps=0)[:, 0], [0.5, -0.5 / 19, 0.5 * 91 / 271])
