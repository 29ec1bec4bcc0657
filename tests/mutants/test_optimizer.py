"""Wrong variants of AdamW and of the learning rate: each must fail a comparison that the right one passes."""

import numpy as np
import pytest
import torch

from minbert.optimizer import AdamW
from tests.model.test_learning_rate import factors, optimizer_with, transformers_factors
from tests.model.test_optimizer import COURSE, thousand_small_decays, thousand_steps, thousand_steps_of_the_course
from tests.model.test_optimizer_state import resumed


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


def test_a_decay_that_is_rounded_to_a_factor_takes_a_fifth_too_much_in_float32():
    assert 1.15 < thousand_small_decays(RoundedDecay) < 1.20


@pytest.mark.parametrize("part", ["shift_decay", "scale_eps"])
def test_without_either_half_of_the_derivation_ours_and_torchs_differ(part):
    assert thousand_steps(torch.float64, **{part: False}) > 1e-3


def test_a_run_that_forgets_the_state_ends_elsewhere():
    straight, after_the_break = resumed(keep_state=False)
    assert straight != after_the_break


def test_our_factors_and_transformers_differ_without_the_shift():
    assert factors(10, 0.4, "linear") != pytest.approx(transformers_factors(10, 4, "linear")[:10])


def test_a_factor_on_the_current_rate_halves_it_again_and_again():
    """`set_lr` multiplies the initial rate. Multiplied with the current rate, halving three times makes an eighth."""
    optimizer = optimizer_with(1e-3)
    for _ in range(3):
        optimizer.param_groups[0]["lr"] *= 0.5
    assert optimizer.param_groups[0]["lr"] != 1e-3 * 0.5
