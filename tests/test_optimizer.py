"""AdamW against the course's figures, against `torch.optim.AdamW`, and against steps that one can do on paper."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from minbert.optimizer import AdamW

S = math.sqrt(1 - 0.999)  # √(1 - β₂), which both corrects the first step and would be missed in it


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


# ---------------------------------------------------------------------------------------------- the course


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


def test_the_weights_after_the_course_s_steps_are_the_course_s():
    """CMU's check of 2022 has the strictest tolerance of all years: rtol 1e-5, atol 1e-8."""
    np.testing.assert_allclose(thousand_steps_of_the_course(), COURSE, rtol=1e-5, atol=1e-8)


class RoundedDecay(AdamW):
    """The decay as a factor, p·(1 - αλ), which most libraries write: in float32, 1 - 1e-7 is 1 - 1.19e-7."""

    def step(self, closure=None):
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        super().step(closure)
        with torch.no_grad():
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
                for p in group["params"]:
                    p.mul_(1 - group["lr"] * decay)


def test_a_decay_that_is_rounded_to_a_factor_first_fails_the_strictest_course_check():
    weights = thousand_steps_of_the_course(RoundedDecay)
    np.testing.assert_allclose(weights, COURSE, rtol=1e-4)  # Stanford's tolerance
    assert not np.allclose(weights, COURSE, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("optimizer_class, low, high", [(AdamW, 0.95, 1.05), (RoundedDecay, 1.15, 1.20)])
def test_a_thousand_small_decays_in_float32_take_what_was_asked_for(optimizer_class, low, high):
    """αλ = 1e-7, 1,000 times: p·(1 - 1e-4) is left, up to p's own rounding, and not p·(1 - 1.19e-4)."""
    p = nn.Parameter(torch.linspace(0.1, 1, 1000))
    before = p.detach().double()
    optimizer = optimizer_class([p], lr=1e-3, weight_decay=1e-4)
    for _ in range(1000):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    share = ((before - p.detach().double()) / before).mean().item() / 1e-4
    assert low < share < high


# ---------------------------------------------------------------------------------------------- torch.optim.AdamW

GROUPS = (  # lr at the start, betas, eps, weight decay
    (1e-2, (0.9, 0.999), 1e-6, 0.0),
    (3e-3, (0.8, 0.99), 1e-3, 0.5),  # a large eps and a large decay: an error in either would show
    (1e-1, (0.0, 0.9), 1e-8, 0.02),
)


def thousand_steps(dtype: torch.dtype, shift_decay: bool = True, scale_eps: bool = True) -> float:
    """1,000 steps of ours and of torch's on the same gradients; the largest relative distance on the way.

    Both keep the same m and v. Write c = √(1 - β₂ᵗ). With torch's guard ε′ the two updates are

        torch   α/(1 - β₁ᵗ) · m / (√v/c + ε′)   =   α·c/(1 - β₁ᵗ) · m / (√v + c·ε′)
        ours                                        α·c/(1 - β₁ᵗ) · m / (√v + ε)

    and are one and the same update u_t for ε′ = ε/c: torch gets another eps in each step.

    The decay, with d_t = 1 - α_t·λ (here α_t is the learning rate of step t):

        ours    p_t = d_t·(p_{t-1} - u_t)           after the update, both parts
        torch   q_t = δ_t·q_{t-1} - u_t             before the update, the old value only

    Let q_t be our value between update and decay, p_{t-1} - u_t. Then p_t = d_t·q_t and q_t = d_{t-1}·q_{t-1} - u_t,
    which is torch's line with δ_t = d_{t-1} (and d_0 = 1): torch gets the decay of the step before, and what it holds
    lacks exactly the last decay. Since torch decays by 1 - α_t·λ′, this is λ′_t = λ·α_{t-1}/α_t.

    A parameter counts its own steps: one without a gradient takes none, in both. So each has a torch group to itself.
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
        rates = [s["lr"] * (1.1 + math.sin(step + i)) for i, s in enumerate(settings)]  # never twice the same
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


def test_a_thousand_steps_are_torch_s_in_float64():
    assert thousand_steps(torch.float64) < 1e-12


def test_a_thousand_steps_are_torch_s_in_float32():
    assert thousand_steps(torch.float32) < 1e-4


@pytest.mark.parametrize("part", ["shift_decay", "scale_eps"])
def test_without_either_half_of_the_derivation_they_differ(part):
    assert thousand_steps(torch.float64, **{part: False}) > 1e-3


# ---------------------------------------------------------------------------------------------- on paper


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


def test_each_parameter_counts_its_own_steps():
    """A parameter that joins late takes a first step: lr. With the others' count it would take less, or more."""
    early, late = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = AdamW([early, late], lr=0.5, eps=0)
    for step in range(3):
        early.grad, late.grad = torch.ones(1), torch.ones(1) if step == 2 else None
        optimizer.step()
    assert early.item() == pytest.approx(-1.5) and late.item() == pytest.approx(-0.5)
    assert (optimizer.state[early]["step"], optimizer.state[late]["step"]) == (3, 1)


def test_without_a_gradient_nothing_moves():
    """No update, no decay, no count: a head whose task has no batch in this step stays where it is."""
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert p.tolist() == [1, 2] and not optimizer.state[p]

    p.grad = torch.ones(2)  # nor after a first step, when m is not zero any more
    optimizer.step()
    before, p.grad = p.detach().clone(), None
    optimizer.step()
    assert torch.equal(p, before) and optimizer.state[p]["step"] == 1

    p.grad = torch.zeros(2)  # a gradient of zeros is a gradient
    optimizer.step()
    assert not torch.equal(p, before)


def test_a_learning_rate_of_zero_moves_nothing():
    assert (steps([1.0, -2.0], [1.0, 3.0], lr=0.0, weight_decay=0.1) == 0).all()


def test_a_closure_computes_the_loss_with_gradients():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = AdamW([p], lr=0.1, eps=0)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert p.item() == pytest.approx(2.9)
    assert optimizer.step() is None


@pytest.mark.parametrize(
    "bad", [{"lr": -1e-3}, {"betas": (1.0, 0.999)}, {"betas": (0.9, -0.1)}, {"eps": -1e-8}], ids=str
)
def test_a_setting_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdamW([nn.Parameter(torch.zeros(1))], **bad)


# ---------------------------------------------------------------------------------------------- saving


def train(model: nn.Module, optimizer: AdamW, steps: range):
    for step in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def resumed(keep_state: bool) -> tuple[list, list]:
    """Weights after 10 steps in one go, and after 5 steps, a file, and 5 more by another optimizer."""
    models = []
    for stop in (10, 5):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        train(model, optimizer, range(stop))
        models.append(model)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    model = nn.Linear(3, 2)
    model.load_state_dict(weights)
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    if keep_state:
        optimizer = AdamW(model.parameters(), lr=7.0)  # the settings, too, come from the file
        optimizer.load_state_dict(state)
    train(model, optimizer, range(5, 10))
    return models[0].weight.tolist(), model.weight.tolist()


def test_a_saved_optimizer_goes_on_to_the_last_bit():
    straight, after_the_break = resumed(keep_state=True)
    assert straight == after_the_break


def test_a_forgotten_state_would_show():
    straight, after_the_break = resumed(keep_state=False)
    assert straight != after_the_break


def test_a_state_of_torch_s_adamw_is_taken_up():
    """100 steps by torch, its state into ours, 100 more by both. With ε = 0 and λ = 0 the two forms are one formula."""
    theirs, ours = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    optimizers = [torch.optim.AdamW([theirs], lr=1e-2, eps=0.0, weight_decay=0.0)]
    random = torch.Generator().manual_seed(0)
    for step in range(200):
        if step == 100:
            ours.data.copy_(theirs.data)
            optimizers.append(AdamW([ours]))
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))  # torch would share m and v
        theirs.grad = torch.randn(5, generator=random, dtype=torch.float64)
        ours.grad = theirs.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert optimizers[1].state[ours]["step"] == 200


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_a_state_of_torch_s_with_a_variant_that_we_have_not_is_refused(option):
    p = nn.Parameter(torch.zeros(1))
    state = torch.optim.AdamW([p], **{option: True}).state_dict()
    with pytest.raises(ValueError, match=option):
        AdamW([p]).load_state_dict(state)
