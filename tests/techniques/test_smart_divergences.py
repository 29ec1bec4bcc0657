"""ℓ_s, how far two outputs are apart: against PyTorch's KL divergences, and by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Categorical, kl_divergence

from minbert.smart import bernoulli_symmetric_kl, smoothness, squared_error, symmetric_kl
from minbert.tasks import TASKS
from tests.techniques.smart_models import case, close, kl_both_ways, randn, seeded

DIVERGENCES = {symmetric_kl: 5, bernoulli_symmetric_kl: 1, squared_error: 3}  # and the number of outputs in the tests
divergences = pytest.mark.parametrize(("divergence", "K"), DIVERGENCES.items(), ids=lambda x: getattr(x, "__name__", x))


@pytest.mark.parametrize("K", [2, 5])
def test_symmetric_kl_is_kl_both_ways(K):
    a, b = 3 * randn(40, K), 3 * randn(40, K, seed=1)
    p, q = Categorical(logits=a), Categorical(logits=b)
    close(symmetric_kl(a, b), kl_both_ways(a, b))
    close(symmetric_kl(a, b), kl_divergence(p, q) + kl_divergence(q, p))


def test_the_yes_or_no_divergence_is_bernoullis():
    """One logit a is the two logits (0, a): softmax(0, a) = (1 - σ(a), σ(a))."""
    a, b = 3 * randn(40, 1), 3 * randn(40, 1, seed=1)
    p, q = Bernoulli(logits=a[:, 0]), Bernoulli(logits=b[:, 0])
    close(bernoulli_symmetric_kl(a, b), kl_divergence(p, q) + kl_divergence(q, p))
    close(bernoulli_symmetric_kl(a, b), symmetric_kl(F.pad(a, (1, 0)), F.pad(b, (1, 0))))


def test_divergences_worked_by_hand():
    """p = (¾, ¼), q = (¼, ¾): ½·log 3 + ½·log 3, the same both ways. With 10³ in place of log 3 nothing overflows."""
    logit = torch.log(torch.tensor(3.0))
    close(symmetric_kl(torch.tensor([[logit, 0.0]]), torch.tensor([[0.0, logit]])), logit[None], rtol=1e-6)
    close(bernoulli_symmetric_kl(logit[None, None], -logit[None, None]), logit[None], rtol=1e-6)
    close(squared_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, -2.0], [0.0, 0.5]])), [25.0, 0.25])
    far = torch.tensor([[1e3, 0.0]])
    assert symmetric_kl(far, far.flip(1)).tolist() == [2e3] == bernoulli_symmetric_kl(far[:, :1], -far[:, :1]).tolist()


@divergences
def test_a_divergence_is_one_number_an_example_above_zero_symmetric_and_of_each_example_alone(divergence, K):
    a, b = randn(40, K), randn(40, K, seed=1)
    values = divergence(a, b)
    assert values.shape == (40,) and (values > 0).all()
    close(divergence(b, a), values)
    close(torch.cat([divergence(a[i : i + 1], b[i : i + 1]) for i in range(40)]), values)


@divergences
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_outputs_have_divergence_0_and_gradient_0(divergence, K, dtype):
    a = (3 * randn(40, K, dtype=dtype)).requires_grad_()
    b = a.detach().clone().requires_grad_()
    values = divergence(a, b)
    assert (values == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(values.sum(), (a, b)))


@divergences
def test_a_divergences_gradient_is_that_of_finite_differences(divergence, K):
    a, b = randn(4, K).requires_grad_(), randn(4, K, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(divergence, (a, b))


def check_precision(divergence, K: int, right=None):
    """The distance 1e-10 of outputs that differ by 1e-5, in float32: to 3 % of the mean one, and the mean to 1 %."""
    a = 2 * randn(300, K, dtype=torch.float32)
    b = a + 1e-5 * randn(300, K, seed=1, dtype=torch.float32)
    expected = (right or divergence)(a.double(), b.double())
    error = divergence(a, b).double() - expected
    assert error.square().mean().sqrt() < 0.03 * expected.mean()
    assert error.mean().abs() < 0.01 * expected.mean()


@divergences
def test_float32_is_precise_enough_for_outputs_that_differ_by_1e_5(divergence, K):
    check_precision(divergence, K)


def test_the_tasks_have_the_divergence_of_their_outputs():
    """Of K logits, of one, and of numbers from 0 to 5 that the loss maps to 0…1."""
    a, b = randn(4, 5), randn(4, 5, seed=1)
    close(TASKS["sst"].divergence(a, b), kl_both_ways(a, b))
    close(TASKS["cfimdb"].divergence(a[:, :2], b[:, :2]), kl_both_ways(a[:, :2], b[:, :2]))
    a, b = a[:, :1], b[:, :1]
    close(TASKS["para"].divergence(a, b), kl_both_ways(F.pad(a, (1, 0)), F.pad(b, (1, 0))))
    close(TASKS["sts"].divergence(a, b).mean(), TASKS["sts"].loss(a, b[:, 0]))


def check_yes_or_no(divergence):
    """The one logit of a pair of questions moves, and the term is larger than 0."""
    here = case("para", dtype=torch.float32)
    result = smoothness(here.model, here.x, divergence, here.f, mask=here.batch.attention_mask, generator=seeded(0))
    assert result.term > 1e-12


def test_the_smoothness_of_a_single_logit_is_above_zero():
    check_yes_or_no(TASKS["para"].divergence)
