"""SMART's nearness: what it leaves as it was, which parameters it holds, how it is saved."""

import copy
import io

import pytest
import torch
from torch import nn

from minbert.smart import Proximal, bernoulli_symmetric_kl, symmetric_kl
from minbert.tasks import TASKS
from tests.techniques.proximal_models import SHARED, by_hand, moved, numbers
from tests.techniques.smart_models import W, case, close, linear_model, mixed_case, state


def test_computing_the_distance_leaves_the_models_parameters(kind=Proximal):
    """They are the same parameters with the same numbers, also in a layer that two heads share."""
    here = case("para", heads=SHARED["heads"])
    proximal = kind(here.model, (0.5, 0.5))
    proximal.update()
    before = [(name, p, p.detach().clone()) for name, p in moved(here.model).named_parameters()]
    proximal(here.f(here.x), TASKS["para"].divergence, here.batch)
    after = dict(here.model.named_parameters())
    assert all(after[name] is p and torch.equal(p, value) for name, p, value in before) and len(after) == len(before)
    assert not any(torch.equal(proximal.average[name], value) for name, _, value in before)


def test_distance_and_update_leave_the_model_and_the_generators_as_they_were():
    """The gradient goes into the outputs and through them into θ, and never into θ̃."""
    here = mixed_case()
    model, batch = here.model, here.batch
    proximal = Proximal(model, (0.5, 0.5))
    moved(model)
    before, theta = state(model), numbers(model)
    y = torch.zeros(3, 1, requires_grad=True)
    D = proximal(y, bernoulli_symmetric_kl, batch)
    D.backward()
    assert y.grad.abs().sum() > 0 and state(model) == before
    proximal.update()
    assert state(model) == before and all(torch.equal(p, theta[name]) for name, p in model.named_parameters())
    assert not any(mean.requires_grad for mean in proximal.average.values())
    with pytest.raises(AttributeError):
        proximal(y, bernoulli_symmetric_kl, "no batch")
    assert state(model) == before
    assert all(torch.equal(p, theta[name]) for name, p in model.named_parameters())  # θ is back after an error


@pytest.mark.parametrize("options", [{}, SHARED])
def test_only_what_trains_has_a_mean(options):
    """It holds one copy of each parameter that trains, and nothing of what is frozen."""
    here = case("para", dtype=torch.float32, **options)
    model = here.model
    assert sum(mean.numel() for mean in Proximal(model).average.values()) == sum(p.numel() for p in model.parameters())
    model.bert.requires_grad_(False)
    proximal = Proximal(model, (0.9, 0.9))
    heads = numbers(model.heads)
    assert proximal.average.keys() == {f"heads.{name}" for name in heads}
    places = {p.data_ptr() for p in model.parameters()}
    assert not places & {mean.data_ptr() for mean in proximal.average.values()}  # copies, not θ itself
    moved(model)
    proximal.update()
    for name, mean in proximal.average.items():
        close(mean, 0.9 * heads[name.removeprefix("heads.")] + 0.1 * numbers(model)[name], rtol=1e-5, atol=1e-6)
    y = model(here.batch)
    close(proximal(y, bernoulli_symmetric_kl, here.batch), by_hand(proximal, y, bernoulli_symmetric_kl, here.batch))


def test_a_saved_mean_continues():
    here = case("sst", dtype=torch.float32)
    proximal = Proximal(here.model, (0.9, 0.9))
    moved(here.model)
    proximal.update()
    file = io.BytesIO()
    torch.save(proximal.state_dict(), file)
    file.seek(0)
    again = Proximal(here.model, (0.9, 0.9))  # it begins at the present weights
    y = here.model(here.batch).detach()
    assert again(y, symmetric_kl, here.batch) == 0
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again(y, symmetric_kl, here.batch) == proximal(y, symmetric_kl, here.batch) > 0
    for _ in range(2):
        moved(here.model)
        for each in (proximal, again):
            each.update()
        assert all(torch.equal(mean, again.average[name]) for name, mean in proximal.average.items())


def test_a_loaded_mean_is_a_copy():
    one, other = (Proximal(linear_model(w), (0.5, 0.5)) for w in (W, 3 * W))
    other.load_state_dict(one.state_dict())
    close(other.average["weight"], W[None])
    other.update()
    close(other.average["weight"], 2 * W[None])
    close(one.average["weight"], W[None])


def test_the_mean_of_another_model_is_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    proximal = Proximal(model)
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    right = proximal.state_dict()
    for wrong in ({}, Proximal(frozen).state_dict(), right | {"2.weight": torch.zeros(1)}, right | {"1.bias": W}):
        before = copy.deepcopy(proximal.average)
        with pytest.raises(ValueError, match="not the average of this model"):
            proximal.load_state_dict(wrong)
        assert all(torch.equal(mean, before[name]) for name, mean in proximal.average.items())
