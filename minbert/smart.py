"""SMART: two terms that keep fine-tuning smooth, and near its earlier outputs (Jiang et al. 2020).

The outputs of a big model that is fine-tuned on few examples change sharply between the examples. SMART adds two terms
to a task's loss,

    L(θ)  +  λ·R_s(θ)  +  μ·D(θ, θ̃)

Smoothness: the output f(x) must change little when x, the embeddings of a sentence's tokens, changes a little.

    R_s = mean max ℓ_s(f(x̃; θ), f(x; θ))        mean over the examples, max over all x̃ with ‖x̃ - x‖_∞ ≤ ε

Gradient ascent searches for the maximum (the paper's Algorithm 1). It starts from x̃ = x + N(0, σ²), and K times

    g = ∇_x̃ ℓ_s(f(x̃), f(x))                    the direction in which the output changes most
    x̃ ← Π_ε(x̃ + η·g/‖g‖_∞)                     a step there; Π_ε keeps each number of x̃ within ε of that of x

The gradient is taken at x̃. At x itself it is 0, since ℓ_s has its minimum there (Algorithm 1 of Hollister, Cooper &
Brink has this error). ‖g‖_∞ is that of one row: the two sentences of a separate pair are two rows.

Nearness: the Bregman proximal point method keeps the outputs near those of θ̃, a running mean of the weights so far.

    D(θ, θ̃) = mean ℓ_s(f(x; θ), f(x; θ̃))        mean over the examples
    θ̃ ← (1 - β)·θ + β·θ̃                        after every step

ℓ_s measures how far two outputs are apart: a symmetric divergence of probabilities, or the squared error of numbers.

Four mistakes are common in public code, and each makes the term useless. δ = x̃ - x is scaled to a size of 1 and not
brought back to ε. Dropout stays on, and its noise is larger than the term even at δ = 0. The one logit of a yes-or-no
answer goes through a softmax, which is 1 whatever the logit is. The term is a sum of detached numbers, without a
gradient.

Without the two terms a model overfits where data are few: with 1,000 examples of each task minilm scores .634 on STS
after three epochs, and .751 with both terms (means of three seeds). The published ε = 1e-5 is so small that the first
term alone changes no digit of the first epoch's scores (minbert/recipes/RESULTS.md, "SMART on few examples").

All of this works on any module and any f; nothing here needs a BERT.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minbert.parser import Flag, at_least, betas, names, number, positive

FLAGS = {
    "smart": [
        Flag("--smart", "weight λ of the smoothness term (the paper has 1, 3 and 5, reports A and B 5); see "
             "minbert/smart.py", number, 0.0, "LAMBDA",
             example="100 --smart_epsilon 0.1"),
        Flag("--smart_epsilon", "radius ε around the embeddings (default: 1e-5, the paper's; 0.05 for relative noise)",
             positive, None, "E", needs="--smart", example="0.2"),
        Flag("--smart_sigma", "spread σ of the random start (default: 1e-5)", positive, None, "S", needs="--smart",
             example="0.1"),
        Flag("--smart_eta", "step η of the ascent (default: 100 ε, the paper's 1e-3)", positive, None, "H",
             needs="--smart", example="0.05"),
        Flag("--smart_steps", "steps K of the ascent (default: 1)", at_least(int, 1, most=1000), None, "K",
             needs="--smart", example="2"),
        Flag("--smart_noise", "the worst point within ε (default: ball), or noise of a fixed share of each vector, not "
             "the paper's", choices="smart.NOISE", needs="--smart", example="relative"),
        Flag("--smart_tasks", "of which tasks the smoothness counts (default: all of --tasks)", names, None, "LIST",
             needs="--smart", scripts="m", example="sst"),
    ],
    "bregman": [
        Flag("--bregman", "weight μ of the nearness to a running mean of the weights (the paper's: 1)", number, 0.0,
             "MU", example="100"),
        Flag("--bregman_beta", "its β; or two, with a comma: in the first tenth, and after (default: 0.995; the "
             "paper's: 0.99,0.999)", betas, None, "BETA", needs="--bregman", example="0.5"),
    ],
}  # fmt: skip

Divergence = Callable[[Tensor, Tensor], Tensor]  # two outputs → how far apart they are, one number an example

# ------------------------------------------------------------------------------------------ divergences, ℓ_s


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """The divergence of probabilities. a, b: (B, K) logits, K ≥ 2; returns (B,).

        ℓ_s = KL(p‖q) + KL(q‖p) = Σ_k (p_k - q_k)·(log p_k - log q_k)        p = softmax(a), q = softmax(b)

    Here d = a - b may replace log p - log q, for they differ by the same number for all k, and Σ_k (p_k - q_k) = 0. The
    code uses d less its mean, which rounds best.
    """
    d = a - b  # (B, K)
    return ((a.softmax(dim=-1) - b.softmax(dim=-1)) * (d - d.mean(dim=-1, keepdim=True))).sum(dim=-1)


def bernoulli_symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL both ways for yes-or-no answers. a, b: (B, 1), one logit each; returns (B,).

        ℓ_s = (p - q)·(a - b)        p = σ(a), q = σ(b)

    A softmax over one logit is 1 whatever the logit is: with `symmetric_kl` the term would be 0 and teach nothing.
    """
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum(dim=-1)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Σ_k (a_k - b_k)², for outputs that are numbers. a, b: (B, K); returns (B,)."""
    return (a - b).square().sum(dim=-1)


# ------------------------------------------------------------------------------------------ smoothness, R_s


class Smoothness(NamedTuple):
    """The result of `smoothness`. term: R_s, to be added to the loss. before: R_s at the random start, for the log.
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

    model: its dropout is switched off. x: (R, …), embeddings. f: from x to outputs; `model` itself if None.
    clean: (B, K), f(x) if the caller has computed it, inside `exact(model)` or without dropout and autocast.
    mask: (R, T), 1 where x may be moved, 0 for a pad. epsilon, sigma, eta, steps: ε, σ, η and K; eta None is 100·ε, the
    paper's ratio of 1e-3 to 1e-5 (with a shorter η one step does not reach the edge of the ball). noise: a name from
    `NOISE`. generator: of the random start. ‖g‖_∞ is taken over each row of x.

    Gradients flow through both f(x̃) and f(x) into θ, and into x. The search leaves every `.grad` as it is, for
    its gradient is of x̃ alone. All passes run without dropout and without autocast: in bf16 and fp16 x̃ rounds to x.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    f = model if f is None else f
    bound, eta = NOISE[noise], 100 * epsilon if eta is None else eta
    with exact(model):
        clean = f(x) if clean is None else clean  # (B, K)
        start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        keep = 1 if mask is None else mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())).to(x.dtype)
        delta, before = sigma * start * keep, None  # (R, …): x̃ - x, 0 at pads
        fixed, target = x.detach(), clean.detach()
        with torch.enable_grad():
            for _ in range(steps):
                delta.requires_grad_()
                loss = divergence(f(fixed + delta), target)  # (B,)
                (g,) = torch.autograd.grad(loss.sum(), delta)  # (R, …): ∇_x̃ ℓ_s, of x̃ alone
                before = loss.detach().mean() if before is None else before
                g_max = g.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(g.dtype).tiny)  # ‖g‖_∞, (R,)
                g = g / g_max.reshape(-1, *[1] * (x.dim() - 1))
                delta = bound(delta.detach() + eta * g * keep, fixed, epsilon)  # (R, …): Π_ε(δ + η·g/‖g‖_∞)
        return Smoothness(divergence(f(x + delta), clean).mean(), before, delta)


def ball(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Π_ε: the nearest δ with ‖δ‖_∞ ≤ ε, which is each number cut to [-ε, ε]. delta, x: (R, …). Returns (R, …)."""
    return delta.clamp(-epsilon, epsilon)


def relative(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Not in the paper: each vector's δ is scaled, up or down, to ‖δ‖_∞ = ε·‖x‖_∞, a fixed share of the vector.

    Public packages normalise in this way instead of projecting (and to 1, whatever ε is). Trujillo & Mahvash have "5%
    noise", ε = .05, which is far more than the paper's 1e-5.
    """
    size = delta.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)  # (R, …, 1)
    return delta / size * epsilon * x.abs().amax(dim=-1, keepdim=True)


NOISE: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"ball": ball, "relative": relative}
EPSILON = {"ball": 1e-5, "relative": 0.05}  # the ε that goes with each


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Inside, `model` has no dropout and no autocast: equal inputs have equal outputs, close inputs different ones.

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
    """θ̃, the running mean of a model's weights, and the term that keeps the model's outputs near those of θ̃.

    betas: β in the first tenth of the training, and after it (the paper's .99 and .999 unless given; `--bregman` has a
    constant .995, as the reports; two equal ones are a constant).
    Memory: one copy of the parameters that train. θ̃ starts as θ.
    """

    def __init__(self, model: nn.Module, betas: tuple[float, float] = (0.99, 0.999)):
        self.model, self.betas = model, betas
        self.average = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def __call__(self, outputs: Tensor, divergence: Divergence, *inputs) -> Tensor:
        """D(θ, θ̃). outputs: the model's for `inputs`, computed inside `exact`, with a gradient; θ̃'s have none."""
        with torch.no_grad(), exact(self.model):
            self._swap()
            try:
                anchor = self.model(*inputs)  # (B, K): f(x; θ̃)
            finally:
                self._swap()
        return divergence(outputs, anchor).mean()

    def _swap(self):
        """Exchange θ and θ̃. (`torch.func.functional_call` does not put θ back in modules that have two names.)"""
        parameters = dict(self.model.named_parameters())
        for name, mean in self.average.items():
            parameters[name].data, self.average[name] = mean, parameters[name].data

    @torch.no_grad()
    def update(self, progress: float = 1.0):
        """θ̃ ← (1 - β)·θ + β·θ̃, after every step. progress: the share of the training that is done, from 0 to 1."""
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


# ------------------------------------------------------------------------------------------ in the trainer


class SmoothnessTerm:
    """`--smart`: λ·R_s, as a row of TERMS (`terms.py` says what a row has)."""

    largest, of_process = ("max_delta",), True

    def __init__(self, model: nn.Module, seed: int, smart: float, tasks: Iterable[str] | None = None,
                 noise: str = "ball", epsilon: float | None = None, **search):  # fmt: skip
        self.weight, self.tasks = smart, tasks
        self.search = {"noise": noise, "epsilon": epsilon or EPSILON[noise], **search}
        self.random = torch.Generator(model.device).manual_seed(seed)

    def joined(self, first) -> bool:
        return first.is_clean

    def __call__(self, first) -> tuple[Tensor, dict[str, Tensor]]:
        clean = first.clean
        result = smoothness(
            first.model, clean.embedded, first.divergence, lambda x: first.model.logits(first.batch, x),
            clean=clean.logits, mask=first.batch.attention_mask, generator=self.random, **self.search,
        )  # fmt: skip
        log = {"before": result.before, "after": result.term, "max_delta": result.delta.abs().max()}
        return self.weight * result.term, log

    def after_step(self, progress: float):
        pass

    def describe(self, means: dict[str, dict[str, float]]) -> str:
        text = ",  ".join(f"{task} {x['before']:.1e} → {x['after']:.1e}" for task, x in means.items())
        largest = max(x["max_delta"] for x in means.values())
        return f"smoothness, before → after ascent: {text};  max|δ| {largest:.1e}"

    def state_dict(self) -> dict:
        return {"random": self.random.get_state(), "device": self.random.device.type}

    def load_state_dict(self, state: dict):
        if state.get("device", self.random.device.type) == self.random.device.type:  # else it stays as it was seeded
            self.random.set_state(state["random"])


class BregmanTerm:
    """`--bregman`: μ·D(θ, θ̃), as a row of TERMS (`terms.py` says what a row has)."""

    largest, tasks = (), None

    def __init__(self, model: nn.Module, seed: int, bregman: float, beta: tuple[float, float] = (0.995, 0.995)):
        self.weight, self.proximal = bregman, Proximal(model, beta)
        self.state_dict, self.load_state_dict = self.proximal.state_dict, self.proximal.load_state_dict

    def joined(self, first) -> bool:
        return first.is_clean

    def __call__(self, first) -> tuple[Tensor, dict[str, Tensor]]:
        distance = self.proximal(first.clean.logits, first.divergence, first.batch)
        return self.weight * distance, {"distance": distance}

    def after_step(self, progress: float):
        self.proximal.update(progress)

    def describe(self, means: dict[str, dict[str, float]]) -> str:
        return "bregman: " + ",  ".join(f"{task} {x['distance']:.1e}" for task, x in means.items())


TERMS = {"smart": SmoothnessTerm, "bregman": BregmanTerm}
