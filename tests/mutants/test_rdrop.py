"""Wrong variants of R-Drop, as public code has them: each must fail a test that `RDropTerm` passes."""

import pytest
import torch.nn.functional as F

from minbert.rdrop import RDropTerm, r_drop
from minbert.smart import exact, symmetric_kl
from tests.techniques import test_rdrop as oracle


class Variant(RDropTerm):
    """R-Drop with its parts as methods, so that a subclass can get one wrong."""

    def __call__(self, first):
        second = self.second(first)
        distance = self.distance(first, second)
        return (second.loss - first.loss) / 2 + self.weight * distance, {"distance": distance}

    def second(self, first):
        return first.again()

    def distance(self, first, second):
        return r_drop(first.logits, second.logits, first.divergence)


class SecondDetached(Variant):
    """The second pass is a fixed target."""

    def distance(self, first, second):
        return r_drop(first.logits, second.logits.detach(), first.divergence)


class FirstDetached(Variant):
    def distance(self, first, second):
        return r_drop(first.logits.detach(), second.logits, first.divergence)


class SoftmaxOfOneLogit(Variant):
    """The one logit of a yes-or-no answer goes through a softmax, which is 1 whatever the logit is."""

    def distance(self, first, second):
        return r_drop(first.logits, second.logits, symmetric_kl)


class OneWay(Variant):
    """KL(p‖q) alone."""

    def distance(self, first, second):
        log_p, log_q = (one.logits.log_softmax(dim=-1) for one in (first, second))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) / 2


class SecondInEval(Variant):
    """The second pass has no dropout."""

    def second(self, first):
        with exact(first.model):
            return first.again()


class NoHalf(Variant):
    def distance(self, first, second):
        return 2 * super().distance(first, second)


class Sum(Variant):
    """The sum over the examples."""

    def distance(self, first, second):
        return len(first.logits) * super().distance(first, second)


class FirstLossAlone(Variant):
    """L(f₁) in place of ½·(L(f₁) + L(f₂))."""

    def __call__(self, first):
        distance = self.distance(first, self.second(first))
        return self.weight * distance, {"distance": distance}


class SameMasks(Variant):
    """Both passes have the same dropout, so that they never differ."""

    def second(self, first):
        return first


KIND = {SoftmaxOfOneLogit: "yes_no", OneWay: "classes"}  # the kind of outputs that the mistake concerns
LOSS = oracle.test_the_loss_is_that_of_the_formula
GRADIENT = oracle.test_the_gradient_flows_through_both_passes
DIFFERENCES = oracle.test_the_gradient_is_that_of_finite_differences
ALPHA_0 = oracle.test_alpha_0_is_the_mean_of_two_plain_losses
EXCHANGE = oracle.test_exchanging_the_two_passes_changes_nothing
EQUAL = oracle.test_equal_masks_give_the_plain_loss_and_its_gradient
MISTAKES = {
    SecondDetached: [GRADIENT, DIFFERENCES, EXCHANGE],
    FirstDetached: [GRADIENT, DIFFERENCES, EXCHANGE],
    SoftmaxOfOneLogit: [LOSS, GRADIENT],
    OneWay: [LOSS, GRADIENT, EXCHANGE],
    SecondInEval: [LOSS, GRADIENT, ALPHA_0, EQUAL, EXCHANGE],
    NoHalf: [LOSS, GRADIENT],
    Sum: [LOSS, GRADIENT],
    FirstLossAlone: [LOSS, GRADIENT, ALPHA_0, EXCHANGE],
    SameMasks: [LOSS, GRADIENT, ALPHA_0, EXCHANGE],
}
WRONG = [(term, test) for term, tests in MISTAKES.items() for test in tests]


@pytest.mark.parametrize(("term", "test"), WRONG, ids=[f"{term.__name__}-{test.__name__}" for term, test in WRONG])
def test_a_wrong_term_fails_the_test_that_guards_against_it(term, test):
    with pytest.raises(AssertionError):
        test(KIND.get(term, "number"), term)


@pytest.mark.parametrize("term", MISTAKES)
def test_a_wrong_term_changes_a_step_of_bert(term):
    task = "para" if term is SoftmaxOfOneLogit else "sst"
    with pytest.raises(AssertionError):
        oracle.test_a_step_of_bert_is_the_formula_on_two_passes_with_dropouts_next_draws(task, term)


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_the_variant_without_a_mistake_passes_every_test(kind):
    """So it is the mistakes that fail above."""
    for test in (LOSS, GRADIENT, DIFFERENCES, ALPHA_0, EXCHANGE, EQUAL):
        test(kind, Variant)
