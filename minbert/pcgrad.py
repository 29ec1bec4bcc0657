"""One update from several tasks' gradients: their sum, or a sum after the conflicts between them are removed.

Two tasks that share a BERT are in conflict where gᵢ·gⱼ < 0: a step for one increases the loss of the other. Gradient
surgery removes from each gradient the part that opposes another one (PCGrad, Yu et al. 2020, Algorithm 1):

    gᵢ' = gᵢ                             at first; then, for every j ≠ i in random order, if gᵢ'·gⱼ < 0,
    gᵢ' ← gᵢ' - (gᵢ'·gⱼ)/‖gⱼ‖²·gⱼ        which leaves gᵢ'·gⱼ = 0
    g   = Σᵢ gᵢ'                         is what the update follows

The order is drawn anew for each i, since what is removed first changes what is left to remove. Without the surgery the
update follows the longest gradient, and the other tasks may get worse. A step costs 1.01 times that of the summed
losses (tests/benchmarks/RESULTS.md); the gain in scores has not been measured here.

Here gⱼ is always the original gradient. So each gᵢ' is a mix of the originals, gᵢ' = Σⱼ Wᵢⱼ gⱼ, and the algorithm
needs only their products Kᵢⱼ = gᵢ·gⱼ, a table of T×T numbers for T tasks. The functions here compute K once, run the
algorithm on the rows of W, and mix once. They hold T gradients in memory and no further one.

    sum_gradients   Σᵢ gᵢ, the gradient of the summed losses
    pcgrad          as above
    gradvac         aims at a cosine learned for each pair, not just at no conflict (Wang et al. 2021)
    cagrad          the direction near the mean that helps the worst-off task most (Liu et al. 2021)

All have one signature, (gradients, memory) → gradient, where a gradient is a list of tensors, one a parameter, and
`memory` holds what a run must remember between steps. Only parameters to which every task's loss gives a gradient take
part; each head keeps the gradient of its own task.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

Gradient = list[Tensor]  # one tensor a parameter
BETA = 1e-2  # GradVac: how fast the targets follow
CAGRAD_C = 0.5  # CAGrad: how far from the mean gradient the update may be, c in [0, 1)


class Memory:
    """What a run must remember between steps: the generator of PCGrad's random orders, and GradVac's targets."""

    def __init__(self, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.targets: Tensor | None = None  # GradVac's moving averages of the cosines, T×T
        self.products: Tensor | None = None  # K of the last step, for the log, T×T

    def cosines(self) -> Tensor | None:
        """The cosines between the last step's gradients; returns (T, T), or None where nothing was shared."""
        if self.products is None:
            return None
        norms = self.products.diagonal().clamp(min=torch.finfo(torch.float64).tiny).sqrt()  # (T,)
        return self.products / norms / norms[:, None]

    def state_dict(self) -> dict:
        return {"random": self.random.get_state(), "targets": self.targets}

    def load_state_dict(self, state: dict):
        self.random.set_state(state["random"])
        self.targets = state["targets"]


def products(gradients: list[Gradient]) -> Tensor:
    """K with Kᵢⱼ = gᵢ·gⱼ; returns (T, T), T tasks, in float64 on the CPU."""
    K = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    if not gradients[0]:
        return K
    dots = []
    for i, g_i in enumerate(gradients):
        for g_j in gradients[: i + 1]:
            parts = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(g_i, g_j, strict=True)]
            dots.append(torch.stack(parts))
    i, j = torch.tril_indices(*K.shape)  # in the order of the loops
    K[i, j] = K[j, i] = torch.stack(dots).cpu().double().sum(dim=1)  # one copy: the CPU waits for a GPU only once
    return K


def mix(gradients: list[Gradient], weights: Tensor) -> Gradient:
    """Σᵢ wᵢ gᵢ, which overwrites the first gradient. weights: (T,)."""
    first, *others = weights.tolist()
    for parts in zip(*gradients, strict=True):
        if first != 1.0:
            parts[0].mul_(first)
        for part, weight in zip(parts[1:], others, strict=True):
            parts[0].add_(part, alpha=weight)
    return gradients[0]


def orders(T: int, memory: Memory) -> Iterable[tuple[int, list[int]]]:
    """For every task i, the others in a fresh random order."""
    for i in range(T):
        yield i, [j for j in torch.randperm(T, generator=memory.random).tolist() if j != i]


def sum_gradients(gradients: list[Gradient], memory: Memory) -> Gradient:
    """Σᵢ gᵢ: the gradient of the summed losses."""
    memory.products = products(gradients) if len(gradients) > 1 and gradients[0] else None  # for the log alone
    return mix(gradients, torch.ones(len(gradients)))


def pcgrad(gradients: list[Gradient], memory: Memory) -> Gradient:
    """Project conflicting gradients onto one another's normal planes, then sum (Yu et al. 2020).

    `orders` draws the order of the others for each task; gⱼ enters through K alone. K is kept in `memory.products`.
    """
    T, K = len(gradients), products(gradients)
    memory.products = K
    W = torch.eye(T, dtype=torch.float64)  # (T, T): row i is gᵢ' as a mix of the originals
    for i, others in orders(T, memory):
        for j in others:
            dot = W[i] @ K[:, j]  # gᵢ'·gⱼ
            if dot < 0 and K[j, j] > 0:
                W[i, j] -= dot / K[j, j]  # gᵢ' ← gᵢ' - (gᵢ'·gⱼ)/‖gⱼ‖²·gⱼ
    return mix(gradients, W.sum(dim=0))


def gradvac(gradients: list[Gradient], memory: Memory) -> Gradient:
    """Gradient vaccine (Wang et al. 2021, Algorithm 1): raise each pair's cosine φ to its target φ̂, then sum.

    gᵢ' ← gᵢ' + ‖gᵢ'‖(φ̂√(1-φ²) - φ√(1-φ̂²)) / (‖gⱼ‖√(1-φ̂²)) · gⱼ  where φ < φ̂;  then φ̂ ← (1-β)φ̂ + βφ in any case.

    The targets start at 0, so the first step is PCGrad's, and then follow the cosines. A pair with a gradient of 0
    stays as it is, and so does its target. K is kept in `memory.products` for the log, as in `pcgrad`.
    """
    T, K = len(gradients), products(gradients)
    memory.products = K
    if memory.targets is None:
        memory.targets = torch.zeros(T, T, dtype=torch.float64)  # (T, T): φ̂
    W = torch.eye(T, dtype=torch.float64)  # (T, T): row i is gᵢ' as a mix of the originals
    for i, others in orders(T, memory):
        for j in others:
            norm_i, norm_j = (W[i] @ K @ W[i]).clamp(min=0).sqrt().item(), K[j, j].sqrt().item()
            if norm_i == 0 or norm_j == 0:
                continue
            phi = min(1.0, max(-1.0, (W[i] @ K[:, j]).item() / (norm_i * norm_j)))
            target = memory.targets[i, j].item()
            if phi < target:
                sine = math.sqrt(1 - target**2)
                W[i, j] += norm_i * (target * math.sqrt(1 - phi**2) - phi * sine) / (norm_j * sine)
            memory.targets[i, j] = (1 - BETA) * target + BETA * phi
    return mix(gradients, W.sum(dim=0))


def cagrad(gradients: list[Gradient], memory: Memory) -> Gradient:
    """Conflict-averse gradient (Liu et al. 2021, Algorithm 1).

    With g₀ the mean gradient, g_w = Σᵢ wᵢgᵢ and φ = c²‖g₀‖², find the w on the simplex that minimises
    g_w·g₀ + √φ‖g_w‖; the update is g₀ + √φ/‖g_w‖·g_w. It is near the mean, not the sum, so it is about T times
    shorter than the other methods' updates, which matters for --clip.
    """
    memory.products = products(gradients)
    T, K = len(gradients), memory.products.numpy()
    K = K / (K.diagonal().max() or 1.0)  # the solver's tolerance is absolute, so K gets a size of 1
    mean = np.full(T, 1 / T)
    radius = CAGRAD_C * math.sqrt(max(mean @ K @ mean, 0.0))  # √φ

    def objective(w):
        return w @ K @ mean + radius * math.sqrt(max(w @ K @ w, 1e-16))

    on_simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    solution = minimize(objective, mean, bounds=[(0, 1)] * T, constraints=on_simplex, tol=1e-12)
    w = torch.from_numpy(solution.x)  # (T,): how much each task counts
    norm = math.sqrt(max(solution.x @ K @ solution.x, 0.0))
    return mix(gradients, torch.from_numpy(mean) + (radius / norm * w if norm > 0 else 0 * w))


COMBINE: dict[str, Callable[[list[Gradient], Memory], Gradient] | None] = {
    "separate": None,  # a step a task: there is one gradient at a time, and nothing to combine
    "sum": sum_gradients,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "cagrad": cagrad,
}


def take_gradients(parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """Remove the gradients of some parameters and return them; the next task's backward pass starts with none."""
    gradients = {p: p.grad for p in parameters if p.grad is not None}
    for p in gradients:
        p.grad = None
    return gradients


def give_gradients(tasks: list[dict[nn.Parameter, Tensor]], combine: Callable, memory: Memory):
    """Combine the gradients that `take_gradients` returned for each task, and put the result into `.grad`.

    Parameters with a gradient from only some tasks get the plain sum, and those without any keep None.
    """
    shared = {p: None for p in tasks[0] if all(p in gradients for gradients in tasks)}  # an ordered set
    for gradients in tasks:
        for p, g in gradients.items():
            if p not in shared:
                p.grad = g if p.grad is None else p.grad + g
    if len(tasks) == 1 or not shared:  # nothing to combine, and no cosine
        combine = sum_gradients
    combined = combine([[gradients[p] for p in shared] for gradients in tasks], memory)
    for p, g in zip(shared, combined, strict=True):
        p.grad = g
