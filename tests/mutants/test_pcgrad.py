"""Wrong variants of the methods that combine gradients, as public code has them: each must fail a test."""

import math

import numpy as np
import pytest
import torch
from numpy.linalg import norm

from minbert import pcgrad as module
from minbert.pcgrad import cagrad, pcgrad, sum_gradients
from tests.techniques import test_gradients_in_a_model as in_a_model
from tests.techniques import test_gradvac_cagrad as gradvac_cagrad
from tests.techniques import test_pcgrad as oracle
from tests.techniques.gradients import fixed, flat
from tests.techniques.test_gradvac_cagrad import C, simplex


def surgery(against="originals", squared=True, add=np.sum, conflict=lambda dot: dot < 0, orders=None, extra=None):
    """Yu et al. 2020, Algorithm 1. Every option is a mistake."""

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        G_pc = G.copy()
        for i, others in (orders or module.orders)(len(G), memory):
            for j in others:
                g_j = G_pc[j] if against == "projected" else G[j]
                dot, norm2 = G_pc[i] @ g_j, g_j @ g_j + (extra[j] if extra else 0)
                if conflict(dot):
                    G_pc[i] = G_pc[i] - dot / (norm2 if squared else norm2**0.5) * g_j
        return [torch.from_numpy(add(G_pc, axis=0))]

    return combine


def shuffle_thrown_away(T, memory):
    for i in range(T):
        others = [j for j in range(T) if j != i]
        torch.randperm(T, generator=memory.random)  # its result is not used
        yield i, others


def one_shuffle_for_all(T, memory):
    order = torch.randperm(T, generator=memory.random).tolist()
    yield from ((i, [j for j in order if j != i]) for i in range(T))


WRONG = {  # methods whose result is wrong in every order
    "projects against projected gradients": surgery(against="projected"),
    "divides by the norm, not by its square": surgery(squared=False),
    "mean instead of sum": surgery(add=np.mean),
    "projects without conflict": surgery(conflict=lambda dot: True),
    "plain sum": sum_gradients,
}

wrong_methods = pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)


def test_the_variant_without_a_mistake_passes(monkeypatch):
    """So it is the mistakes that fail below."""
    oracle.test_each_task_meets_the_others_in_a_random_order_of_its_own(surgery())
    oracle.test_pcgrad_is_algorithm_1(torch.float64, 1e-10, surgery())
    in_a_model.check_model(lambda head_norms: surgery())
    oracle.test_the_worked_examples(surgery(), monkeypatch)


@wrong_methods
def test_a_wrong_method_fails_the_worked_examples(wrong, monkeypatch):
    with pytest.raises(AssertionError):
        oracle.test_the_worked_examples(wrong, monkeypatch)


@wrong_methods
def test_a_wrong_method_is_not_algorithm_1(wrong):
    with pytest.raises(AssertionError):
        oracle.test_pcgrad_is_algorithm_1(torch.float64, 1e-10, wrong)


@pytest.mark.parametrize("orders", [shuffle_thrown_away, one_shuffle_for_all, fixed([2, 0, 1])])
def test_orders_that_are_not_random_fail_the_test_of_orders(orders):
    with pytest.raises(AssertionError):
        oracle.test_each_task_meets_the_others_in_a_random_order_of_its_own(surgery(orders=orders))


@pytest.mark.parametrize("wrong", ["plain sum", "divides by the norm, not by its square"])
def test_a_wrong_update_opposes_a_gradient(wrong):
    with pytest.raises(AssertionError):
        oracle.check_no_conflict(WRONG[wrong], np.array([[1.0, 0.0], [-8.0, 1.0]]))


@pytest.mark.parametrize("wrong", ["mean instead of sum", "projects without conflict"])
def test_a_wrong_method_changes_the_sum_of_gradients_that_agree(wrong):
    with pytest.raises(AssertionError):
        oracle.check_untouched(lambda g, m: [WRONG[wrong](g, m)[0].float()], [[1.0, 2, 3, 4], [1.0, 0, 0, 0]])


@pytest.mark.parametrize(
    "wrong",
    [lambda head_norms: surgery(extra=head_norms), *(lambda head_norms, w=w: w for w in WRONG.values())],
    ids=["norms that include the heads", *WRONG],
)
def test_a_wrong_method_moves_a_models_weights_elsewhere(wrong):
    with pytest.raises(AssertionError):
        in_a_model.check_model(wrong)


# ------------------------------------------------------------------------------------------ GradVac


def vaccine(update="always", of="changed", add=np.sum, beta=0.01):
    """Wang et al. 2021, Algorithm 1, for one component (the whole model). Every option is a mistake."""
    targets = {}

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        G_new = G.copy()
        for i, others in module.orders(len(G), memory):
            for j in others:
                g_i, g_j = (G_new if of == "changed" else G)[i], G[j]
                phi = g_i @ g_j / (norm(g_i) * norm(g_j))
                target = targets.get((i, j), 0.0)
                if phi < target:
                    up = norm(g_i) * (target * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - target**2))
                    G_new[i] = G_new[i] + up / (norm(g_j) * math.sqrt(1 - target**2)) * g_j
                if update == "always" or (update == "inside the if" and phi < target):
                    targets[i, j] = (1 - beta) * target + beta * phi
        return [torch.from_numpy(add(G_new, axis=0))]

    return combine


@pytest.mark.parametrize(
    "wrong", [{"update": "inside the if"}, {"update": "never"}, {"of": "originals"}, {"add": np.mean}, {"beta": 0.1}]
)
def test_a_wrong_gradvac_is_not_the_published_one(wrong):
    gradvac_cagrad.check_gradvac(vaccine())
    with pytest.raises(AssertionError):
        gradvac_cagrad.check_gradvac(vaccine(**wrong))


@pytest.mark.parametrize("wrong", [pcgrad, sum_gradients])
def test_other_methods_are_not_gradvac(wrong):
    with pytest.raises(AssertionError):
        gradvac_cagrad.check_gradvac(wrong)


# ------------------------------------------------------------------------------------------ CAGrad


def toward(w_of):
    """CAGrad with another w."""

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        g_0, g_w = G.mean(axis=0), w_of(G) @ G
        return [torch.from_numpy(g_0 + C * norm(g_0) * g_w / norm(g_w))]

    return combine


def least_norm(G):
    return simplex(len(G))[norm(simplex(len(G)) @ G, axis=1).argmin()]


@pytest.mark.parametrize(
    "wrong",
    [
        toward(lambda G: np.full(len(G), 1 / len(G))),  # a longer mean
        toward(least_norm),  # MGDA's w, which minimises ‖g_w‖ alone
        lambda gradients, memory: [3 * part for part in cagrad(gradients, memory)],  # a sum's length
        pcgrad,
    ],
    ids=["mean", "least norm", "sum", "pcgrad"],
)
def test_a_wrong_cagrad_is_not_the_published_one(wrong):
    with pytest.raises(AssertionError):
        gradvac_cagrad.check_cagrad(wrong, 3, unlike=0.3)


@pytest.mark.parametrize("wrong", [toward(lambda G: np.full(2, 0.5)), toward(least_norm), pcgrad])
def test_other_methods_help_the_worst_off_task_less(wrong):
    with pytest.raises(AssertionError):
        gradvac_cagrad.test_cagrad_helps_the_worst_off_task_most(wrong)
