"""SMART: fine-tuning that stays smooth, and stays near (Jiang et al. 2020).

A big model that is fine-tuned on few examples bends sharply between them. SMART adds two terms to a task's loss,

    L(θ)  +  λ·R_s(θ)  +  μ·D(θ, θ̃)

Smoothness: the answer f(x) must not change when x, the embeddings of a sentence's tokens, is nudged a little.

    R_s = mean over examples of  max ℓ_s(f(x̃; θ), f(x; θ))  over all x̃ with ‖x̃ - x‖_∞ ≤ ε

The maximum is looked for by gradient ascent (the paper's Algorithm 1). Start from x̃ = x + N(0, σ²), and K times

    g = ∇_x̃ ℓ_s(f(x̃), f(x))                    who changes the answer most?
    x̃ ← Π_ε(x̃ + η·g/‖g‖_∞)                     go there; but no number of x̃ ends farther than ε from that of x

Nearness: the Bregman proximal point method keeps the answers near those of θ̃, a running mean of the weights so far.

    D = mean over examples of  ℓ_s(f(x; θ), f(x; θ̃)),        θ̃ ← (1 - β)·θ + β·θ̃  after every step

ℓ_s says how far two answers are apart: a symmetric divergence of probabilities, or the squared error of numbers.

Four things go wrong in public code, and the term is worthless with each: δ = x̃ - x is scaled to a size of 1 and not
brought back to ε; dropout stays on, and its noise (at δ = 0!) drowns the term; the one logit of a yes-or-no answer goes
through a softmax, which is 1 whatever it says; the sum is made of detached numbers. All of this works on any module
and any f; nothing here knows BERT.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

Divergence = Callable[[Tensor, Tensor], Tensor]  # two outputs (B, K) → how far apart, (B,)

# ------------------------------------------------------------------------------------------ how far apart, ℓ_s


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) with p = softmax(a), q = softmax(b). a, b: (B, K) logits, K ≥ 2; returns (B,).

    The two sums are Σ_k (p_k - q_k)(log p_k - log q_k), and there log p - log q may be replaced by d = a - b: they
    differ by the same number for all k, and Σ_k (p_k - q_k) = 0. So may it by d less its mean, which rounds best.
    """
    d = a - b
    return ((a.softmax(dim=-1) - b.softmax(dim=-1)) * (d - d.mean(dim=-1, keepdim=True))).sum(dim=-1)


def bernoulli_symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """The same for yes-or-no answers with p = σ(a), q = σ(b). a, b: (B, 1), one logit each; returns (B,)."""
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum(dim=-1)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Σ_k (a_k - b_k)², for outputs that are numbers. a, b: (B, K); returns (B,)."""
    return (a - b).square().sum(dim=-1)


# ------------------------------------------------------------------------------------------ smoothness, R_s


class Smoothness(NamedTuple):
    """What `smoothness` found. term: R_s, to be added to the loss. before: the same at the random start, for the log.
    delta: x̃ - x, of x's shape. Gradients flow through `term` alone."""

    term: Tensor
    before: Tensor
    delta: Tensor


def smoothness(
    model: nn.Module,
    x: Tensor,
    divergence: Divergence,
    f: Callable[[Tensor], Tensor] | None = None,
    *,
    clean: Tensor | None = None,
    mask: Tensor | None = None,
    epsilon: float = 1e-5,
    sigma: float = 1e-5,
    eta: float | None = None,
    steps: int = 1,
    noise: str = "ball",
    generator: torch.Generator | None = None,
) -> Smoothness:
    """R_s at x, by Algorithm 1.

    model: whose dropout to hold still. x: (R, ...), embeddings. f: of x, (B, outputs); `model` itself if None.
    clean: f(x) where the caller has it already, computed inside `exact(model)` or where that changes nothing.
    mask: (R, T), 1 where x may be moved, 0 for a pad. epsilon, sigma, eta, steps: ε, σ, η and K; eta None is 100·ε, as
    the paper's 1e-3 is to its 1e-5 (with a shorter η one step does not reach the edge of the ball). noise: a name from
    `NOISE`. generator: of the random start. ‖g‖_∞ is taken of each row of x by itself.

    Gradients flow through both f(x̃) and f(x) into θ, and into x. The search leaves every `.grad` as it is: its
    gradient is computed for x̃ alone. All passes run without dropout and without autocast: bf16 cannot tell x̃ from x.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    f = model if f is None else f
    bound, eta = NOISE[noise], 100 * epsilon if eta is None else eta
    with exact(model):
        clean = f(x) if clean is None else clean
        start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        keep = 1 if mask is None else mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())).to(x.dtype)
        delta, before = sigma * start * keep, None
        fixed, target = x.detach(), clean.detach()
        with torch.enable_grad():
            for _ in range(steps):
                delta.requires_grad_()
                loss = divergence(f(fixed + delta), target)
                (g,) = torch.autograd.grad(loss.sum(), delta)
                before = loss.detach().mean() if before is None else before
                g_max = g.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(g.dtype).tiny)  # ‖g‖_∞, (R,)
                g = g / g_max.reshape(-1, *[1] * (x.dim() - 1))
                delta = bound(delta.detach() + eta * g * keep, fixed, epsilon)
        return Smoothness(divergence(f(x + delta), clean).mean(), before, delta)


def ball(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Π_ε: the nearest δ with ‖δ‖_∞ ≤ ε, which is each number cut to [-ε, ε]. All (R, T, C)."""
    return delta.clamp(-epsilon, epsilon)


def relative(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Not the paper's: δ of each vector scaled, up or down, to ‖δ‖_∞ = ε·‖x‖_∞, a fixed share of what it is added to.

    Public packages normalise like this instead of projecting (and to 1, whatever ε says); "5% noise", ε = .05, is
    Trujillo & Mahvash's. It is far more than the paper's 1e-5.
    """
    size = delta.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return delta / size * epsilon * x.abs().amax(dim=-1, keepdim=True)


NOISE: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"ball": ball, "relative": relative}
EPSILON = {"ball": 1e-5, "relative": 0.05}  # the ε that goes with each


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Inside, `model` has no dropout and no autocast: equal inputs give equal outputs, close ones can be told apart.

    Afterwards every submodule is in train or eval mode as it was before.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next((p.device.type for p in model.parameters()), "cpu")
    model.eval()
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


# ------------------------------------------------------------------------------------------ nearness, D


class Proximal:
    """θ̃, the running mean of a model's weights, and the term that keeps the model's answers near its.

    betas: β in the first tenth of the training, and after (the paper's .99 and .999; twice the same for a constant).
    Memory: one copy of the parameters that train. θ̃ starts as θ.
    """

    def __init__(self, model: nn.Module, betas: tuple[float, float] = (0.99, 0.999)):
        self.model, self.betas = model, betas
        self.average = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def __call__(self, outputs: Tensor, divergence: Divergence, *inputs) -> Tensor:
        """D(θ, θ̃). outputs: what the model makes of `inputs` inside `exact`, with its gradient; θ̃'s has none."""
        with torch.no_grad(), exact(self.model):
            self._swap()
            try:
                anchor = self.model(*inputs)  # f(x; θ̃)
            finally:
                self._swap()
        return divergence(outputs, anchor).mean()

    def _swap(self):
        """Exchange θ and θ̃. (`torch.func.functional_call` leaves θ̃ behind in modules that have two names.)"""
        parameters = dict(self.model.named_parameters())
        for name, mean in self.average.items():
            parameters[name].data, self.average[name] = mean, parameters[name].data

    @torch.no_grad()
    def update(self, progress: float = 1.0):
        """To be called after every step. progress: the share of the training that is done, from 0 to 1."""
        beta = self.betas[0] if progress < 0.1 else self.betas[1]
        parameters = dict(self.model.named_parameters())
        for name, mean in self.average.items():
            mean.lerp_(parameters[name], 1 - beta)  # θ̃ ← (1-β)θ + βθ̃

    def state_dict(self) -> dict[str, Tensor]:
        return {name: mean.clone() for name, mean in self.average.items()}

    def load_state_dict(self, state: dict[str, Tensor]):
        if {name: p.shape for name, p in state.items()} != {name: p.shape for name, p in self.average.items()}:
            raise ValueError("not the average of this model: it has other parameters")
        for name, mean in self.average.items():
            mean.copy_(state[name])
