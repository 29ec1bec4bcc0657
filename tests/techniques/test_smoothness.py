"""SMART's smoothness against the paper's Algorithm 1, written out line by line, and against answers worked by hand.

The tests take the method as an argument, so that tests/mutants/test_smart.py can run them on methods that are wrong.
"""

import itertools

import pytest
import torch

from minbert import smart
from minbert.smart import Smoothness, bernoulli_symmetric_kl, smoothness, squared_error, symmetric_kl
from tests.techniques.smart_models import W, case, close, every_way, linear_model, randn, seeded, start_of


def algorithm_1(model, x, divergence, f=None, *, clean=None, mask=None, epsilon=1e-5, sigma=1e-5, eta=None, steps=1,
                generator=None, start=None) -> Smoothness:  # fmt: skip
    """Jiang et al. 2020, Algorithm 1, lines 3 to 8, row by row. start: the random numbers to begin with, if given."""
    f, eta = f or model, 100 * epsilon if eta is None else eta
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.autocast("cpu", enabled=False):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) if start is None else start
        tokens = torch.ones(x.shape[:2]) if mask is None else mask
        delta, before = sigma * noise, None
        delta[tokens == 0] = 0
        for _ in range(steps):
            x_tilde = (x + delta).detach().requires_grad_()
            distances = divergence(f(x_tilde), f(x).detach())
            before = distances.mean().detach() if before is None else before
            (g,) = torch.autograd.grad(distances.sum(), x_tilde)
            for r in range(len(x)):
                size = g[r].abs().max()
                delta[r] += eta * g[r] / size if size > 0 else 0
                delta[r] = delta[r].clamp(-epsilon, epsilon)
            delta[tokens == 0] = 0
        result = Smoothness(divergence(f(x + delta), f(x)).mean(), before, delta)
    for module, mode in modes:
        module.training = mode
    return result


HOW = [{}, {"steps": 3}, {"eta": 2e-6, "sigma": 4e-6, "epsilon": 5e-6, "steps": 3}]


@every_way
@pytest.mark.parametrize("how", HOW, ids=str)
def test_smoothness_is_algorithm_1(task, pairs, how, method=smoothness):
    """The same δ, the same numbers, and the same gradients of the word embeddings.

    Where g is nearly 0, rounding decides the sign of a number of δ; R_s hardly depends on it.
    """
    here = case(task, pairs)
    expected, ours = here.search(algorithm_1, **how), here.search(method, **how)
    close(ours.before, expected.before, rtol=1e-5)
    close(ours.term, expected.term, rtol=1e-5)
    close(ours.delta, expected.delta, rtol=1e-5, atol=1e-7 * here.x.detach().abs().max())
    words = here.model.bert.word_embedding.weight
    gradients = [torch.autograd.grad(result.term, words, retain_graph=True)[0] for result in (ours, expected)]
    close(*gradients, rtol=1e-4, atol=1e-4 * gradients[1].abs().max())


# ------------------------------------------------------------------------------------------ a linear model

GAIN = torch.tensor([1.0, 0.1, -3.0, 1e-3], dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [1e-5, 0.02, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_worst_point_of_a_linear_model(epsilon, seed, method=smoothness):
    """f = c·(xᵀw + b), a row a c: ℓ = c²(δᵀw)², largest at δ = ±ε·sign(w), where R_s = mean of (c·ε·‖w‖₁)².

    g = 2c²(δᵀw)·w, so g/‖g‖_∞ = s·w/max|w| with s = sign(δᵀw) of the start, whatever c, for the norm is of each row by
    itself. One step reaches the corner if η·|w_j|/max|w| ≥ ε + |δ_j| for all j; η = 100·ε allows for 7 σ here.
    """
    x, model = randn(4, 6, seed=9), linear_model(W)
    start = start_of(x, epsilon, seed)
    result = method(
        model, x, squared_error, lambda x: GAIN[:, None] * model(x), epsilon=epsilon, sigma=epsilon,
        generator=seeded(seed),
    )  # fmt: skip
    close(result.before, (GAIN * (start @ W)).square().mean())
    close(result.delta, epsilon * (start @ W).sign()[:, None] * W.sign())
    close(result.term, (GAIN * epsilon * 7.75).square().mean(), rtol=1e-6)


@pytest.mark.parametrize("two_logits", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_worst_point_of_a_logistic_model(two_logits, seed, method=smoothness):
    """The logit of "yes" z(x) = xᵀw + b moves by ±h = ±ε·‖w‖₁ and no farther, so R_s = ±h·(σ(z ± h) - σ(z)).

    The start decides the side, for g = ∂ℓ/∂z · w and ℓ grows from z to both sides. With two logits z_0 and z_1,
    z = z_1 - z_0 and w = w_1 - w_0. Here h = 2.3, so ℓ is far from quadratic.
    """
    epsilon, x, other = 0.3, randn(4, 6, seed=9), torch.linspace(-1, 1, 6).double()
    model = linear_model(other, W + other) if two_logits else linear_model(W)
    divergence = symmetric_kl if two_logits else bernoulli_symmetric_kl
    z = x @ W + (0.0 if two_logits else 0.3)
    start = start_of(x, epsilon, seed)
    h = (start @ W).sign() * epsilon * 7.75
    result = method(model, x, divergence, epsilon=epsilon, sigma=epsilon, generator=seeded(seed))
    before = (start @ W) * ((z + start @ W).sigmoid() - z.sigmoid())
    close(result.before, before.mean())
    close(result.delta, epsilon * (start @ W).sign()[:, None] * W.sign())
    close(result.term, (h * ((z + h).sigmoid() - z.sigmoid())).mean(), rtol=1e-6)


def test_a_row_without_a_gradient_stays_at_its_start_in_the_ball():
    """The output of the first row is constant; the second row climbs."""
    x, model, gain = randn(2, 6, seed=9), linear_model(W), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    result = smoothness(model, x, squared_error, lambda x: gain * model(x), generator=seeded(0))
    close(result.delta[0], start_of(x, 1e-5, 0)[0].clamp(-1e-5, 1e-5))
    close(result.term, (1e-5 * 7.75) ** 2 / 2, rtol=1e-5)


def test_what_is_masked_stays_though_f_depends_on_it(method=smoothness):
    """A row is three vectors of two numbers. All enter f, and the mask lets one or two of them move, so that their
    share of ‖w‖₁ counts. (BERT's gradient at its pads is 0, so that only the random start could move them.)"""
    x, model = randn(2, 3, 2, seed=9), linear_model(W)
    result = method(
        model, x, squared_error, lambda x: model(x.flatten(1)), mask=torch.tensor([[1, 1, 0], [0, 1, 0]]), steps=2,
        generator=seeded(0),
    )  # fmt: skip
    assert (result.delta != 0).tolist() == [
        [[True] * 2, [True] * 2, [False] * 2],
        [[False] * 2, [True] * 2, [False] * 2],
    ]
    close(result.term, 1e-10 * (6.5**2 + 2.5**2) / 2, rtol=1e-6)


def test_the_best_of_many_starts_is_the_worst_corner_of_the_ball():
    """f = xW with three outputs: ℓ = ‖δW‖² is convex, so its maximum over the ball is one of the 2⁶ corners.

    From a corner δ a long step goes to ε·sign(W·Wᵀδ). Where that is δ itself, the climb has ended.
    """
    epsilon, weight, x = 0.1, randn(3, 6, seed=3), randn(1, 6, seed=9)
    model = linear_model(*weight)
    corners = epsilon * torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=torch.float64)
    best = (corners @ weight.T).square().sum(dim=1).max()
    how = dict(epsilon=epsilon, sigma=epsilon, eta=1e6)
    results = [smoothness(model, x, squared_error, steps=8, generator=seeded(seed), **how) for seed in range(30)]
    for seed, (term, _, delta) in enumerate(results):
        assert term <= best * (1 + 1e-12)
        close(delta, epsilon * (delta @ weight.T @ weight).sign())
        first = smoothness(model, x, squared_error, generator=seeded(seed), **how)
        close(first.delta, epsilon * (start_of(x, epsilon, seed) @ weight.T @ weight).sign())
        assert first.term <= term
    close(max(term for term, _, _ in results), best)
    assert len({round(term.item(), 9) for term, _, _ in results}) > 1  # there are lower local maxima too


# ------------------------------------------------------------------------------------------ relative noise


def test_relative_noise_by_hand():
    """f = xᵀw on rows of two vectors (w over both): g/‖g‖_∞ = s·w/3; then each δ is scaled to a share of its x."""
    x = torch.tensor([[[1.0, -4.0, 2.0], [0.5, 0.0, 0.1]]], dtype=torch.float64)
    model, size = linear_model(W), 0.05 * torch.tensor([[[4.0], [0.5]]])
    how = dict(f=lambda x: model(x.flatten(1)), epsilon=0.05, sigma=1e-3, noise="relative")
    start = start_of(x, 1e-3, 0)
    step = start + 5.0 * (start.flatten() @ W).sign() * W.reshape(1, 2, 3) / 3.0
    by_hand = size * step / step.abs().amax(dim=-1, keepdim=True)
    result = smoothness(model, x, squared_error, generator=seeded(0), **how)
    close(result.delta, by_hand, rtol=1e-6)
    close(result.term, (by_hand.flatten() @ W).square(), rtol=1e-6)
    short = smoothness(model, x, squared_error, generator=seeded(0), **how, eta=1e-9)
    close(short.delta.abs().amax(dim=-1, keepdim=True), size, rtol=1e-6)  # scaled up as well as down


@every_way
def test_relative_noise_is_the_same_share_of_every_vector_and_none_of_a_pad(task, pairs):
    here = case(task, pairs)
    delta = here.search(epsilon=0.05, noise="relative").delta
    assert here.x.requires_grad and not delta.requires_grad  # x gives the size as a number, without a gradient
    share = delta.abs().amax(-1) / here.x.detach().abs().amax(-1)
    close(share, 0.05 * here.batch.attention_mask.double())
    assert here.search(epsilon=0.05, sigma=0.0, noise="relative").delta.abs().max() == 0  # no NaN where δ = 0


def test_every_noise_has_a_default_epsilon():
    assert smart.EPSILON.keys() == smart.NOISE.keys()
