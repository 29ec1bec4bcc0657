"""Wrong variants of SMART's nearness: each must fail a test that `Proximal` passes."""

import pytest
import torch

from minbert.smart import Proximal, exact
from tests.techniques import test_proximal as oracle
from tests.techniques.test_proximal_state import (
    test_computing_the_distance_leaves_the_models_parameters as check_parameters_are_left,
)


class Swapped(Proximal):
    """Wrong: θ̃ ← β·θ + (1 - β)·θ̃."""

    def update(self, progress: float = 1.0):
        beta = self.betas[0] if progress < 0.1 else self.betas[1]
        for name, mean in self.average.items():
            mean.lerp_(dict(self.model.named_parameters())[name].detach(), beta)


class OneBeta(Proximal):
    """Wrong: β is the second from the start."""

    def update(self, progress: float = 1.0):
        super().update(1.0)


class Late(Proximal):
    """Wrong: the first β up to half of the training."""

    def update(self, progress: float = 1.0):
        super().update(progress / 5)


class NoMean(Proximal):
    """Wrong: θ̃ is θ itself."""

    def __init__(self, *args):
        super().__init__(*args)
        self.average = {name: p.detach() for name, p in self.model.named_parameters()}


class NoExact(Proximal):
    """Wrong: f(x; θ̃) is computed with dropout."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad():
            return divergence(outputs, torch.func.functional_call(self.model, self.average, inputs)).mean()


class Untied(Proximal):
    """Wrong: of a weight that has two names, one is θ̃'s and the other θ's."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            anchor = torch.func.functional_call(self.model, self.average, inputs, tie_weights=False)
        return divergence(outputs, anchor).mean()


class OfItself(Proximal):
    """Wrong: f(x; θ) on both sides."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            return divergence(outputs, self.model(*inputs)).mean()


class LeavesItselfBehind(Proximal):
    """Wrong: PyTorch's own exchange of weights is not undone in a module that has two names."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            anchor = torch.func.functional_call(self.model, self.average, inputs)
        return divergence(outputs, anchor).mean()


@pytest.mark.parametrize("wrong", [Swapped, OneBeta, Late, NoMean])
def test_a_wrong_mean_is_not_the_closed_form(wrong):
    with pytest.raises(AssertionError):
        oracle.test_the_running_mean_in_closed_form(wrong)


@pytest.mark.parametrize("wrong", [NoExact, OfItself])
def test_a_wrong_distance_is_not_that_from_a_second_model(wrong):
    with pytest.raises(AssertionError):
        oracle.test_nearness_is_the_distance_from_a_second_model("para", "separate", wrong)


def test_a_weight_with_two_names_that_is_exchanged_once_is_seen():
    with pytest.raises(AssertionError):
        oracle.test_nearness_where_a_weight_is_used_twice(Untied)


def test_weights_that_are_not_exchanged_back_are_seen():
    with pytest.raises((AssertionError, KeyError)):
        check_parameters_are_left(LeavesItselfBehind)
