"""SMART, in pieces (Jiang et al. 2020, §3.1 and Algorithm 1).

    R_s = ℓ_s(f(x̃; θ), f(x; θ)),  x̃ = x + δ,  ‖δ‖_∞ ≤ ε          the answer must not change when x is nudged a little
    δ ← N(0, σ²);  K times:  g = ∇_δ ℓ_s(f(x + δ), f(x)),  δ ← Π_ε(δ + η·g/‖g‖_∞)
    θ̃ ← (1 - β)·θ + β·θ̃                                         the mean that the Bregman term stays near

Here f is linear, f(x) = Σ w·x, and ℓ_s the squared error: the largest change within ε is ε·‖w‖₁, whatever the noise
that the search starts from. Theirs may be a function like our `smoothness`, or a class in the style of the package
smart-pytorch, `SMARTLoss(eval_fn, loss_fn, …)(embed, state)`.
"""

import inspect
import re
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Part, Pieces, Probe, group
from minbert.sanity.search import named, optional, unlike

EPSILON = 0.01
NOISE = 1e-14  # σ: too small to show in a result, but enough for a gradient
TINY = torch.finfo(torch.float64).tiny


class Linear(nn.Module):
    """f(x) = Σ w·dropout(x): (B, T, C) → (B, 1), float64."""

    def __init__(self, w: list[list[float]], dropout: float = 0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return (self.dropout(x) * self.w).sum(dim=(1, 2))[:, None]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """ℓ_s: (B, 1), (B, 1) → (B,)."""
    return F.mse_loss(a, b, reduction="none").sum(dim=-1)


W = [[1.0, -0.8, 0.6], [-0.7, 0.9, 1.0]]  # ‖w‖₁ = 5
X = [[[0.5, 0.25, 1.0], [0.75, -0.5, 0.25]], [[-0.25, 1.0, 0.5], [0.5, 0.5, -1.0]]]

# ------------------------------------------------------------------------------------------------ the right pieces


@contextmanager
def exact(model: nn.Module):
    """No dropout inside; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    yield
    for module, mode in modes:
        module.training = mode


def gradient(loss: Tensor, delta: Tensor) -> Tensor:
    """∇_δ of the loss, and of nothing else: the weights' `.grad` stays as it is."""
    return torch.autograd.grad(loss, delta)[0]


def unit(g: Tensor) -> Tensor:
    """g/‖g‖_∞, for each example. (B, T, C)."""
    return g / g.abs().amax(dim=(1, 2), keepdim=True).clamp(min=TINY)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """Σ_k (p_k - q_k)(log p_k - log q_k), p = softmax(a), q = softmax(b): KL(p‖q) + KL(q‖p)."""
    return ((a.softmax(-1) - b.softmax(-1)) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1)


def bernoulli(a: Tensor, b: Tensor) -> Tensor:
    """The same for yes or no, one logit each: p = (σ(a), 1 - σ(a))."""
    return symmetric_kl(torch.cat([a, torch.zeros_like(a)], -1), torch.cat([b, torch.zeros_like(b)], -1))


RIGHT = {
    "mode": exact,
    "clean mode": lambda mode, model: mode(model),  # f(x) has no dropout either
    "start": lambda x, sigma: sigma * torch.randn_like(x),
    "keep": lambda mask: mask,
    "steps": lambda K: K,
    "gradient": gradient,
    "direction": unit,
    "step": lambda delta, move: delta + move,
    "bound": lambda delta, epsilon: delta.clamp(-epsilon, epsilon),  # Π_ε
    "clean": lambda y: y,  # f(x) in the outer term has its gradient,
    "noisy": lambda y: y,  # and so has f(x̃)
    "classes": symmetric_kl,
    "yes or no": bernoulli,
    "average": lambda mean, now, beta: (1 - beta) * now + beta * mean,
}


class Subject:
    """A SMART, theirs or our own."""

    def dropout(self, f, x) -> Tensor:
        """The term with a model that is training."""
        return self.term(f, x, EPSILON, NOISE, 100 * EPSILON, 1)

    def masked(self, f, x, mask) -> Tensor:
        """The term with pads."""
        return self.term(f, x, EPSILON, NOISE, 100 * EPSILON, 1, mask)


class Reference(Subject):
    """SMART of these pieces."""

    def __init__(self, pieces: Pieces):
        self.pieces = pieces

    def term(self, f, x, epsilon, sigma, eta, steps, mask=None) -> Tensor:
        """R_s, Algorithm 1. f: (B, T, C) → (B, 1). mask: (B, T, 1), 1 where x may be moved."""
        p = self.pieces
        keep = p["keep"](torch.ones_like(x[..., :1]) if mask is None else mask[..., None])
        with p["clean mode"](p["mode"], f):
            clean = f(x)
        with p["mode"](f):
            delta = p["start"](x, sigma) * keep
            for _ in range(p["steps"](steps)):
                delta = delta.detach().requires_grad_()
                g = p["gradient"](squared(f(x + delta), clean.detach()).mean(), delta)
                delta = p["bound"](p["step"](delta.detach(), eta * p["direction"](g) * keep), epsilon)
            return squared(p["noisy"](f(x + delta)), p["clean"](clean)).mean()

    def divergence(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """ℓ_s of two answers about one example."""
        return self.pieces[name](a, b)

    def average(self, start: float, now: float, beta: float) -> Tensor:
        """θ̃ after one update, from θ̃ = start and θ = now."""
        return torch.as_tensor(self.pieces["average"](start, now, beta))


# ------------------------------------------------------------------------------------------------ theirs


class Ours(Subject):
    """A module like our `smart.py`."""

    def __init__(self, module, divergences: dict[str, Callable]):
        self.module, self.divergences = module, divergences

    def term(self, f, x, epsilon, sigma, eta, steps, mask=None):
        options = {"epsilon": epsilon, "sigma": sigma, "eta": eta, "steps": steps, "mask": mask}
        return self.module.smoothness(f, x, squared, **options).term

    def divergence(self, name, a, b):
        if name not in self.divergences:
            raise Absent(f"no divergence for {name}")
        return self.divergences[name](a, b)

    def average(self, start, now, beta):
        if not hasattr(self.module, "Proximal"):
            raise Absent("no Bregman term")
        model = Linear([[start]])
        proximal = self.module.Proximal(model, betas=(beta, beta))
        with torch.no_grad():
            model.w.fill_(now)
        proximal.update()
        return next(iter(proximal.average.values())).squeeze()


ARGUMENTS = {  # of the smart-pytorch style → how they are called
    "f": r"eval_fn|model|f|fn|forward_fn|func",
    "loss": r"loss_fn|loss|divergence|criterion",
    "last": r"loss_last_fn|last_loss_fn",
    "K": r"num_steps|steps|n_steps|k|num_iters",
    "eta": r"step_size|eta|lr|alpha|adv_lr",
    "epsilon": r"epsilon|eps|radius|project_eps|max_norm",
    "sigma": r"noise_var|sigma|noise|noise_std|std|var",
}


class SmartLoss(Ours):
    """A class `SMARTLoss(eval_fn, loss_fn, …)`, called with the embeddings and what the model made of them.

    Dropout, pads and weights are left to the caller there, so they are not checked.
    """

    promised = False

    def __init__(self, SMARTLoss: type, divergences: dict[str, Callable]):
        self.SMARTLoss, self.divergences = SMARTLoss, divergences
        names = list(inspect.signature(SMARTLoss).parameters)
        self.names = {k: n for k, form in ARGUMENTS.items() for n in names if re.fullmatch(form, n.lower())}
        missing = ARGUMENTS.keys() - self.names.keys() - {"last"}
        if missing:
            raise CannotCheck(
                f"{SMARTLoss.__name__}({', '.join(names)}): it should take eval_fn, loss_fn, num_steps, step_size, "
                "epsilon and noise_var"
            )

    def term(self, f, x, epsilon, sigma, eta, steps, mask=None):
        f.eval()
        values = {"f": f, "K": steps, "eta": eta, "epsilon": epsilon, "sigma": sigma}
        values["loss"] = values["last"] = lambda a, b: squared(a, b).mean()
        module = self.SMARTLoss(**{self.names[k]: v for k, v in values.items() if k in self.names})
        return module(x, f(x))

    def dropout(self, f, x):
        raise Absent("dropout is the caller's")

    def masked(self, f, x, mask):
        raise Absent("it knows no pads")

    def average(self, start, now, beta):
        raise Absent("no Bregman term")


def find(project) -> Ours:
    """Our `smoothness`, or a class in the style of smart-pytorch."""
    divergences = {}
    for name, function in named(project, lambda n: re.search(r"(?i)sym(metric)?_?kl", n) and "." not in n):
        divergences.setdefault("yes or no" if re.search(r"(?i)bernoulli|binary", name) else "classes", function)
    if tasks := optional(project, "tasks", "TASKS"):  # the one that the tasks use
        divergences["yes or no"] = tasks.TASKS["para"].divergence
    if module := optional(project, "smart", "smoothness"):
        return Ours(module, divergences)
    for _, value in named(project, lambda n: re.search(r"(?i)^smart\w*loss$|^smart$|^smart_?reg", n)):
        if inspect.isclass(value):
            return SmartLoss(value, divergences)
    unlike(project, r"(?m)SMART|Smart(?![a-z])|^smart_|_smart(?![a-z])|[Ss]moothness.?[Ii]nduc|[Bb]regman|Jiang et al",
           "functions smoothness(model, x, divergence, …) and classes SMARTLoss(eval_fn, loss_fn, …)")  # fmt: skip


# ------------------------------------------------------------------------------------------------ probes


@contextmanager
def same_noise():
    """Inside, every function for N(0, 1) gives a fixed pattern, so that all start their search from one place."""

    def pattern(shape, dtype=torch.float64) -> Tensor:
        n = int(torch.Size(shape).numel())
        return (1 + torch.arange(n, dtype=dtype) % 5).reshape(shape)

    def randn(*size, generator=None, dtype=None, device=None, requires_grad=False, **options):
        shape = size[0] if size and isinstance(size[0], tuple | list | torch.Size) else options.get("size", size)
        return pattern(shape, dtype or torch.get_default_dtype()).requires_grad_(requires_grad)

    def randn_like(x, dtype=None, requires_grad=False, **options):
        return pattern(x.shape, dtype or x.dtype).requires_grad_(requires_grad)

    def normal_(x, mean=0.0, std=1.0, generator=None):
        with torch.no_grad():
            return x.copy_(mean + std * pattern(x.shape, x.dtype))

    def normal(mean=0.0, std=1.0, size=None, **options):
        shape = size if size is not None else (std if isinstance(std, Tensor) else mean).shape
        return mean + std * pattern(shape)

    owners = {(torch, "randn"): randn, (torch, "randn_like"): randn_like, (torch, "normal"): normal,
              (torch.Tensor, "normal_"): normal_}  # fmt: skip
    real = {key: getattr(*key) for key in owners}
    try:
        for (owner, name), function in owners.items():
            setattr(owner, name, function)
        yield
    finally:
        for (owner, name), function in real.items():
            setattr(owner, name, function)


def x_and(f: nn.Module, rows: int = 2) -> tuple[nn.Module, Tensor]:
    return f, torch.tensor(X[:rows], dtype=torch.float64)


def largest(s) -> Tensor:
    with same_noise():
        return s.term(*x_and(Linear(W)), EPSILON, NOISE, 100 * EPSILON, 1) / EPSILON**2


def two_steps(s) -> Tensor:
    x = torch.zeros(1, 2, 3, dtype=torch.float64)
    with same_noise():
        return s.term(Linear([[1.0, -1, 1], [-1, 1, 1]]), x, EPSILON, NOISE, 0.2 * EPSILON, 2) / EPSILON**2


def no_step(s) -> Tensor:
    with same_noise():
        return s.term(*x_and(Linear(W)), EPSILON, 10 * EPSILON, 0.0, 1) / EPSILON**2


def short_step(s) -> Tensor:
    with same_noise():
        return s.term(*x_and(Linear(W), rows=1), EPSILON, NOISE, 0.5 * EPSILON, 1) / EPSILON**2


def gradients(s) -> dict[str, Tensor]:
    f, x = x_and(Linear(W), rows=1)
    with same_noise():
        term = s.term(f, x, EPSILON, NOISE, 100 * EPSILON, 1)
    left = f.w.grad is not None and f.w.grad.any()
    g = torch.autograd.grad(term, f.w)[0] if term.requires_grad else torch.zeros_like(f.w)
    return {"∂R_s/∂w / ε²": g / EPSILON**2, "left in w.grad": torch.as_tensor(left)}


def in_training(s) -> dict[str, Tensor]:
    f, x = x_and(Linear(W, dropout=0.5).train())
    with same_noise():
        term = s.dropout(f, x) / EPSILON**2
    return {"R_s / ε²": term, "training": torch.tensor([m.training for m in f.modules()])}


def with_pads(s) -> Tensor:
    with same_noise():
        return s.masked(*x_and(Linear(W)), torch.tensor([[1.0, 0], [1, 0]], dtype=torch.float64)) / EPSILON**2


def classes(s) -> Tensor:
    return s.divergence("classes", torch.tensor([[1.0, 2, 0.5]]), torch.tensor([[0.0, 1, -1]])).sum()


def yes_or_no(s) -> Tensor:
    return s.divergence("yes or no", torch.tensor([[1.5]]), torch.tensor([[-0.5]])).sum()


LINEAR = "f(x) = Σ w·x, two tokens of three numbers, ‖w‖₁ = 5, ε = .01, squared error"
PROBES = (
    Probe("the largest change within ε", largest,
          f"{LINEAR}, and a step that is long enough: R_s/ε² must be ‖w‖₁² = 25."),
    Probe("two short steps uphill", two_steps,
          "w of six ±1, η = ε/5 and K = 2: both steps go uphill, and R_s/ε² is (6·2/5)² = 5.76."),
    Probe("a short step", short_step,
          f"{LINEAR}, η = ε/2: δ is ±½·ε·w/‖w‖_∞, and R_s/ε² is (½·‖w‖₂²)² = 4.6225."),
    Probe("no step", no_step,
          f"{LINEAR}, η = 0 and a noise of more than ε, all positive: δ is ε everywhere, and R_s/ε² is (Σ w)² = 4."),
    Probe("the gradient of the term", gradients,
          f"{LINEAR}: ∂R_s/∂w, to which both f(x̃) and f(x) contribute; and whether the search left a gradient."),
    Probe("a model that is training", in_training,
          f"{LINEAR}, and a dropout of ½ before it: the term has none (25 again), and the modes come back."),
    Probe("a pad", with_pads,
          f"{LINEAR}; the second token is a pad and stays where it is: R_s/ε² is 2.4² = 5.76."),
    Probe("ℓ_s of classes", classes,
          "The symmetric Kullback-Leibler divergence of softmax(1, 2, ½) and softmax(0, 1, -1)."),
    Probe("ℓ_s of yes or no", yes_or_no,
          "The same for the one logit of a paraphrase, 1.5 against -0.5: (σ(1.5) - σ(-0.5))·2 = .88."),
    Probe("the running mean of the weights", lambda s: s.average(0.0, 1.0, 0.9),
          "θ̃ = 0, θ = 1, β = .9: after a step θ̃ is .1."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

ALGORITHM = "Jiang et al. 2020, Algorithm 1"
ASCENT = "δ ← Π_ε(δ + η·g/‖g‖_∞),  g = ∇_δ ℓ_s(f(x + δ), f(x))"
TERM = "R_s = mean ℓ_s(f(x̃; θ), f(x; θ))"
WHERE = ("smoothness", "SMARTLoss.forward", "SmartLoss.forward")


@contextmanager
def left_in_eval(model: nn.Module):
    model.eval()
    yield


@contextmanager
def top_mode_everywhere(model: nn.Module):
    mode = model.training
    model.eval()
    yield
    model.train(mode)


def backward(loss: Tensor, delta: Tensor) -> Tensor:
    loss.backward()
    return delta.grad


def scaled(delta: Tensor, guard: float) -> Tensor:
    """δ/‖δ‖_∞ of every token's vector: what public packages do in place of Π_ε."""
    return delta / (delta.abs().amax(dim=-1, keepdim=True) + guard)


def zero(x: Tensor, sigma: float) -> Tensor:
    return torch.zeros_like(x)


def plain(g: Tensor) -> Tensor:
    return g


def one_sided(a: Tensor, b: Tensor) -> Tensor:
    return (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1)


def two_logits(kl: Callable) -> Callable:
    return lambda a, b: kl(torch.cat([a, torch.zeros_like(a)], -1), torch.cat([b, torch.zeros_like(b)], -1))


MISTAKES = (
    *group(TERM, "Jiang et al. 2020, §3.1", WHERE,
        ("dropout is left on in the term", {"mode": lambda model: nullcontext()},
         "Two passes with different dropout differ even at δ = 0, far more than a nudge of ε changes anything: the "
         "term measures dropout. Put the model in evaluation for the term, and back afterwards."),
        ("f(x) comes from a pass with dropout", {"clean mode": lambda mode, model: nullcontext()},
         "The clean answer and the nudged one must be made alike: compute f(x) for this term without dropout too, not "
         "from the training pass."),
        ("the model stays in evaluation afterwards", {"mode": left_in_eval},
         "After the term every module must be in the mode that it was in, or the rest of the training runs without "
         "dropout.", ("exact", *WHERE))),
    *group(TERM, ALGORITHM, WHERE,
        ("f(x) is detached in the term", {"clean": lambda y: y.detach()},
         "Both answers depend on θ. With f(x) detached the gradient no longer falls with δ²: the term then pulls f(x̃) "
         "towards a fixed target. Detach f(x) in the search for δ only."),
        ("f(x̃) is detached in the term", {"noisy": lambda y: y.detach()},
         "Both answers depend on θ: detach neither in the last comparison."),
        ("the term is made of detached numbers", {"clean": lambda y: y.detach(), "noisy": lambda y: y.detach()},
         "Nothing can be learned from a term without gradient. Leave the last comparison outside `no_grad` and detach "
         "neither answer.")),
    *group(ASCENT, ALGORITHM, WHERE,
        ("δ is not brought back to ε", {"bound": lambda delta, epsilon: delta},
         "Π_ε is missing: after the step, cut every number of δ to [-ε, ε]. Otherwise the nudge is as long as η makes "
         "it."),
        ("δ is scaled to a size of 1 instead of being cut to ε",
         ({"direction": plain, "bound": scaled}, {"bound": scaled},
          {"direction": plain, "bound": lambda d, e: scaled(d, 0.0)}),
         "δ/‖δ‖_∞ is as large as the embeddings themselves, whatever ε says; there ε only guards a division. Normalise "
         "the gradient, take the step, then clamp δ to [-ε, ε]. (smart-pytorch and mt-dnn do this.)"),
        ("goes downhill: the wrong sign of the step", {"step": lambda delta, move: delta - move},
         "x̃ must look for the largest change, so δ moves along the gradient: a plus, not a minus."),
        ("the gradient is not normalised", {"direction": plain},
         "Near x the gradient of ℓ_s is almost zero. Divide it by ‖g‖_∞ so that η says how far the step goes."),
        ("only the gradient's sign is used", {"direction": torch.sign},
         "That is another method (FGSM). Algorithm 1 divides the gradient by its largest number, and the smaller ones "
         "stay smaller."),
        ("the gradient is divided by its Euclidean norm",
         ({"direction": lambda g: g / g.norm(dim=(1, 2), keepdim=True)},
          {"direction": lambda g: g / g.norm(dim=-1, keepdim=True)}),
         "The ball of Algorithm 1 is one of ‖·‖_∞, and so is the norm that g is divided by: its largest number. ‖g‖₂ "
         "grows with the length of the sentence, and the step shrinks.")),
    *group("δ ← N(0, σ²)", ALGORITHM, WHERE,
        ("starts at x itself, without noise",
         ({"start": zero}, {"start": zero, "direction": lambda g: g / g.abs().amax(dim=(1, 2), keepdim=True)}),
         "At δ = 0 the divergence is at its minimum and its gradient is zero, so that there is no way up. Start from a "
         "little noise.")),
    *group(ASCENT, ALGORITHM, WHERE,
        ("takes one step, whatever K is", {"steps": lambda K: 1},
         "The step is to be repeated K times, each from where the last one ended."),
        ("the search leaves its gradient in the weights", {"gradient": backward},
         "`loss.backward()` adds the search's gradient to every weight's `.grad`, and the optimizer follows it. Use "
         "`torch.autograd.grad(loss, delta)`."),
        ("pads are nudged too", {"keep": torch.ones_like},
         "A pad is no part of the sentence. Multiply the noise and the step by the mask.")),
    *group("ℓ_s = KL(p‖q) + KL(q‖p),  p = (σ(a), 1 - σ(a))", "Jiang et al. 2020, §3.1",
           ("bernoulli_symmetric_kl", "Task"),
        ("softmax over a single logit", {"yes or no": symmetric_kl},
         "The softmax of one number is 1 whatever the number, so that the term of the paraphrase task is always zero. "
         "Use the divergence of two Bernoulli variables, with σ.")),
    *group("ℓ_s = KL(p‖q) + KL(q‖p)", "Jiang et al. 2020, §3.1", ("symmetric_kl", "sym_kl_loss", "sym_kl"),
        ("the divergence of classes is one-sided", ({"classes": one_sided}, {"classes": lambda a, b: one_sided(b, a)}),
         "SMART takes the symmetric divergence: add the one the other way round.")),
    *group("KL(p‖q) = Σ_k p_k (log p_k - log q_k)", "Jiang et al. 2020, §3.1",
           ("symmetric_kl", "sym_kl_loss", "sym_kl"),
        ("the divergence of classes is averaged over the classes",
         {"classes": lambda a, b: symmetric_kl(a, b) / a.shape[-1]},
         "A divergence is a sum over the classes. With `F.kl_div` use reduction=\"batchmean\", not \"mean\".")),
    *group("ℓ_s = KL(p‖q) + KL(q‖p),  p = (σ(a), 1 - σ(a))", "Jiang et al. 2020, §3.1", ("bernoulli_symmetric_kl",),
        ("the divergence of yes or no is one-sided",
         ({"yes or no": two_logits(one_sided)}, {"yes or no": two_logits(lambda a, b: one_sided(b, a))}),
         "SMART takes the symmetric divergence: add the one the other way round.")),
    *group("θ̃ ← (1 - β)·θ + β·θ̃", "Jiang et al. 2020, §3.2", ("Proximal.update",),
        ("β and 1 - β are exchanged", {"average": lambda mean, now, beta: beta * now + (1 - beta) * mean},
         "β near 1 means a long memory: θ̃ keeps β of itself. Exchanged, θ̃ is nearly θ, and the term nearly zero."),
        ("θ̃ is not a copy of θ", {"average": lambda mean, now, beta: now},
         "Without `.clone()` θ̃ is the very tensor that the optimizer changes, and the term is always zero.",
         ("Proximal.__init__",))),
)  # fmt: skip

PART = Part(
    name="smart",
    title="smoothness (SMART)",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
)
