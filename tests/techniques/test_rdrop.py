"""R-Drop on a linear model with given dropout masks, against closed forms; then in a small BERT.

    loss = ½·(L(f₁) + L(f₂)) + α·½·mean ℓ_s(f₁, f₂)

The term is what this adds to L(f₁). The tests take its class as an argument, so that tests/mutants/test_rdrop.py can
run them on terms that are wrong.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from minbert.bert import BertModel
from minbert.errors import UserError
from minbert.multitask import MultitaskBert
from minbert.rdrop import RDropTerm, r_drop
from minbert.smart import bernoulli_symmetric_kl, squared_error, symmetric_kl
from minbert.tasks import TASKS
from minbert.terms import Pass, backward
from tests.techniques.models import NAMES, batch_of
from tests.techniques.pals_models import CONFIG
from tests.techniques.rdrop_models import ALPHA, KINDS, MASKS, Linear, P, X, first_pass, randn

kinds = pytest.mark.parametrize("kind", KINDS)


def close(a: Tensor, b: Tensor):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=1e-10, atol=1e-12)


def total_and_gradient(kind: str, term=RDropTerm, alpha: float = ALPHA, **how) -> tuple[Tensor, Tensor, dict]:
    """The loss with R-Drop, its gradient of W, and what the term logs."""
    first = first_pass(kind, **how)
    scalar, log = term(first.model, 0, alpha)(first)
    total = first.loss + scalar
    (gradient,) = torch.autograd.grad(total, first.model.weight)
    return total.detach(), gradient, log


def outputs_by_hand(kind: str, masks: list[Tensor] = MASKS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x∘m/(1 - p) of both passes, and f = W·x of both."""
    x1, x2 = (X * mask / (1 - P) for mask in masks)
    W = randn(KINDS[kind][0], 5, seed=3)
    return x1, x2, x1 @ W.T, x2 @ W.T


# ------------------------------------------------------------------------------------------ closed forms


def distance_by_hand(kind: str, f1: Tensor, f2: Tensor) -> Tensor:
    """mean ℓ_s: the squared difference of numbers; of probabilities KL both ways, from torch.distributions."""
    if kind == "number":
        return (f1 - f2).square().sum(dim=1).mean()
    p, q = (Bernoulli(logits=f[:, 0]) if kind == "yes_no" else Categorical(logits=f) for f in (f1, f2))
    return (kl_divergence(p, q) + kl_divergence(q, p)).mean()


@kinds
def test_the_loss_is_that_of_the_formula(kind, term=RDropTerm):
    total, _, log = total_and_gradient(kind, term)
    _, _, f1, f2 = outputs_by_hand(kind)
    loss, labels = KINDS[kind][1], torch.tensor(KINDS[kind][3], dtype=torch.float64)
    close(total, (loss(f1, labels) + loss(f2, labels)) / 2 + ALPHA * distance_by_hand(kind, f1, f2) / 2)
    close(log["distance"], distance_by_hand(kind, f1, f2) / 2)


def test_the_loss_of_one_example_worked_by_hand(term=RDropTerm):
    """W = (1, 2), x = (1, 1), p = ½. Masks (1, 0) and (0, 1) give f₁ = 2 and f₂ = 4; the label is 3 and α is 3.

    ½·(1² + 1²) + 3·½·2² = 7. ∂/∂W = (f₁ - 3)·(2, 0) + (f₂ - 3)·(0, 2) + 3·(f₁ - f₂)·((2, 0) - (0, 2)) = (-14, 14).
    """
    first = first_pass("number")
    masks = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    first.model = Linear(torch.tensor([[1.0, 2.0]]), 0.5, masks)
    first.x, first.labels = torch.ones(1, 2), torch.tensor([3.0])
    first = first.again()
    total = first.loss + term(first.model, 0, 3.0)(first)[0]
    total.backward()
    assert total.item() == 7.0 and first.model.weight.grad.tolist() == [[-14.0, 14.0]]


def slope_by_hand(kind: str, f1: Tensor, f2: Tensor) -> Tensor:
    """∂ℓ_s/∂f₁ of each example, (B, K); that of f₂ is the same with the two exchanged.

    Numbers: 2·(f₁ - f₂). One logit, ℓ_s = (p - q)·(f₁ - f₂) with p = σ(f₁): p·(1 - p)·(f₁ - f₂) + (p - q). Classes:
    KL(p‖q) has the gradient p∘(log(p/q) - KL(p‖q)), and KL(q‖p) has p - q.
    """
    if kind == "number":
        return 2 * (f1 - f2)
    if kind == "yes_no":
        p, q = f1.sigmoid(), f2.sigmoid()
        return p * (1 - p) * (f1 - f2) + (p - q)
    p, q = f1.softmax(dim=1), f2.softmax(dim=1)
    ratio = (p / q).log()
    return p * (ratio - (p * ratio).sum(dim=1, keepdim=True)) + (p - q)


@kinds
def test_the_gradient_flows_through_both_passes(kind, term=RDropTerm):
    """∂/∂W = Σ over both passes of (½·∂L/∂f + α/2·∂ℓ_s/∂f)ᵀ·x, over B examples."""
    _, gradient, _ = total_and_gradient(kind, term)
    x1, x2, f1, f2 = (tensor.requires_grad_() for tensor in outputs_by_hand(kind))
    loss, labels = KINDS[kind][1], torch.tensor(KINDS[kind][3], dtype=torch.float64)
    expected = torch.zeros_like(gradient)
    for x, f, other in ((x1, f1, f2), (x2, f2, f1)):
        (slope,) = torch.autograd.grad(loss(f, labels), f)
        expected += (slope / 2 + ALPHA / 2 * slope_by_hand(kind, f, other) / len(X)).T @ x
    close(gradient, expected.detach())


@kinds
def test_the_gradient_is_that_of_finite_differences(kind, term=RDropTerm):
    _, gradient, _ = total_and_gradient(kind, term)
    direction, h = randn(*gradient.shape, seed=4), 1e-5
    values = [total_and_gradient(kind, term, shift=sign * h * direction)[0].item() for sign in (1, -1)]
    slope = (gradient * direction).sum().item()
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-7)


# ------------------------------------------------------------------------------------------ what always holds


@kinds
def test_equal_masks_give_the_plain_loss_and_its_gradient(kind, term=RDropTerm):
    first = first_pass(kind)
    (plain,) = torch.autograd.grad(first.loss, first.model.weight)
    total, gradient, log = total_and_gradient(kind, term, masks=[MASKS[0], MASKS[0]])
    assert log["distance"] == 0
    close(total, first.loss.detach())
    close(gradient, plain)


@kinds
def test_alpha_0_is_the_mean_of_two_plain_losses(kind, term=RDropTerm):
    total, gradient, _ = total_and_gradient(kind, term, alpha=0.0)
    first, second = first_pass(kind), first_pass(kind, masks=MASKS[::-1])
    close(total, ((first.loss + second.loss) / 2).detach())
    plain = [torch.autograd.grad(one.loss, one.model.weight)[0] for one in (first, second)]
    close(gradient, (plain[0] + plain[1]) / 2)


@kinds
def test_twice_the_loss_is_the_papers_equation_3_with_twice_the_alpha(kind, term=RDropTerm):
    """L = L(f₁) + L(f₂) + α·½·(KL(p‖q) + KL(q‖p)), a mean over the examples."""
    total, _, _ = total_and_gradient(kind, term)
    _, _, f1, f2 = outputs_by_hand(kind)
    loss, labels = KINDS[kind][1], torch.tensor(KINDS[kind][3], dtype=torch.float64)
    papers = 2 * ALPHA
    close(2 * total, loss(f1, labels) + loss(f2, labels) + papers / 2 * distance_by_hand(kind, f1, f2))


@kinds
def test_exchanging_the_two_passes_changes_nothing(kind, term=RDropTerm):
    total, gradient, _ = total_and_gradient(kind, term)
    exchanged, its_gradient, _ = total_and_gradient(kind, term, masks=MASKS[::-1])
    close(exchanged, total)
    close(its_gradient, gradient)


numbers = st.lists(st.integers(-50, 50).map(lambda n: n / 10), min_size=6, max_size=6)


@pytest.mark.parametrize(("divergence", "K"), [(symmetric_kl, 3), (bernoulli_symmetric_kl, 1), (squared_error, 2)])
@settings(max_examples=50, deadline=None)
@given(a=numbers, b=numbers)
def test_the_distance_is_never_negative_and_0_for_equal_outputs(divergence, K, a, b):
    f1, f2 = (torch.tensor(x, dtype=torch.float64).view(-1, K) for x in (a, b))
    assert r_drop(f1, f2, divergence) >= 0
    assert r_drop(f1, f1.clone(), divergence) == 0
    if K < 3 and a != b:  # three logits may differ by a number in common, which changes no probability
        assert r_drop(f1, f2, divergence) > 0


# ------------------------------------------------------------------------------------------ in a small BERT


def small_model(dropout: float = 0.3, bert_dropout: float = 0.1) -> MultitaskBert:
    torch.manual_seed(0)
    config = replace(CONFIG, hidden_dropout_prob=bert_dropout, attention_probs_dropout_prob=bert_dropout)
    return MultitaskBert(BertModel(config), NAMES, heads={"sts": "hadamard"}, dropout=dropout).double().train()


def double_batch(task: str):
    batch = batch_of(task)
    return replace(batch, labels=batch.labels.double())


@pytest.mark.parametrize("task", NAMES)
def test_a_step_of_bert_is_the_formula_on_two_passes_with_dropouts_next_draws(task, term=RDropTerm):
    """From the same seed, the gradients of all parameters are equal."""
    model, batch = small_model(), double_batch(task)
    torch.manual_seed(5)
    f1, f2 = model(batch), model(batch)
    losses = [TASKS[task].loss(f, batch.labels) for f in (f1, f2)]
    expected = sum(losses) / 2 + ALPHA * TASKS[task].divergence(f1, f2).mean() / 2
    assert not torch.equal(f1, f2)
    parameters = dict(model.named_parameters())
    by_hand = torch.autograd.grad(expected, parameters.values(), allow_unused=True)

    torch.manual_seed(5)
    first = Pass(model, batch, TASKS[task].loss)
    log = backward(first, {"rdrop": term(model, 0, ALPHA)})
    for (name, p), gradient in zip(parameters.items(), by_hand, strict=True):
        assert (p.grad is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-12, msg=name)
    close(log["rdrop"]["distance"].detach(), TASKS[task].divergence(f1, f2).mean().detach() / 2)
    assert model.training and all(module.training for module in model.modules())


def test_a_task_without_dropout_has_the_plain_loss_and_its_gradient():
    """STS's cosine has no dropout of its own, so that with none inside BERT both passes are equal."""
    torch.manual_seed(0)
    config = replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = MultitaskBert(BertModel(config), NAMES, heads={"sts": "cosine"}, dropout=0.3).double().train()
    for task, plain in (("sts", True), ("sst", False)):
        batch, gradients = double_batch(task), []
        for terms in ({}, {"rdrop": RDropTerm(model, 0, ALPHA)}):
            model.zero_grad()
            torch.manual_seed(5)
            log = backward(Pass(model, batch, TASKS[task].loss), terms)
            gradients.append(model.bert.pooler_dense.weight.grad.clone())
        assert (log["rdrop"]["distance"] == 0) == plain
        assert torch.allclose(*gradients, rtol=1e-12, atol=0) == plain


def test_one_dropout_above_0_is_enough_and_without_any_the_term_is_refused():
    RDropTerm(small_model(dropout=0.3, bert_dropout=0.0), 0, 1.0)
    RDropTerm(small_model(dropout=0.0, bert_dropout=0.1), 0, 1.0)
    with pytest.raises(UserError, match=r"--rdrop 1\.0 .*--hidden_dropout_prob and --bert_dropout are both 0"):
        RDropTerm(small_model(dropout=0.0, bert_dropout=0.0), 0, 1.0)
