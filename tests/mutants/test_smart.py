"""Wrong variants of SMART's search and term, as public code has them: each must fail a test."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minbert.smart import Smoothness, symmetric_kl
from minbert.tasks import TASKS
from tests.techniques import test_smoothness as oracle
from tests.techniques import test_smoothness_gradient as gradient
from tests.techniques import test_smoothness_in_bert as in_bert
from tests.techniques.models import V
from tests.techniques.smart_models import WAYS, Case, case, close, every_way, randn, seeded
from tests.techniques.test_smart_divergences import check_precision, check_yes_or_no


def algorithm_1(
    dropout=False, bf16=False, sign=1, project=True, rows=True, unit_start=False, pads_move=False,
    once=False, in_grad=False, at_x=False, after="as before",
    outer=lambda f, x, delta: (f(x + delta), f(x)), mean=torch.mean,
):  # fmt: skip
    """Jiang et al. 2020, Algorithm 1, lines 3 to 8, row by row. Every option is a mistake."""

    def method(model, x, divergence, f=None, *, clean=None, mask=None, epsilon=1e-5, sigma=1e-5, eta=None, steps=1,
               generator=None):  # fmt: skip
        f, eta = f or model, 100 * epsilon if eta is None else eta
        modes = [(module, module.training) for module in model.modules()]
        model.train(dropout)
        with nullcontext() if bf16 else torch.autocast("cpu", enabled=False):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            delta = noise * (1 if unit_start else sigma)
            before = None
            for _ in range(1 if once else steps):
                if mask is not None and not pads_move:
                    delta[mask == 0] = 0
                x_tilde = (x if at_x else x + delta).detach().requires_grad_()
                distances = divergence(f(x_tilde), f(x).detach())
                before = distances.mean().detach() if before is None else before
                if in_grad:
                    distances.sum().backward()
                g = x_tilde.grad if in_grad else torch.autograd.grad(distances.sum(), x_tilde)[0]
                for r in range(len(x)):
                    size = (g[r] if rows else g).abs().max()
                    delta[r] += sign * eta * g[r] / size if size > 0 else 0
                    delta[r] = delta[r].clamp(-epsilon, epsilon) if project else delta[r] / delta[r].abs().max()
                if mask is not None and not pads_move:
                    delta[mask == 0] = 0
            result = Smoothness(mean(divergence(*outer(f, x, delta))), before, delta)
        for module, mode in modes:
            module.training = {"as before": mode, "train": True, "eval": False}[after]
        return result

    return method


WRONG = {
    "dropout stays on": algorithm_1(dropout=True),
    "autocast stays on": algorithm_1(bf16=True),
    "descends": algorithm_1(sign=-1),
    "of size 1": algorithm_1(project=False),
    "one norm for the batch": algorithm_1(rows=False),
    "starts anywhere": algorithm_1(unit_start=True),
    "pads move": algorithm_1(pads_move=True),
    "one step whatever K": algorithm_1(once=True),
    "gradient at x": algorithm_1(at_x=True),
    "into .grad": algorithm_1(in_grad=True),
    "leaves the model in eval": algorithm_1(after="eval"),
    "leaves the model in train": algorithm_1(after="train"),
    "sum, not mean": algorithm_1(mean=torch.sum),
    "detached numbers": algorithm_1(mean=lambda distances: distances.detach().mean()),
    "clean pass detached": algorithm_1(outer=lambda f, x, delta: (f(x + delta), f(x).detach())),
    "perturbed pass detached": algorithm_1(outer=lambda f, x, delta: (f(x + delta).detach(), f(x))),
    "x̃ detached from x": algorithm_1(outer=lambda f, x, delta: (f(x.detach() + delta), f(x))),
}


def wrong_methods(*names: str):
    return pytest.mark.parametrize("wrong", [WRONG[name] for name in names], ids=names)


CHECKS = {  # tests, as functions of the method
    "algorithm 1": lambda m: oracle.test_smoothness_is_algorithm_1("para", "separate", {}, m),
    "algorithm 1 with three steps": lambda m: oracle.test_smoothness_is_algorithm_1(
        "para", "separate", {"steps": 3}, m
    ),
    "a linear model": lambda m: oracle.test_the_worst_point_of_a_linear_model(0.02, 0, m),
    "a logistic model": lambda m: oracle.test_the_worst_point_of_a_logistic_model(False, 0, m),
    "a logistic model of two logits": lambda m: oracle.test_the_worst_point_of_a_logistic_model(True, 0, m),
    "the mask": oracle.test_what_is_masked_stays_though_f_depends_on_it,
    "the climb": in_bert.check_climb,
    "a short climb": lambda m: in_bert.check_climb(m, eta=1e-6, sigma=2e-6),
    **{f"no noise, {task} {pairs}": lambda m, way=(task, pairs): no_noise(m, *way) for task, pairs in WAYS},
    **{f"autocast, {task} {pairs}": lambda m, way=(task, pairs): autocast(m, *way) for task, pairs in WAYS},
    "finite differences": lambda m: gradient.test_the_terms_gradient_is_that_of_finite_differences(
        "para", "separate", m
    ),
    "a quarter": gradient.test_half_the_perturbation_gives_a_quarter_of_the_gradient,
    "the gradient of x": gradient.test_x_gets_its_gradient_through_both_passes,
    "what is left": gradient.test_a_search_leaves_the_model_and_the_generators_as_they_were,
    "no gradients of weights": gradient.test_the_search_computes_no_gradient_of_a_weight,
}


def no_noise(method, task: str, pairs: str):
    in_bert.test_without_a_perturbation_the_term_is_0_whatever_the_dropout(task, pairs, torch.float32, method)


def autocast(method, task: str, pairs: str):
    in_bert.test_inside_autocast_the_term_is_the_same(task, pairs, method)


WORST_POINT = ("descends", "of size 1", "starts anywhere", "sum, not mean")
ONE_PASS = ("clean pass detached", "perturbed pass detached")
MISTAKES = {  # check → the mistakes that fail it
    "algorithm 1": (
        *WORST_POINT,
        "gradient at x",
        "one norm for the batch",
        "pads move",
        *ONE_PASS,
        "x̃ detached from x",
    ),
    "algorithm 1 with three steps": ("one step whatever K",),
    "a linear model": (*WORST_POINT, "gradient at x", "one norm for the batch"),
    "a logistic model": WORST_POINT,
    "a logistic model of two logits": WORST_POINT,
    "the mask": ("pads move",),
    "the climb": ("of size 1", "pads move"),
    "a short climb": ("descends",),
    **{name: ("dropout stays on",) for name in CHECKS if name.startswith("no noise")},
    **{name: ("autocast stays on",) for name in CHECKS if name.startswith("autocast")},
    "finite differences": (*ONE_PASS, "x̃ detached from x", "sum, not mean"),
    "a quarter": ONE_PASS,
    "the gradient of x": (*ONE_PASS, "x̃ detached from x"),
    "what is left": ("into .grad", "leaves the model in eval", "leaves the model in train", "dropout stays on"),
    "no gradients of weights": ("into .grad", "clean pass detached"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_variant_without_a_mistake_passes(check):
    """So it is the mistakes that fail below."""
    CHECKS[check](algorithm_1())


@pytest.mark.parametrize(("check", "mistake"), [(check, m) for check, names in MISTAKES.items() for m in names])
def test_a_wrong_method_fails_the_test_that_guards_against_it(check, mistake):
    with pytest.raises(AssertionError):
        CHECKS[check](WRONG[mistake])


def test_every_check_and_every_mistake_is_used():
    assert set(MISTAKES) == set(CHECKS)
    assert {mistake for mistakes in MISTAKES.values() for mistake in mistakes} == WRONG.keys() - {"detached numbers"}


def test_a_term_of_detached_numbers_has_no_gradient():
    with pytest.raises(RuntimeError, match="does not require grad"):
        CHECKS["finite differences"](WRONG["detached numbers"])


# ------------------------------------------------------------------------------------------ by how much


@every_way
def test_with_dropout_left_on_the_term_is_noise(task, pairs):
    here = case(task, pairs, dropout=0.5)
    assert here.search(WRONG["dropout stays on"]).term > 1e5 * here.search().term


@every_way
def test_with_autocast_left_on_the_term_is_more_than_three_times_too_large_or_small(task, pairs):
    here = case(task, pairs, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rough, right = here.search(WRONG["autocast stays on"]).term, here.search().term
    assert not right / 3 < rough < 3 * right


# ------------------------------------------------------------------------------------------ divergences, places


def test_two_kl_divergences_of_pytorchs_are_too_rough_in_float32():
    """As in public code. Each is made of p·log p - p·log q, two numbers near 1 for a difference of 1e-10."""

    def public(a, b):
        one, other = ((x.log_softmax(-1), y.softmax(-1)) for x, y in ((a, b), (b, a)))
        return (F.kl_div(*one, reduction="none") + F.kl_div(*other, reduction="none")).sum(dim=-1)

    a, b = randn(40, 5), randn(40, 5, seed=1)
    close(public(a, b), symmetric_kl(a, b))  # in exact numbers, and for large distances, it is the same
    with pytest.raises(AssertionError):
        check_precision(public, 5, right=symmetric_kl)


def test_a_softmax_of_a_single_logit_is_always_1_and_the_term_0():
    with pytest.raises(AssertionError):
        check_yes_or_no(symmetric_kl)


def in_the_table(here: Case, epsilon: float = 1e-5) -> Tensor:
    """Wrong: the embedding table is perturbed, a row of it for all places of a word. Returns δ of the embeddings."""
    random = torch.randn(V, here.x.shape[-1], generator=seeded(0), dtype=here.x.dtype).mul_(epsilon).requires_grad_()
    distances = TASKS[here.batch.task].divergence(here.f(here.x + random[here.batch.input_ids]), here.f(here.x))
    (g,) = torch.autograd.grad(distances.sum(), random)
    return (random + 100 * epsilon * g / g.abs().max()).clamp(-epsilon, epsilon)[here.batch.input_ids].detach()


def test_a_perturbed_embedding_table_moves_words_and_not_places():
    with pytest.raises(AssertionError):
        in_bert.check_places(in_the_table)
