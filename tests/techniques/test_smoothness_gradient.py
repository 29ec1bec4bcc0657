"""The gradient of the smoothness term, by finite differences and in closed form; what the search leaves as it was."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minbert.smart import bernoulli_symmetric_kl, smoothness, squared_error
from minbert.tasks import TASKS
from tests.techniques.smart_models import (
    WAYS,
    W,
    case,
    close,
    every_way,
    linear_model,
    mixed_case,
    randn,
    seeded,
    state,
)

SOME = (
    "bert.word_embedding.weight", "bert.embed_layer_norm.weight", "bert.bert_layers.0.interm_dense.weight",
    "bert.bert_layers.1.self_attention.query.weight", "bert.pooler_dense.bias",
)  # fmt: skip


@every_way
def test_the_terms_gradient_is_that_of_finite_differences(task, pairs, method=smoothness):
    """d term / dθ for a fixed δ, by central differences along a random direction of each parameter."""
    here = case(task, pairs)
    names = [*SOME, *(name for name, _ in here.model.named_parameters() if name.startswith(f"heads.{task}."))]
    parameters = [dict(here.model.named_parameters())[name] for name in names]
    result = here.search(method, epsilon=1e-2, sigma=1e-2)
    gradients = torch.autograd.grad(result.term, parameters)

    @torch.no_grad()
    def term() -> Tensor:
        x = here.model.embed(here.batch)
        return TASKS[task].divergence(here.f(x + result.delta), here.f(x)).mean()

    close(result.term, term())
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        direction, theta = randn(*parameter.shape, seed=i), parameter.data.clone()
        parameter.data = theta + 1e-6 * direction
        up = term()
        parameter.data = theta - 1e-6 * direction
        down = term()
        parameter.data = theta
        close((up - down) / 2e-6, (gradient * direction).sum(), rtol=1e-4, atol=1e-4 * gradient.norm().item())


def test_half_the_perturbation_gives_a_quarter_of_the_gradient(method=smoothness):
    """With d = f(x+δ) - f(x) the gradient is 2d·∂d/∂θ, and both factors are proportional to δ.

    Through one pass alone it would be 2d·∂f/∂θ, which is half as large for half the δ.
    """
    for task, pairs in WAYS:
        here = case(task, pairs)
        norms = []
        for size in (1e-4, 5e-5):
            term = here.search(method, epsilon=size, sigma=size, steps=2).term
            gradients = torch.autograd.grad(term, list(here.model.parameters()), allow_unused=True, retain_graph=True)
            norms.append(sum(g.square().sum() for g in gradients if g is not None).sqrt())
        close(norms[0] / norms[1], torch.tensor(4.0, dtype=torch.float64), rtol=0.05)


def test_x_gets_its_gradient_through_both_passes(method=smoothness):
    """f = Σ w·x²: d = f(x+δ) - f(x) = Σ w(2xδ + δ²), so ∂d²/∂x = 2d·2wδ.

    Through one pass it would be 2d·2w(x+δ) or -2d·2wx.
    """
    x = randn(4, 6, seed=9).requires_grad_()
    model = linear_model(W)
    result = method(model, x, squared_error, lambda x: model(x**2), epsilon=0.1, sigma=0.1, generator=seeded(0))
    (g,) = torch.autograd.grad(result.term, x)
    d = (2 * x * result.delta + result.delta**2) @ W
    close(result.term, d.square().mean())
    close(g, 2 * d[:, None] * 2 * W * result.delta / 4)
    assert not result.before.requires_grad and not result.delta.requires_grad


def test_without_gradients_the_numbers_are_the_same():
    here = case("sst")
    result = here.search(steps=2)
    with torch.no_grad():
        again = here.search(steps=2)
    assert torch.equal(again.term, result.term) and torch.equal(again.delta, result.delta)
    assert result.term.requires_grad and not again.term.requires_grad


def test_a_clean_pass_is_used_where_there_is_one():
    """A search takes one pass for each step and one for the term, and one more for f(x) where that is not given."""
    here, calls = case("para"), []

    def f(x):
        calls.append(x)
        return here.f(x)

    how = dict(divergence=bernoulli_symmetric_kl, f=f, mask=here.batch.attention_mask, steps=2)
    fresh = smoothness(here.model, here.x, generator=seeded(0), **how)
    assert len(calls) == 4
    given = smoothness(here.model, here.x, clean=here.f(here.x), generator=seeded(0), **how)
    assert len(calls) == 7
    assert torch.equal(fresh.term, given.term)
    words = here.model.bert.word_embedding.weight
    assert torch.equal(*(torch.autograd.grad(result.term, words, retain_graph=True)[0] for result in (fresh, given)))


# ------------------------------------------------------------------------------------------ what is left as it was


def test_a_search_leaves_the_model_and_the_generators_as_they_were(method=smoothness):
    here = mixed_case()
    before = state(here.model)
    assert True in before[0] and False in before[0] and None in before[2] and len(set(map(str, before[2]))) > 2
    result = here.search(method, steps=2)
    assert state(here.model) == before
    (2 * result.term).backward()
    assert state(here.model)[2] != before[2]


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_search_that_fails_leaves_them_as_they_were_too(call, bf16):
    here, calls = mixed_case(), []
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        before = state(here.model)

        def f(x):
            calls.append(x)
            if len(calls) == call:
                raise ZeroDivisionError
            return here.f(x)

        with pytest.raises(ZeroDivisionError):
            smoothness(here.model, here.x, bernoulli_symmetric_kl, f, steps=2, generator=seeded(0))
        assert len(calls) == call and state(here.model) == before


class Watched(torch.autograd.Function):
    """The identity, which counts the gradients that pass."""

    passed = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        Watched.passed += 1
        return g


def test_the_search_computes_no_gradient_of_a_weight(method=smoothness):
    """f = x·w + b. A gradient of w costs as much as one of x; only the term's backward pass may compute it."""
    model, x = linear_model(W), randn(4, 6)

    def f(x):
        return F.linear(x, Watched.apply(model.weight), model.bias)

    Watched.passed = 0
    result = method(model, x, squared_error, f, steps=3, generator=seeded(0))
    assert Watched.passed == 0
    result.term.backward()
    assert Watched.passed == 2  # through f(x̃) and through f(x)
