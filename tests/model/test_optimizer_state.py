"""AdamW's state: whose steps it counts, what it does without a gradient, how it is saved, resumed and refused."""

import copy
import io

import pytest
import torch
from torch import nn

from minbert.optimizer import AdamW, parameter_groups
from tests.model.test_optimizer import steps


def test_each_parameter_counts_its_own_steps():
    """A parameter that joins late takes a first step, which is lr. With the others' count it would be another."""
    early, late = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = AdamW([early, late], lr=0.5, eps=0)
    for step in range(3):
        early.grad, late.grad = torch.ones(1), torch.ones(1) if step == 2 else None
        optimizer.step()
    assert early.item() == pytest.approx(-1.5) and late.item() == pytest.approx(-0.5)
    assert (optimizer.state[early]["step"], optimizer.state[late]["step"]) == (3, 1)


def test_a_parameter_without_a_gradient_gets_no_update_no_decay_and_no_count():
    """The head of a task that has no batch in a step stays as it is."""
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert p.tolist() == [1, 2] and not optimizer.state[p]

    p.grad = torch.ones(2)  # the same after a first step, when m is not zero any more
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
def test_a_setting_out_of_its_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdamW([nn.Parameter(torch.zeros(1))], **bad)


# ------------------------------------------------------------------------------------------ saving


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
        optimizer = AdamW(model.parameters(), lr=7.0)  # the file's settings replace this one
        optimizer.load_state_dict(state)
    train(model, optimizer, range(5, 10))
    return models[0].weight.tolist(), model.weight.tolist()


def test_a_saved_optimizer_resumes_bit_for_bit():
    straight, after_the_break = resumed(keep_state=True)
    assert straight == after_the_break


def test_a_state_of_torchs_adamw_can_be_loaded():
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
def test_a_state_of_torchs_adamw_with_amsgrad_or_maximize_is_refused(option):
    p = nn.Parameter(torch.zeros(1))
    state = torch.optim.AdamW([p], **{option: True}).state_dict()
    with pytest.raises(ValueError, match=option):
        AdamW([p]).load_state_dict(state)


# ------------------------------------------------------------------------------------------ parameter groups


class Small(nn.Module):
    """A model with the names of ours: bert.… and heads.…, of which a weight has two names."""

    def __init__(self):
        super().__init__()
        self.bert = nn.ModuleDict(
            {"dense": nn.Linear(2, 2), "out_layer_norm": nn.LayerNorm(2), "frozen": nn.Linear(2, 2)}
        )
        self.bert["frozen"].requires_grad_(False)
        self.heads = nn.ModuleDict({"sst": nn.Linear(2, 3), "sts": nn.Linear(2, 1)})
        self.heads["also_sst"] = self.heads["sst"]


def named_groups(**options) -> dict[tuple[float, float], set[str]]:
    """(learning rate, weight decay) → the names of its parameters."""
    model = Small()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, 1e-5, **options)
    found = [names[id(p)] for group in groups for p in group["params"]]
    assert len(found) == len(set(found))
    return {(group["lr"], group["weight_decay"]): {names[id(p)] for p in group["params"]} for group in groups}


DENSE = {"bert.dense.weight", "bert.dense.bias"}
NORM = {"bert.out_layer_norm.weight", "bert.out_layer_norm.bias"}
HEADS = {f"heads.{task}.{part}" for task in ("sst", "sts") for part in ("weight", "bias")}


def test_parameter_groups_hold_every_parameter_that_trains_once():
    assert named_groups() == {(1e-5, 0.0): DENSE | NORM | HEADS}
    assert named_groups(weight_decay=0.1) == {(1e-5, 0.1): DENSE | NORM | HEADS}


def test_heads_learn_at_their_own_rate_and_biases_and_norms_can_be_spared_the_decay():
    assert named_groups(head_lr=1e-3) == {(1e-5, 0.0): DENSE | NORM, (1e-3, 0.0): HEADS}
    biases = {name for name in DENSE | HEADS if name.endswith("bias")}
    assert named_groups(head_lr=1e-3, weight_decay=0.1, spare_norms=True) == {
        (1e-5, 0.1): DENSE - biases,
        (1e-5, 0.0): NORM | (DENSE & biases),
        (1e-3, 0.1): HEADS - biases,
        (1e-3, 0.0): HEADS & biases,
    }
