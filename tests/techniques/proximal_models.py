"""What the tests of SMART's nearness share: a second model with θ̃, and models whose weights have moved."""

import copy

import torch
from torch import Tensor, nn

from minbert.data import Batch
from minbert.smart import Proximal
from tests.techniques.smart_models import (
    randn,
)

SHARED = {"heads": {"para": "relational", "sts": "relational"}}


def numbers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def moved(model: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """The same model, after a small random change of all that trains."""
    for i, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            parameter += size * randn(*parameter.shape, seed=seed + i).to(parameter.dtype)
    return model


def by_hand(proximal: Proximal, outputs: Tensor, divergence, batch: Batch) -> Tensor:
    """D with a second model for θ̃."""
    anchor = copy.deepcopy(proximal.model).eval()
    parameters = dict(anchor.named_parameters())
    for name, mean in proximal.average.items():
        parameters[name].data.copy_(mean)
    return divergence(outputs, anchor(batch).detach()).mean()
