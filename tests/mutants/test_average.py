"""Wrong running means of the weights: each must fail a test that `Average` passes."""

import pytest
import torch

from minbert.average import Average
from tests.techniques import test_average as oracle


class NoRamp(Average):
    """β from the first step, so that the first weights stay in the mean for long."""

    def update(self):
        self.step = 10_000
        super().update()


class Exchanged(Average):
    """θ̄ ← (1 - β_t)·θ̄ + β_t·θ."""

    @torch.no_grad()
    def update(self):
        beta = min(self.beta, (1 + self.step) / (10 + self.step))
        self.step += 1
        for name, mean in self.mean.items():
            mean.lerp_(self.weights[name], beta)


class RampFrom2(Average):
    """The first step counts as t = 1."""

    def update(self):
        self.step = self.step or 1
        super().update()


class NotReturned(Average):
    """The model keeps the mean after the evaluation."""

    def _put(self, values):
        if values is self.mean:
            super()._put(values)


class OfFrozenWeights(Average):
    """Weights that do not train have a mean as well."""

    def __init__(self, model, beta=0.0):
        super().__init__(model, beta)
        self.mean = {name: p.detach().clone() for name, p in model.named_parameters()}


AVERAGED_MODEL = oracle.test_after_the_ramp_the_mean_is_that_of_pytorchs_averaged_model
RAMP = oracle.test_the_first_means_are_those_of_the_ramp_worked_by_hand
IN_PLACE = oracle.test_the_model_has_the_mean_inside_and_its_own_bits_again_after_an_error
FROZEN = oracle.test_frozen_weights_have_no_mean_and_beta_0_keeps_nothing
MISTAKES = {
    NoRamp: [RAMP],
    Exchanged: [RAMP, AVERAGED_MODEL],
    RampFrom2: [RAMP],
    NotReturned: [IN_PLACE],
    OfFrozenWeights: [FROZEN],
}
WRONG = [(kind, test) for kind, tests in MISTAKES.items() for test in tests]


@pytest.mark.parametrize(("kind", "test"), WRONG, ids=[f"{kind.__name__}-{test.__name__}" for kind, test in WRONG])
def test_a_wrong_mean_fails_the_test_that_guards_against_it(kind, test):
    with pytest.raises(AssertionError):
        test(kind)
