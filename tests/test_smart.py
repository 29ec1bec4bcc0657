"""SMART against the paper's algorithm, written out line by line, and against answers on paper.

Every check is a function of the method, so that it can be shown to fail on methods that are a little wrong, as public
code often is. Most run in float64: δ is 1e-5 and R_s its square, so that float32 has few digits to compare.
"""

import copy
import io
import itertools
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from minbert import smart
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch
from minbert.multitask import MultitaskBert
from minbert.smart import Proximal, Smoothness, bernoulli_symmetric_kl, exact, smoothness, squared_error, symmetric_kl
from minbert.tasks import TASKS


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def close(a, b, rtol: float = 1e-9, atol: float = 0.0):
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype).detach(), rtol=rtol, atol=float(atol))


# ---------------------------------------------------------------------------------------------- divergences


def kl_both_ways(a: Tensor, b: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) as PyTorch has them; `F.kl_div(log q, log p)` is KL(p‖q)."""
    log_p, log_q = a.log_softmax(dim=-1), b.log_softmax(dim=-1)
    both = (F.kl_div(x, y, reduction="none", log_target=True) for x, y in ((log_q, log_p), (log_p, log_q)))
    return sum(both).sum(dim=-1)


DIVERGENCES = {symmetric_kl: 5, bernoulli_symmetric_kl: 1, squared_error: 3}  # and how wide an output may be
divergences = pytest.mark.parametrize(("divergence", "K"), DIVERGENCES.items(), ids=lambda x: getattr(x, "__name__", x))


@pytest.mark.parametrize("K", [2, 5])
def test_symmetric_kl_is_kl_both_ways(K):
    a, b = 3 * randn(40, K), 3 * randn(40, K, seed=1)
    p, q = Categorical(logits=a), Categorical(logits=b)
    close(symmetric_kl(a, b), kl_both_ways(a, b))
    close(symmetric_kl(a, b), kl_divergence(p, q) + kl_divergence(q, p))


def test_the_yes_or_no_divergence_is_bernoullis():
    """A logit a says what the two logits (0, a) say: softmax(0, a) = (1 - σ(a), σ(a))."""
    a, b = 3 * randn(40, 1), 3 * randn(40, 1, seed=1)
    p, q = Bernoulli(logits=a[:, 0]), Bernoulli(logits=b[:, 0])
    close(bernoulli_symmetric_kl(a, b), kl_divergence(p, q) + kl_divergence(q, p))
    close(bernoulli_symmetric_kl(a, b), symmetric_kl(F.pad(a, (1, 0)), F.pad(b, (1, 0))))


def test_divergences_on_paper():
    """p = (¾, ¼), q = (¼, ¾): ½·log 3 + ½·log 3, the same both ways. 10³ in place of log 3: nothing overflows."""
    logit = torch.log(torch.tensor(3.0))
    close(symmetric_kl(torch.tensor([[logit, 0.0]]), torch.tensor([[0.0, logit]])), logit[None], rtol=1e-6)
    close(bernoulli_symmetric_kl(logit[None, None], -logit[None, None]), logit[None], rtol=1e-6)
    close(squared_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, -2.0], [0.0, 0.5]])), [25.0, 0.25])
    far = torch.tensor([[1e3, 0.0]])
    assert symmetric_kl(far, far.flip(1)).tolist() == [2e3] == bernoulli_symmetric_kl(far[:, :1], -far[:, :1]).tolist()


@divergences
def test_a_divergence_is_a_number_an_example_not_negative_symmetric_and_blind_to_the_order(divergence, K):
    a, b = randn(40, K), randn(40, K, seed=1)
    values = divergence(a, b)
    assert values.shape == (40,) and (values > 0).all()
    close(divergence(b, a), values)
    close(torch.cat([divergence(a[i : i + 1], b[i : i + 1]) for i in range(40)]), values)


@divergences
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_outputs_are_at_no_distance_and_on_no_slope(divergence, K, dtype):
    a = (3 * randn(40, K, dtype=dtype)).requires_grad_()
    b = a.detach().clone().requires_grad_()
    values = divergence(a, b)
    assert (values == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(values.sum(), (a, b)))


@divergences
def test_the_slopes_of_a_divergence(divergence, K):
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
def test_close_outputs_can_be_told_apart_in_float32(divergence, K):
    check_precision(divergence, K)


def test_two_kl_divergences_of_pytorch_s_in_float32_show():
    """As in public code. Each is made of p·log p - p·log q, two numbers near 1 for a difference of 1e-10."""

    def public(a, b):
        one, other = ((x.log_softmax(-1), y.softmax(-1)) for x, y in ((a, b), (b, a)))
        return (F.kl_div(*one, reduction="none") + F.kl_div(*other, reduction="none")).sum(dim=-1)

    a, b = randn(40, 5), randn(40, 5, seed=1)
    close(public(a, b), symmetric_kl(a, b))  # on paper, and for large distances, it is the same
    with pytest.raises(AssertionError):
        check_precision(public, 5, right=symmetric_kl)


# ---------------------------------------------------------------------------------------------- Algorithm 1, literally


def algorithm_1(
    start=None, dropout=False, bf16=False, sign=1, project=True, rows=True, unit_start=False, pads_move=False,
    once=False, in_grad=False, after="as before", outer=lambda f, x, delta: (f(x + delta), f(x)), mean=torch.mean,
):  # fmt: skip
    """Jiang et al. 2020, Algorithm 1, lines 3 to 8, row by row. Every option but `start` is a way to get it wrong."""

    def method(model, x, divergence, f=None, *, clean=None, mask=None, epsilon=1e-5, sigma=1e-5, eta=None, steps=1,
               generator=None):  # fmt: skip
        f, eta = f or model, 100 * epsilon if eta is None else eta
        modes = [(module, module.training) for module in model.modules()]
        model.train(dropout)
        with nullcontext() if bf16 else torch.autocast("cpu", enabled=False):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) if start is None else start
            delta = noise * (1 if unit_start else sigma)
            before = None
            for _ in range(1 if once else steps):
                if mask is not None and not pads_move:
                    delta[mask == 0] = 0
                x_tilde = (x + delta).detach().requires_grad_()
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
            found = Smoothness(mean(divergence(*outer(f, x, delta))), before, delta)
        for module, mode in modes:
            module.training = {"as before": mode, "train": True, "eval": False}[after]
        return found

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


V, T, C = 30, 7, 8


class Case(NamedTuple):
    """A model, and what `smoothness` wants to know about one of its batches."""

    model: MultitaskBert
    batch: Batch
    x: Tensor

    def f(self, x: Tensor) -> Tensor:
        return self.model.logits(self.batch, x)

    def search(self, method=smoothness, seed: int = 0, x: Tensor | None = None, **how) -> Smoothness:
        divergence, how = TASKS[self.batch.task].divergence, {"mask": self.batch.attention_mask, **how}
        return method(self.model, self.x if x is None else x, divergence, self.f, generator=seeded(seed), **how)


def random_batch(task: str, pairs: str = "separate", B: int = 3, seed: int = 0) -> Batch:
    """Rows of 2 to T random words. The first has the same word at its second and third place."""
    random = seeded(seed)
    R = 2 * B if TASKS[task].is_pair and pairs == "separate" else B
    ids = torch.randint(1, V, (R, T), generator=random)
    ids[0, 2] = ids[0, 1]
    mask = (torch.arange(T) < torch.tensor([[T], [2], *([n] for n in range(3, R + 1))])[:R]).long()
    types = (torch.arange(T) > 2).long().expand(R, T) if pairs == "joint" else torch.zeros_like(ids)
    return Batch(task, list(range(B)), ids * mask, mask, types * mask, torch.zeros(B))


def case(task: str, pairs: str = "separate", dropout: float = 0.0, dtype=torch.float64, seed: int = 0, **options):
    """A random BERT of two layers, sharper than a fresh one, in eval mode; its embeddings have their gradient."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=V, hidden_size=C, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=T, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )  # fmt: skip
    model = MultitaskBert(BertModel(config), TASKS, pairs, dropout=dropout, **options).to(dtype).eval()
    batch = random_batch(task, pairs, seed=seed)
    return Case(model, batch, model.embed(batch))


WAYS = [("sst", "separate"), ("cfimdb", "joint"), *itertools.product(("para", "sts"), ("separate", "joint"))]
every_way = pytest.mark.parametrize(("task", "pairs"), WAYS)


def check_literal(method, task: str = "para", pairs: str = "separate", **how):
    """The same δ, and the same numbers, and the same gradients of the word embeddings.

    Where g is nearly 0, so that rounding decides to which side a number of δ goes, it does not matter much to R_s.
    """
    here = case(task, pairs)
    expected, ours = here.search(algorithm_1(), **how), here.search(method, **how)
    close(ours.before, expected.before, rtol=1e-5)
    close(ours.term, expected.term, rtol=1e-5)
    close(ours.delta, expected.delta, rtol=1e-5, atol=1e-7 * here.x.detach().abs().max())
    words = here.model.bert.word_embedding.weight
    gradients = [torch.autograd.grad(found.term, words, retain_graph=True)[0] for found in (ours, expected)]
    close(*gradients, rtol=1e-4, atol=1e-4 * gradients[1].abs().max())


@every_way
@pytest.mark.parametrize("how", [{}, {"steps": 3}, {"eta": 2e-6, "sigma": 4e-6, "epsilon": 5e-6, "steps": 3}])
def test_it_is_algorithm_1(task, pairs, how):
    check_literal(smoothness, task, pairs, **how)


# ---------------------------------------------------------------------------------------------- on paper

W = torch.tensor([3.0, -1.0, 0.5, 2.0, -0.25, 1.0], dtype=torch.float64)  # ‖W‖₁ = 7.75
GAIN = torch.tensor([1.0, 0.1, -3.0, 1e-3], dtype=torch.float64)


def linear_model(*columns: Tensor) -> nn.Linear:
    """f(x) = x·(columns) + .3"""
    model = nn.Linear(len(columns[0]), len(columns)).double()
    model.weight.data.copy_(torch.stack(columns))
    nn.init.constant_(model.bias, 0.3)
    return model


def start_of(x: Tensor, sigma: float, seed: int) -> Tensor:
    return sigma * torch.randn(x.shape, generator=seeded(seed), dtype=x.dtype)


def check_linear(method, epsilon: float = 0.02, seed: int = 0):
    """f = c·(xᵀw + b), a row a c: ℓ = c²(δᵀw)², largest at δ = ±ε·sign(w), where R_s = mean of (c·ε·‖w‖₁)².

    g = 2c²(δᵀw)·w, so g/‖g‖_∞ = s·w/max|w| with s = sign(δᵀw) of the start, whatever c: a row must not be judged by
    the others'. One step reaches the corner if η·|w_j|/max|w| ≥ ε + |δ_j| for all j; η = 100·ε allows for 7 σ here.
    """
    x, model = randn(4, 6, seed=9), linear_model(W)
    start = start_of(x, epsilon, seed)
    found = method(
        model, x, squared_error, lambda x: GAIN[:, None] * model(x), epsilon=epsilon, sigma=epsilon,
        generator=seeded(seed),
    )  # fmt: skip
    close(found.before, (GAIN * (start @ W)).square().mean())
    close(found.delta, epsilon * (start @ W).sign()[:, None] * W.sign())
    close(found.term, (GAIN * epsilon * 7.75).square().mean(), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [1e-5, 0.02, 3.0])
def test_the_worst_point_of_a_linear_model(epsilon):
    for seed in range(5):
        check_linear(smoothness, epsilon, seed)


@wrong_methods("descends", "of size 1", "one norm for the batch", "starts anywhere", "sum, not mean")
def test_a_wrong_method_misses_the_worst_point_of_a_linear_model(wrong):
    with pytest.raises(AssertionError):
        check_linear(wrong)


def check_logistic(method, two_logits: bool, seed: int = 0):
    """The logit of "yes" z(x) = xᵀw + b moves by ±h = ±ε·‖w‖₁ and no farther, so R_s = ±h·(σ(z ± h) - σ(z)).

    To which side, the start decides: g = ∂ℓ/∂z · w, and ℓ grows from z on to both sides. Of two logits z_0 and z_1 it
    is z = z_1 - z_0 that counts, so w = w_1 - w_0. h = 2.3 here: no quadratic.
    """
    epsilon, x, other = 0.3, randn(4, 6, seed=9), torch.linspace(-1, 1, 6).double()
    model = linear_model(other, W + other) if two_logits else linear_model(W)
    divergence = symmetric_kl if two_logits else bernoulli_symmetric_kl
    z = x @ W + (0.0 if two_logits else 0.3)
    start = start_of(x, epsilon, seed)
    h = (start @ W).sign() * epsilon * 7.75
    found = method(model, x, divergence, epsilon=epsilon, sigma=epsilon, generator=seeded(seed))
    before = (start @ W) * ((z + start @ W).sigmoid() - z.sigmoid())
    close(found.before, before.mean())
    close(found.delta, epsilon * (start @ W).sign()[:, None] * W.sign())
    close(found.term, (h * ((z + h).sigmoid() - z.sigmoid())).mean(), rtol=1e-6)


@pytest.mark.parametrize("two_logits", [False, True])
def test_the_worst_point_of_a_logistic_model(two_logits):
    for seed in range(5):
        check_logistic(smoothness, two_logits, seed)


@wrong_methods("descends", "of size 1", "starts anywhere", "sum, not mean")
@pytest.mark.parametrize("two_logits", [False, True])
def test_a_wrong_method_misses_the_worst_point_of_a_logistic_model(wrong, two_logits):
    with pytest.raises(AssertionError):
        check_logistic(wrong, two_logits)


def test_a_row_without_a_slope_does_no_harm():
    """A row whose answer is always the same stays at its start, as far as that is in the ball; others climb."""
    x, model, gain = randn(2, 6, seed=9), linear_model(W), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = smoothness(model, x, squared_error, lambda x: gain * model(x), generator=seeded(0))
    close(found.delta[0], start_of(x, 1e-5, 0)[0].clamp(-1e-5, 1e-5))
    close(found.term, (1e-5 * 7.75) ** 2 / 2, rtol=1e-5)


def check_masked(method):
    """A row is three vectors of two numbers, and all count in f, but the mask lets only one or two be moved: of ‖w‖₁
    these two's share is left. (BERT has no slope at its pads, so that nothing would move them but the start.)"""
    x, model = randn(2, 3, 2, seed=9), linear_model(W)
    found = method(
        model, x, squared_error, lambda x: model(x.flatten(1)), mask=torch.tensor([[1, 1, 0], [0, 1, 0]]), steps=2,
        generator=seeded(0),
    )  # fmt: skip
    assert (found.delta != 0).tolist() == [
        [[True] * 2, [True] * 2, [False] * 2],
        [[False] * 2, [True] * 2, [False] * 2],
    ]
    close(found.term, 1e-10 * (6.5**2 + 2.5**2) / 2, rtol=1e-6)


def test_what_is_masked_stays_though_f_would_see_it():
    check_masked(smoothness)
    check_masked(algorithm_1())
    with pytest.raises(AssertionError):
        check_masked(WRONG["pads move"])


def test_steps_climb_to_a_corner_and_the_best_of_many_starts_is_the_worst_of_all_corners():
    """f = xW with three outputs: ℓ = ‖δW‖² is convex, so its maximum over the ball is one of the 2⁶ corners.

    From a corner δ a long step goes to ε·sign(W·Wᵀδ): where that is δ itself the climb is over.
    """
    epsilon, weight, x = 0.1, randn(3, 6, seed=3), randn(1, 6, seed=9)
    model = linear_model(*weight)
    corners = epsilon * torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=torch.float64)
    best = (corners @ weight.T).square().sum(dim=1).max()
    how = dict(epsilon=epsilon, sigma=epsilon, eta=1e6)
    found = [smoothness(model, x, squared_error, steps=8, generator=seeded(seed), **how) for seed in range(30)]
    for seed, (term, _, delta) in enumerate(found):
        assert term <= best * (1 + 1e-12)
        close(delta, epsilon * (delta @ weight.T @ weight).sign())
        first = smoothness(model, x, squared_error, generator=seeded(seed), **how)
        close(first.delta, epsilon * (start_of(x, epsilon, seed) @ weight.T @ weight).sign())
        assert first.term <= term
    close(max(term for term, _, _ in found), best)
    assert len({round(term.item(), 9) for term, _, _ in found}) > 1  # there are other, lower tops


def test_relative_noise_by_hand():
    """f = xᵀw on rows of two vectors (w over both): g/‖g‖_∞ = s·w/3; then each vector's δ is as long as its x says."""
    x = torch.tensor([[[1.0, -4.0, 2.0], [0.5, 0.0, 0.1]]], dtype=torch.float64)
    model, size = linear_model(W), 0.05 * torch.tensor([[[4.0], [0.5]]])
    how = dict(f=lambda x: model(x.flatten(1)), epsilon=0.05, sigma=1e-3, noise="relative")
    start = start_of(x, 1e-3, 0)
    step = start + 5.0 * (start.flatten() @ W).sign() * W.reshape(1, 2, 3) / 3.0
    by_hand = size * step / step.abs().amax(dim=-1, keepdim=True)
    found = smoothness(model, x, squared_error, generator=seeded(0), **how)
    close(found.delta, by_hand, rtol=1e-6)
    close(found.term, (by_hand.flatten() @ W).square(), rtol=1e-6)
    short = smoothness(model, x, squared_error, generator=seeded(0), **how, eta=1e-9)
    close(short.delta.abs().amax(dim=-1, keepdim=True), size, rtol=1e-6)  # scaled up as well as down


@every_way
def test_relative_noise_is_the_same_share_of_every_vector_and_none_of_a_pad(task, pairs):
    here = case(task, pairs)
    delta = here.search(epsilon=0.05, noise="relative").delta
    assert here.x.requires_grad and not delta.requires_grad  # to size it up, x is a number
    share = delta.abs().amax(-1) / here.x.detach().abs().amax(-1)
    close(share, 0.05 * here.batch.attention_mask.double())
    assert here.search(epsilon=0.05, sigma=0.0, noise="relative").delta.abs().max() == 0  # nowhere to go: no NaN


def test_every_noise_has_its_epsilon():
    assert smart.EPSILON.keys() == smart.NOISE.keys()


# ---------------------------------------------------------------------------------------------- in a small BERT


def check_climb(method, task: str = "sst", pairs: str = "separate", seeds=range(3), **how):
    """After a step R_s is more than before; nothing has left the ball; pads have not moved, and all else has."""
    for seed in seeds:
        here = case(task, pairs, seed=seed)
        term, before, delta = here.search(method, seed, **how)
        assert term > before > 0
        assert term > 2 * before or how
        assert delta.abs().max() <= how.get("epsilon", 1e-5)
        assert (delta[here.batch.attention_mask == 0] == 0).all()
        assert (delta[here.batch.attention_mask == 1] != 0).all()


@every_way
def test_a_step_climbs_and_stays_in_the_ball(task, pairs):
    check_climb(smoothness, task, pairs, seeds=range(17))  # 6 · 17 = 102 models, batches and starts


@wrong_methods("of size 1", "pads move")
def test_a_climb_out_of_the_ball_or_on_pads_shows(wrong):
    with pytest.raises(AssertionError):
        check_climb(wrong)


@every_way
def test_a_short_step_climbs_too(task, pairs):
    """A long step down would end in the opposite corner, which is nearly as bad (ℓ is a quadratic): it is the short
    ones that tell up from down."""
    check_climb(smoothness, task, pairs, eta=1e-6, sigma=2e-6)


def test_a_short_step_down_shows():
    with pytest.raises(AssertionError):
        check_climb(WRONG["descends"], eta=1e-6, sigma=2e-6)


@every_way
def test_more_steps_find_no_less(task, pairs):
    """A convex ℓ cannot fall in a step δ' = Π(δ + ηg) from a δ in the ball: ℓ(δ') ≥ ℓ(δ) + gᵀ(δ' - δ), and Π makes
    gᵀ(δ' - δ) ≥ ‖δ' - δ‖²/η. Around x, for a small ε, ℓ is a convex quadratic."""
    more = 0
    for seed in range(5):
        here = case(task, pairs, seed=seed)
        terms = [here.search(seed=seed, steps=K).term for K in (1, 2, 3)]
        assert terms[0] * (1 - 1e-4) <= terms[1] and terms[1] * (1 - 1e-4) <= terms[2]
        more += terms[2] > 1.0001 * terms[0]
    assert more  # or else further steps would do nothing at all


def test_one_step_whatever_k_shows():
    with pytest.raises(AssertionError):
        check_literal(WRONG["one step whatever K"], steps=3)


@wrong_methods("descends", "of size 1", "one norm for the batch", "starts anywhere", "pads move", "sum, not mean",
               "clean pass detached", "perturbed pass detached", "x̃ detached from x")  # fmt: skip
def test_a_wrong_method_is_not_algorithm_1(wrong):
    with pytest.raises(AssertionError):
        check_literal(wrong)


def check_no_noise(method, task: str, pairs: str, dtype=torch.float32):
    """Where δ must be 0, R_s is: with dropout of ½ everywhere and the model in training."""
    here = case(task, pairs, dropout=0.5, dtype=dtype)
    here.model.train()
    assert not torch.equal(here.f(here.x), here.f(here.x))
    for how in ({"sigma": 0.0}, {"epsilon": 0.0}, {"epsilon": 1e-30, "sigma": 0.0, "steps": 2}):
        term, before, delta = here.search(method, **how)
        assert term.abs() < 1e-9 and delta.abs().max() < 1e-29
        assert how.get("sigma") != 0 or before.abs() < 1e-9


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_perturbation_no_term_whatever_the_dropout(task, pairs, dtype):
    check_no_noise(smoothness, task, pairs, dtype)


@every_way
def test_dropout_that_stays_on_drowns_the_term(task, pairs):
    with pytest.raises(AssertionError):
        check_no_noise(WRONG["dropout stays on"], task, pairs)
    here = case(task, pairs, dropout=0.5)
    assert here.search(WRONG["dropout stays on"]).term > 1e5 * here.search().term


def check_yes_or_no(divergence):
    """The one logit of a pair of questions moves, and the term sees it."""
    here = case("para", dtype=torch.float32)
    found = smoothness(here.model, here.x, divergence, here.f, mask=here.batch.attention_mask, generator=seeded(0))
    assert found.term > 1e-12


def test_the_task_s_own_divergence_sees_a_single_logit():
    check_yes_or_no(TASKS["para"].divergence)


def test_a_softmax_of_a_single_logit_sees_nothing():
    with pytest.raises(AssertionError):
        check_yes_or_no(symmetric_kl)


def test_the_tasks_have_the_divergence_of_their_outputs():
    """Of K logits, of one, and of numbers from 0 to 5 that the loss maps to 0…1."""
    a, b = randn(4, 5), randn(4, 5, seed=1)
    close(TASKS["sst"].divergence(a, b), kl_both_ways(a, b))
    close(TASKS["cfimdb"].divergence(a[:, :2], b[:, :2]), kl_both_ways(a[:, :2], b[:, :2]))
    a, b = a[:, :1], b[:, :1]
    close(TASKS["para"].divergence(a, b), kl_both_ways(F.pad(a, (1, 0)), F.pad(b, (1, 0))))
    close(TASKS["sts"].divergence(a, b).mean(), TASKS["sts"].loss(a, b[:, 0]))


def in_the_table(here: Case, epsilon: float = 1e-5) -> Tensor:
    """Wrong: the embedding table is perturbed, a row of it for all places of a word. Returns δ of the embeddings."""
    random = torch.randn(V, C, generator=seeded(0), dtype=here.x.dtype).mul_(epsilon).requires_grad_()
    distances = TASKS[here.batch.task].divergence(here.f(here.x + random[here.batch.input_ids]), here.f(here.x))
    (g,) = torch.autograd.grad(distances.sum(), random)
    return (random + 100 * epsilon * g / g.abs().max()).clamp(-epsilon, epsilon)[here.batch.input_ids].detach()


def check_places(delta_of):
    """The same word at two places of a sentence is nudged in two directions: it is two vectors of x."""
    here = case("sst")
    delta = delta_of(here)
    assert here.batch.input_ids[0, 1] == here.batch.input_ids[0, 2]
    assert not torch.equal(delta[0, 1], delta[0, 2])


def test_places_are_nudged_not_words():
    check_places(lambda here: here.search().delta)
    with pytest.raises(AssertionError):
        check_places(in_the_table)


@every_way
def test_float32_finds_what_float64_finds(task, pairs):
    """ε = 1e-5 in float32, from the same start: R_s is 1e-10 or less, made of differences in the last digits."""
    here, double = case(task, pairs, dtype=torch.float32), case(task, pairs)
    double.model.load_state_dict(here.model.state_dict())
    start = torch.randn(here.x.shape, generator=seeded(0)).double()
    found, right = here.search(), double.search(algorithm_1(start), x=here.x.detach().double())
    close(found.term.double(), right.term, rtol=0.1)
    close(found.before.double(), right.before, rtol=0.2)


# ---------------------------------------------------------------------------------------------- the term's gradient

SOME = (
    "bert.word_embedding.weight", "bert.embed_layer_norm.weight", "bert.bert_layers.0.interm_dense.weight",
    "bert.bert_layers.1.self_attention.query.weight", "bert.pooler_dense.bias",
)  # fmt: skip


def check_gradient(method, task: str = "para", pairs: str = "separate"):
    """d term / dθ for a δ that is held fixed, by central differences along a random direction of each parameter."""
    here = case(task, pairs)
    names = [*SOME, *(name for name, _ in here.model.named_parameters() if name.startswith(f"heads.{task}."))]
    parameters = [dict(here.model.named_parameters())[name] for name in names]
    found = here.search(method, epsilon=1e-2, sigma=1e-2)
    gradients = torch.autograd.grad(found.term, parameters)

    @torch.no_grad()
    def term() -> Tensor:
        x = here.model.embed(here.batch)
        return TASKS[task].divergence(here.f(x + found.delta), here.f(x)).mean()

    close(found.term, term())
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        direction, theta = randn(*parameter.shape, seed=i), parameter.data.clone()
        parameter.data = theta + 1e-6 * direction
        up = term()
        parameter.data = theta - 1e-6 * direction
        down = term()
        parameter.data = theta
        close((up - down) / 2e-6, (gradient * direction).sum(), rtol=1e-4, atol=1e-4 * gradient.norm().item())


@every_way
def test_the_term_s_gradient_by_finite_differences(task, pairs):
    check_gradient(smoothness, task, pairs)


@wrong_methods("clean pass detached", "perturbed pass detached", "x̃ detached from x", "sum, not mean")
def test_a_gradient_through_one_pass_shows(wrong):
    with pytest.raises(AssertionError):
        check_gradient(wrong)


def test_a_term_of_detached_numbers_has_no_gradient():
    with pytest.raises(RuntimeError, match="does not require grad"):
        check_gradient(WRONG["detached numbers"])


def check_quarter(method):
    """Half the δ, a quarter of the gradient: with d = f(x+δ) - f(x) it is 2d·∂d/∂θ, and both are as small as δ.

    Through one pass alone it would be 2d·∂f/∂θ, half: as if the answer itself, not its change, were to be unlearnt.
    """
    for task, pairs in WAYS:
        here = case(task, pairs)
        norms = []
        for size in (1e-4, 5e-5):
            term = here.search(method, epsilon=size, sigma=size, steps=2).term
            gradients = torch.autograd.grad(term, list(here.model.parameters()), allow_unused=True, retain_graph=True)
            norms.append(sum(g.square().sum() for g in gradients if g is not None).sqrt())
        close(norms[0] / norms[1], torch.tensor(4.0, dtype=torch.float64), rtol=0.05)


def test_half_the_perturbation_is_a_quarter_of_the_gradient():
    check_quarter(smoothness)


@wrong_methods("clean pass detached", "perturbed pass detached")
def test_half_the_perturbation_is_half_of_a_wrong_gradient(wrong):
    with pytest.raises(AssertionError):
        check_quarter(wrong)


def check_x_gradient(method):
    """f = Σ w·x²: d = f(x+δ) - f(x) = Σ w(2xδ + δ²), so ∂d²/∂x = 2d·2wδ. (Of one pass: 2d·2w(x+δ), or -2d·2wx.)"""
    x = randn(4, 6, seed=9).requires_grad_()
    model = linear_model(W)
    found = method(model, x, squared_error, lambda x: model(x**2), epsilon=0.1, sigma=0.1, generator=seeded(0))
    (g,) = torch.autograd.grad(found.term, x)
    d = (2 * x * found.delta + found.delta**2) @ W
    close(found.term, d.square().mean())
    close(g, 2 * d[:, None] * 2 * W * found.delta / 4)
    assert not found.before.requires_grad and not found.delta.requires_grad


def test_x_gets_its_gradient_through_both_passes():
    check_x_gradient(smoothness)


@wrong_methods("clean pass detached", "perturbed pass detached", "x̃ detached from x")
def test_x_s_gradient_through_one_pass_shows(wrong):
    with pytest.raises(AssertionError):
        check_x_gradient(wrong)


def test_without_gradients_the_numbers_are_the_same():
    here = case("sst")
    found = here.search(steps=2)
    with torch.no_grad():
        again = here.search(steps=2)
    assert torch.equal(again.term, found.term) and torch.equal(again.delta, found.delta)
    assert found.term.requires_grad and not again.term.requires_grad


def test_a_clean_pass_is_used_where_there_is_one():
    """One pass for each step, one for the term, and one more if the answer to x is not known yet."""
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
    assert torch.equal(*(torch.autograd.grad(found.term, words, retain_graph=True)[0] for found in (fresh, given)))


# ---------------------------------------------------------------------------------------------- what is left behind


def mixed_case(**options) -> Case:
    """A model in training, parts of which are not, with gradients here and there, and with a frozen part."""
    here = case("para", dropout=0.5, dtype=torch.float32, **options)
    here.model.train()
    here.model.bert.bert_layers[0].eval()
    here.model.heads["para"].dropout.eval()
    here.model.bert.pooler_dense.requires_grad_(False)
    for i, parameter in enumerate(here.model.parameters()):
        if i % 2 and parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float(i))
    return Case(here.model, here.batch, here.model.embed(here.batch))


def state(model: nn.Module) -> list:
    """All that a search might change and must not."""
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [tensor.tolist() for tensor in model.state_dict().values()],
        torch.get_rng_state().tolist(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
    ]


def check_state(method):
    here = mixed_case()
    before = state(here.model)
    assert True in before[0] and False in before[0] and None in before[2] and len(set(map(str, before[2]))) > 2
    found = here.search(method, steps=2)
    assert state(here.model) == before
    (2 * found.term).backward()
    assert state(here.model)[2] != before[2]


def test_a_search_leaves_everything_as_it_was():
    check_state(smoothness)


@wrong_methods("into .grad", "leaves the model in eval", "leaves the model in train", "dropout stays on")
def test_a_search_that_leaves_traces_shows(wrong):
    with pytest.raises(AssertionError):
        check_state(wrong)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_search_that_breaks_off_leaves_everything_as_it_was_too(call, bf16):
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


def test_the_start_comes_from_the_generator_or_from_pytorchs_chance():
    here = case("sst")
    assert torch.equal(here.search(seed=5).delta, here.search(seed=5).delta)
    assert not torch.equal(here.search(seed=5).delta, here.search(seed=6).delta)
    how = dict(divergence=symmetric_kl, f=here.f, mask=here.batch.attention_mask)
    torch.manual_seed(5)
    assert torch.equal(smoothness(here.model, here.x, **how).delta, here.search(seed=5).delta)
    random = seeded(5)
    two = [smoothness(here.model, here.x, **how, generator=random).delta for _ in range(2)]
    assert not torch.equal(*two)  # a generator goes on


class Watched(torch.autograd.Function):
    """The identity, which notes whenever a gradient passes."""

    passed = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        Watched.passed += 1
        return g


def check_no_weight_gradients(method):
    """f = x·w + b: a gradient of w costs as much as one of x. The search must not compute it, only the term's does."""
    model, x = linear_model(W), randn(4, 6)

    def f(x):
        return F.linear(x, Watched.apply(model.weight), model.bias)

    Watched.passed = 0
    found = method(model, x, squared_error, f, steps=3, generator=seeded(0))
    assert Watched.passed == 0
    found.term.backward()
    assert Watched.passed == 2  # through f(x̃) and through f(x)


def test_the_search_computes_no_gradient_of_a_weight():
    check_no_weight_gradients(smoothness)


@wrong_methods("into .grad", "clean pass detached")
def test_a_gradient_of_a_weight_shows(wrong):
    with pytest.raises(AssertionError):
        check_no_weight_gradients(wrong)


# ---------------------------------------------------------------------------------------------- number formats


def check_autocast(method, task: str = "sst", pairs: str = "separate"):
    """Inside autocast the same numbers as outside. bf16 has 8 bits: it tells 1 from 1.004, not from 1.00001."""
    here = case(task, pairs, dtype=torch.float32)
    outside = here.search(method)
    with torch.autocast("cpu", torch.bfloat16):
        inside = here.search(method)
        assert torch.is_autocast_enabled("cpu")
    close(inside.term, outside.term, rtol=1e-3)
    close(inside.before, outside.before, rtol=1e-3)
    assert torch.equal(inside.delta, outside.delta)
    here.model.precision = "bf16"  # which is about `model.autocast()` alone
    close(here.search(method).term, outside.term, rtol=1e-3)


@every_way
def test_inside_autocast_the_term_is_the_same(task, pairs):
    check_autocast(smoothness, task, pairs)


@every_way
def test_autocast_that_stays_on_shows(task, pairs):
    with pytest.raises(AssertionError):
        check_autocast(WRONG["autocast stays on"], task, pairs)
    here = case(task, pairs, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rough, right = here.search(WRONG["autocast stays on"]).term, here.search().term
    assert not right / 3 < rough < 3 * right


def test_f_sees_no_autocast_and_no_dropout_but_its_surroundings_do():
    here, seen = mixed_case(), []

    def f(x):
        seen.append((torch.is_autocast_enabled("cpu"), any(module.training for module in here.model.modules())))
        logits = here.f(x)
        assert logits.dtype == torch.float32 and (x @ x.mT).dtype == torch.float32
        return logits

    with torch.autocast("cpu", torch.bfloat16):
        smoothness(here.model, here.x, bernoulli_symmetric_kl, f, generator=seeded(0))
        assert (here.x @ here.x.mT).dtype == torch.bfloat16
    assert seen == [(False, False)] * 3


def test_exact_can_stand_in_exact():
    model = mixed_case().model
    modes = [module.training for module in model.modules()]
    with exact(model), exact(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with exact(nn.ReLU()) as nothing:  # a model without parameters has no device to ask for
        assert nothing is None


CHECKS = [check_literal, check_linear, check_climb, check_gradient, check_quarter, check_x_gradient, check_state,
          check_no_weight_gradients, check_autocast]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_literal_algorithm_passes_every_check(check):
    """So it is what was made wrong in them, and nothing else, that the wrong ones fail for."""
    check(algorithm_1())


def test_the_literal_algorithm_passes_the_other_checks():
    for two_logits in (False, True):
        check_logistic(algorithm_1(), two_logits)
    for task, pairs in WAYS:
        check_no_noise(algorithm_1(), task, pairs)
        check_autocast(algorithm_1(), task, pairs)
    check_climb(algorithm_1(), eta=1e-6, sigma=2e-6)
    check_literal(algorithm_1(), steps=3)


# ---------------------------------------------------------------------------------------------- nearness, D


def numbers(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """The same model, all that trains moved a little."""
    for i, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            parameter += size * randn(*parameter.shape, seed=seed + i).to(parameter.dtype)
    return model


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


def check_average(kind, n: int = 40, betas=(0.9, 0.97)):
    """θ̃_n = Σ_k (1-β_k)·β_{k+1}…β_n·θ_k + β_1…β_n·θ_0, with the first β while less than a tenth is done.

    For a single β: (1-β)·Σ_k β^(n-k)·θ_k + βⁿ·θ_0.
    """
    for two in (betas, (0.9, 0.9)):
        model = nn.Linear(3, 2)
        thetas = [0.5 * randn(2, 3, seed=k).float() for k in range(n + 1)]
        model.weight.data.copy_(thetas[0])
        proximal = kind(model, two)
        used = []
        for k in range(1, n + 1):
            model.weight.data.copy_(thetas[k])
            progress = (k - 1) / n
            proximal.update(progress)
            used.append(two[0] if k <= n // 10 else two[1])
        weights = [torch.tensor(used[k:]).double().prod() for k in range(n + 1)]  # β_{k+1}…β_n
        closed = weights[0] * thetas[0].double()
        for k in range(1, n + 1):
            closed = closed + (1 - used[k - 1]) * weights[k] * thetas[k].double()
        close(proximal.average["weight"].double(), closed, rtol=0, atol=1e-6)
        if two[0] == two[1]:
            plain = sum(0.1 * 0.9 ** (n - k) * thetas[k].double() for k in range(1, n + 1)) + 0.9**n * thetas[0]
            close(closed, plain, rtol=1e-5)


def test_the_running_mean_in_closed_form():
    check_average(Proximal)


@pytest.mark.parametrize("wrong", [Swapped, OneBeta, Late, NoMean])
def test_a_wrong_mean_shows(wrong):
    with pytest.raises(AssertionError):
        check_average(wrong)


def test_the_papers_betas_are_the_default():
    """One step from 0 to 1: θ̃ is 1 - β, .01 in the first tenth and .001 from then on, and by default at any time."""
    for progress, expected in (((0.0,), 0.01), ((0.0999,), 0.01), ((0.1,), 0.001), ((1.0,), 0.001), ((), 0.001)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        proximal = Proximal(model)
        nn.init.ones_(model.weight)
        proximal.update(*progress)
        assert proximal.average["weight"].item() == pytest.approx(expected, rel=1e-5)


def by_hand(proximal: Proximal, outputs: Tensor, divergence, batch: Batch) -> Tensor:
    """D with a second model for θ̃."""
    anchor = copy.deepcopy(proximal.model).eval()
    parameters = dict(anchor.named_parameters())
    for name, mean in proximal.average.items():
        parameters[name].data.copy_(mean)
    return divergence(outputs, anchor(batch).detach()).mean()


class NoExact(Proximal):
    """Wrong: dropout falls on f(x; θ̃)."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad():
            return divergence(outputs, torch.func.functional_call(self.model, self.average, inputs)).mean()


class Untied(Proximal):
    """Wrong: a weight that has two names is θ̃'s by one and θ's by the other."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            anchor = torch.func.functional_call(self.model, self.average, inputs, tie_weights=False)
        return divergence(outputs, anchor).mean()


class OfItself(Proximal):
    """Wrong: f(x; θ) on both sides."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            return divergence(outputs, self.model(*inputs)).mean()


SHARED = {"heads": {"para": "relational", "sts": "relational"}}


def check_nearness(kind, task: str, pairs: str, **options):
    """0 at the start; then the distance from a copy of the model that has θ̃, in value and in the outputs' gradient."""
    here = case(task, pairs, dropout=0.5, dtype=torch.float32, **options)
    model, batch, divergence = here.model.train(), here.batch, TASKS[task].divergence
    proximal = kind(model, (0.9, 0.9))

    def outputs() -> Tensor:
        with exact(model):
            return model(batch)

    assert proximal(outputs(), divergence, batch) == 0
    for k in range(3):
        shaken(model, seed=100 * k)
        proximal.update()
    y = outputs().detach().requires_grad_()
    ours, expected = proximal(y, divergence, batch), by_hand(proximal, y, divergence, batch)
    assert expected > 1e-6
    close(ours, expected, rtol=1e-5)
    close(*(torch.autograd.grad(D, y)[0] for D in (ours, expected)), rtol=1e-4, atol=1e-7)


@every_way
def test_nearness_is_the_distance_from_a_second_model(task, pairs):
    check_nearness(Proximal, task, pairs)


@pytest.mark.parametrize("task", ["para", "sts"])
def test_nearness_where_two_heads_share_a_layer(task):
    check_nearness(Proximal, task, "separate", **SHARED)


@pytest.mark.parametrize("wrong", [NoExact, OfItself])
def test_a_wrong_nearness_shows(wrong):
    with pytest.raises(AssertionError):
        check_nearness(wrong, "para", "separate")


def check_tied(kind):
    """f(x) = W·tanh(W·x), one weight under two names (as a language model's embedding and its output layer)."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    proximal, x, y = kind(model, (0.5, 0.5)), randn(4, 3), randn(4, 3, seed=1)
    old = model[0].weight.detach().clone()
    proximal.update()
    shaken(model)
    proximal.update()
    mean = 0.5 * (old + model[0].weight)
    assert list(proximal.average) == ["0.weight"]
    close(proximal(y, squared_error, x), (y - (x @ mean.T).tanh() @ mean.T).square().sum(dim=1).mean(), rtol=1e-6)


class LeavesItselfBehind(Proximal):
    """Wrong: PyTorch's own exchange of weights forgets to undo itself in a module that has two names."""

    def __call__(self, outputs, divergence, *inputs):
        with torch.no_grad(), exact(self.model):
            anchor = torch.func.functional_call(self.model, self.average, inputs)
        return divergence(outputs, anchor).mean()


def check_the_model_is_left_alone(kind):
    """The same parameters, with the same numbers, after a look at θ̃: also of a layer that two heads share."""
    here = case("para", heads=SHARED["heads"])
    proximal = kind(here.model, (0.5, 0.5))
    proximal.update()
    before = [(name, p, p.detach().clone()) for name, p in shaken(here.model).named_parameters()]
    proximal(here.f(here.x), TASKS["para"].divergence, here.batch)
    after = dict(here.model.named_parameters())
    assert all(after[name] is p and torch.equal(p, value) for name, p, value in before) and len(after) == len(before)
    assert not any(torch.equal(proximal.average[name], value) for name, _, value in before)


def test_a_look_at_the_mean_leaves_the_model_alone():
    check_the_model_is_left_alone(Proximal)
    with pytest.raises((AssertionError, KeyError)):
        check_the_model_is_left_alone(LeavesItselfBehind)


def test_nearness_where_a_weight_is_used_twice():
    check_tied(Proximal)
    with pytest.raises(AssertionError):
        check_tied(Untied)


def test_nearness_inside_autocast_is_the_same():
    here = case("sst", dtype=torch.float32)
    proximal = Proximal(here.model)
    y = here.model(here.batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert proximal(y, symmetric_kl, here.batch) == 0
        assert not torch.equal(here.model(here.batch), y)


def test_nearness_and_its_mean_leave_everything_as_it_was():
    """The gradient goes into the outputs, and by them into θ; never past them, and never into θ̃."""
    here = mixed_case()
    model, batch = here.model, here.batch
    proximal = Proximal(model, (0.5, 0.5))
    shaken(model)
    before, theta = state(model), numbers(model)
    y = torch.zeros(3, 1, requires_grad=True)
    D = proximal(y, bernoulli_symmetric_kl, batch)
    D.backward()
    assert y.grad.abs().sum() > 0 and state(model) == before
    proximal.update()
    assert state(model) == before and all(torch.equal(p, theta[name]) for name, p in model.named_parameters())
    assert not any(mean.requires_grad for mean in proximal.average.values())
    with pytest.raises(AttributeError):
        proximal(y, bernoulli_symmetric_kl, "no batch")
    assert state(model) == before
    assert all(torch.equal(p, theta[name]) for name, p in model.named_parameters())  # θ̃ has not taken θ's place


def test_the_answer_of_the_mean_has_no_gradient():
    """Neither into what goes in, nor into what was frozen when the mean was taken and is not now. D = (y - f̃(x))²."""
    model, x = linear_model(W), randn(4, 6).requires_grad_()
    model.bias.requires_grad_(False)
    proximal = Proximal(model)
    model.bias.requires_grad_()
    y = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    D = proximal(y, squared_error, x)
    gradients = torch.autograd.grad(D, (y, x, model.weight, model.bias), allow_unused=True)
    close(gradients[0], -2 * (x @ W + 0.3)[:, None] / 4)
    assert gradients[1:] == (None, None, None)


@pytest.mark.parametrize("options", [{}, SHARED])
def test_only_what_trains_has_a_mean(options):
    """The memory is one copy of the trained parameters, a shared one once. What is frozen is θ's, whatever it is."""
    here = case("para", dtype=torch.float32, **options)
    model = here.model
    assert sum(mean.numel() for mean in Proximal(model).average.values()) == sum(p.numel() for p in model.parameters())
    model.bert.requires_grad_(False)
    proximal = Proximal(model, (0.9, 0.9))
    heads = numbers(model.heads)
    assert proximal.average.keys() == {f"heads.{name}" for name in heads}
    places = {p.data_ptr() for p in model.parameters()}
    assert not places & {mean.data_ptr() for mean in proximal.average.values()}  # copies, not θ itself
    shaken(model)
    proximal.update()
    for name, mean in proximal.average.items():
        close(mean, 0.9 * heads[name.removeprefix("heads.")] + 0.1 * numbers(model)[name], rtol=1e-5, atol=1e-6)
    y = model(here.batch)
    close(proximal(y, bernoulli_symmetric_kl, here.batch), by_hand(proximal, y, bernoulli_symmetric_kl, here.batch))


def distance_trained(mu: float) -> float:
    """How far the outputs get from the first in 60 steps with a loss that pulls them up without end."""
    model, x = linear_model(W), randn(8, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    proximal, first = Proximal(model, (0.99, 0.99)), model(x).detach()
    for _ in range(60):
        y = model(x)
        loss = -y.mean() + mu * proximal(y, squared_error, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        proximal.update()
    return (model(x) - first).abs().max().item()


def test_a_large_weight_keeps_the_model_near():
    """At μ·(y - ỹ)² the pull of 1 is held at y - ỹ = 1/2μ, and ỹ follows by a hundredth of that a step."""
    assert distance_trained(1e3) < 0.1 * distance_trained(0.0)


def test_a_saved_mean_goes_on():
    here = case("sst", dtype=torch.float32)
    proximal = Proximal(here.model, (0.9, 0.9))
    shaken(here.model)
    proximal.update()
    file = io.BytesIO()
    torch.save(proximal.state_dict(), file)
    file.seek(0)
    again = Proximal(here.model, (0.9, 0.9))  # which begins at the weights of now
    y = here.model(here.batch).detach()
    assert again(y, symmetric_kl, here.batch) == 0
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again(y, symmetric_kl, here.batch) == proximal(y, symmetric_kl, here.batch) > 0
    for _ in range(2):
        shaken(here.model)
        for each in (proximal, again):
            each.update()
        assert all(torch.equal(mean, again.average[name]) for name, mean in proximal.average.items())


def test_a_loaded_mean_goes_its_own_way():
    one, other = (Proximal(linear_model(w), (0.5, 0.5)) for w in (W, 3 * W))
    other.load_state_dict(one.state_dict())
    close(other.average["weight"], W[None])
    other.update()
    close(other.average["weight"], 2 * W[None])
    close(one.average["weight"], W[None])


def test_the_mean_of_another_model_is_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    proximal = Proximal(model)
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    right = proximal.state_dict()
    for wrong in ({}, Proximal(frozen).state_dict(), right | {"2.weight": torch.zeros(1)}, right | {"1.bias": W}):
        before = copy.deepcopy(proximal.average)
        with pytest.raises(ValueError, match="not the average of this model"):
            proximal.load_state_dict(wrong)
        assert all(torch.equal(mean, before[name]) for name, mean in proximal.average.items())
