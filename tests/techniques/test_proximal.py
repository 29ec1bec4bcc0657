"""SMART's nearness: θ̃ is the running mean in closed form, and D the distance from a second model that has θ̃."""

import pytest
import torch
from torch import Tensor, nn

from minbert.smart import Proximal, exact, squared_error, symmetric_kl
from minbert.tasks import TASKS
from tests.techniques.proximal_models import SHARED, by_hand, moved
from tests.techniques.smart_models import W, case, close, every_way, linear_model, randn


def test_the_running_mean_in_closed_form(kind=Proximal, n=40, betas=(0.9, 0.97)):
    """θ̃_n = Σ_k (1-β_k)·β_{k+1}…β_n·θ_k + β_1…β_n·θ_0, with the first β in the first tenth.

    For a single β: (1-β)·Σ_k β^(n-k)·θ_k + βⁿ·θ_0.
    """
    for two in (betas, (0.9, 0.9)):
        model = nn.Linear(3, 2)
        thetas = [0.5 * randn(2, 3, seed=k).float() for k in range(n + 1)]
        model.weight.data.copy_(thetas[0])
        proximal = kind(model, two)
        used = []
        for k in range(1, n + 1):
            model.weight.data.copy_(thetas[k])
            progress = (k - 1) / n
            proximal.update(progress)
            used.append(two[0] if k <= n // 10 else two[1])
        weights = [torch.tensor(used[k:]).double().prod() for k in range(n + 1)]  # β_{k+1}…β_n
        closed = weights[0] * thetas[0].double()
        for k in range(1, n + 1):
            closed = closed + (1 - used[k - 1]) * weights[k] * thetas[k].double()
        close(proximal.average["weight"].double(), closed, rtol=0, atol=1e-6)
        if two[0] == two[1]:
            plain = sum(0.1 * 0.9 ** (n - k) * thetas[k].double() for k in range(1, n + 1)) + 0.9**n * thetas[0]
            close(closed, plain, rtol=1e-5)


def test_the_papers_betas_are_the_default():
    """One step from 0 to 1: θ̃ is 1 - β, .01 in the first tenth and .001 from then on, and by default at any time."""
    for progress, expected in (((0.0,), 0.01), ((0.0999,), 0.01), ((0.1,), 0.001), ((1.0,), 0.001), ((), 0.001)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        proximal = Proximal(model)
        nn.init.ones_(model.weight)
        proximal.update(*progress)
        assert proximal.average["weight"].item() == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------ the distance


@every_way
def test_nearness_is_the_distance_from_a_second_model(task, pairs, kind=Proximal, options=None):
    """It is 0 at the start, then the distance from a copy of the model with θ̃, in value and in the gradient."""
    here = case(task, pairs, dropout=0.5, dtype=torch.float32, **(options or {}))
    model, batch, divergence = here.model.train(), here.batch, TASKS[task].divergence
    proximal = kind(model, (0.9, 0.9))

    def outputs() -> Tensor:
        with exact(model):
            return model(batch)

    assert proximal(outputs(), divergence, batch) == 0
    for k in range(3):
        moved(model, seed=100 * k)
        proximal.update()
    y = outputs().detach().requires_grad_()
    ours, expected = proximal(y, divergence, batch), by_hand(proximal, y, divergence, batch)
    assert expected > 1e-6
    close(ours, expected, rtol=1e-5)
    close(*(torch.autograd.grad(D, y)[0] for D in (ours, expected)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("task", ["para", "sts"])
def test_nearness_where_two_heads_share_a_layer(task):
    test_nearness_is_the_distance_from_a_second_model(task, "separate", options=SHARED)


def test_nearness_where_a_weight_is_used_twice(kind=Proximal):
    """f(x) = W·tanh(W·x), one weight under two names (as in a language model's embedding and output layer)."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    proximal, x, y = kind(model, (0.5, 0.5)), randn(4, 3), randn(4, 3, seed=1)
    old = model[0].weight.detach().clone()
    proximal.update()
    moved(model)
    proximal.update()
    mean = 0.5 * (old + model[0].weight)
    assert list(proximal.average) == ["0.weight"]
    close(proximal(y, squared_error, x), (y - (x @ mean.T).tanh() @ mean.T).square().sum(dim=1).mean(), rtol=1e-6)


def test_nearness_inside_autocast_is_the_same():
    here = case("sst", dtype=torch.float32)
    proximal = Proximal(here.model)
    y = here.model(here.batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert proximal(y, symmetric_kl, here.batch) == 0
        assert not torch.equal(here.model(here.batch), y)


def test_the_outputs_of_the_mean_have_no_gradient():
    """D = (y - f̃(x))². Neither x nor a parameter that was frozen when the mean began gets a gradient."""
    model, x = linear_model(W), randn(4, 6).requires_grad_()
    model.bias.requires_grad_(False)
    proximal = Proximal(model)
    model.bias.requires_grad_()
    y = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    D = proximal(y, squared_error, x)
    gradients = torch.autograd.grad(D, (y, x, model.weight, model.bias), allow_unused=True)
    close(gradients[0], -2 * (x @ W + 0.3)[:, None] / 4)
    assert gradients[1:] == (None, None, None)


def distance_trained(mu: float) -> float:
    """How far the outputs have moved after 60 steps with a loss that always pulls them up."""
    model, x = linear_model(W), randn(8, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    proximal, first = Proximal(model, (0.99, 0.99)), model(x).detach()
    for _ in range(60):
        y = model(x)
        loss = -y.mean() + mu * proximal(y, squared_error, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        proximal.update()
    return (model(x) - first).abs().max().item()


def test_a_large_weight_keeps_the_model_near():
    """μ·(y - ỹ)² balances a pull of 1 at y - ỹ = 1/2μ, and ỹ follows by a hundredth of that a step."""
    assert distance_trained(1e3) < 0.1 * distance_trained(0.0)
