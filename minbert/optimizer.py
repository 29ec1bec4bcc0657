"""AdamW: Adam with decoupled weight decay, in the form of the course's handout.

Adam (Kingma & Ba 2015, Algorithm 1) keeps two running means per weight, of the gradient and of its square:

    m_t = β₁·m_{t-1} + (1 - β₁)·g_t
    v_t = β₂·v_{t-1} + (1 - β₂)·g_t²

Both start at zero and are too small at first; the "efficient" form at the end of the paper's section 2 folds the
two corrections into the step size, α_t = α·√(1 - β₂ᵗ)/(1 - β₁ᵗ), and updates

    p ← p - α_t·m_t/(√v_t + ε)

Then the weights decay, independently of the gradient and of α_t (Loshchilov & Hutter 2019):

    p ← p - α·λ·p

Why a mean of squares? The division by √v moves every weight by about α a step, so that one rate serves a word's row
with tiny gradients and a LayerNorm with large ones. Without the corrections the first step would be
(1 - β₁)/√(1 - β₂) ≈ 3 times as long as it should be. A decay that is part of the gradient is divided by √v too, so that
the weights with large gradients hardly decay.

`torch.optim.AdamW` is the same method in its textbook form: it corrects v before the root, so for the same update its ε
must be ours divided by √(1 - β₂ᵗ), and it decays before the update, from the old p. The rest is derived in
tests/model/test_optimizer.py.

The lines of `step` pass over all weights in memory eight times. `fused=True` uses a kernel of PyTorch instead, which
passes once and takes about a quarter of the time; the numbers are the same up to their last bits.

The end of this file says which parameters share a learning rate, and how the rate changes over a run.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    params: tensors, or dicts of parameter groups that may set any of the following for themselves.
    lr: the step size α. betas: (β₁, β₂). eps: ε. weight_decay: λ. correct_bias: use α_t (else plain α).
    fused: update by torch's fused kernel where that is possible, on a CPU or a CUDA device.

    A parameter whose `.grad` is None is left exactly as it is: no step, no decay, no count.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        fused: bool = False,
    ):
        super().__init__(
            params,
            dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, correct_bias=correct_bias, fused=fused),
        )
        for group in self.param_groups:
            for name in ("lr", "eps", "weight_decay"):
                if not group[name] >= 0.0:
                    raise ValueError(f"{name} must be at least 0, not {group[name]}")
            if not all(0.0 <= beta < 1.0 for beta in group["betas"]):
                raise ValueError(f"betas must lie in [0, 1), not {group['betas']}")

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One update of every parameter that has a gradient; returns what `closure` returns, or None.

        closure: computes the loss and calls its backward; gradients are on inside it. Each parameter's state is
        {"step": t, "exp_avg": m, "exp_avg_sq": v}, the names of `torch.optim.AdamW`, whose state can be loaded.
        The decay uses the new p, as in the course's handout; the old p, as in `torch.optim`, is right as well.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            alpha, (beta1, beta2), eps, decay = (group[k] for k in ("lr", "betas", "eps", "weight_decay"))
            for p in self._fused_update(group) if group["fused"] else group["params"]:
                if p.grad is None:
                    continue
                g, state = p.grad, self._state_of(p)
                state["step"] += 1
                t, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]

                m.lerp_(g, 1 - beta1)  # m = β₁m + (1-β₁)g
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # v = β₂v + (1-β₂)g²
                alpha_t = alpha
                if group["correct_bias"]:
                    alpha_t *= math.sqrt(1 - beta2**t) / (1 - beta1**t)  # α_t = α√(1-β₂ᵗ)/(1-β₁ᵗ)
                p.addcdiv_(m, v.sqrt().add_(eps), value=-alpha_t)  # p = p - α_t·m/(√v+ε)
                if decay:
                    p.add_(p, alpha=-alpha * decay)  # p = p - αλp; p·(1 - αλ) would round 1 - αλ in float32 first
        return loss

    def _state_of(self, p: Tensor) -> dict:
        """The parameter's t, m and v, which start at zero."""
        if not self.state[p]:
            self.state[p].update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        return self.state[p]

    def _fused_update(self, group: dict) -> list[Tensor]:
        """One update of a group by torch's kernel for its own AdamW; returns the parameters that it did not update.

        The kernel computes, from the same m and v,

            p ← p - α/(1 - β₁ᵗ)·m/(√v/c + ε′)        c = √(1 - β₂ᵗ)

        which is the update above where ε′ = ε/c. With t = ∞ nothing is corrected. Its decay, which comes before the
        update, stays off. The kernel goes through memory in order, so that all four tensors must be contiguous.
        """
        beta1, beta2 = group["betas"]
        rest, alike = [], {}  # alike: (device, number format, t) → tensors that one launch can update
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self._state_of(p)
            p_g_m_v = (p, p.grad, state["exp_avg"], state["exp_avg_sq"])
            if p.device.type not in ("cpu", "cuda") or not all(x.is_contiguous() for x in p_g_m_v):
                rest.append(p)
                continue
            t = state["step"] = state["step"] + 1
            alike.setdefault((p.device, p.dtype, t), []).append(p_g_m_v)
        for (device, _, t), rows in alike.items():
            c, count = (math.sqrt(1 - beta2**t), float(t)) if group["correct_bias"] else (1.0, math.inf)
            ps, gs, ms, vs = map(list, zip(*rows, strict=True))
            torch._fused_adamw_(
                ps, gs, ms, vs, [], [torch.tensor(count, device=device)] * len(ps), lr=group["lr"], beta1=beta1,
                beta2=beta2, weight_decay=0.0, eps=group["eps"] / c, amsgrad=False, maximize=False,
            )  # fmt: skip
            if group["weight_decay"]:
                torch._foreach_add_(ps, ps, alpha=-group["lr"] * group["weight_decay"])
        return rest

    def __setstate__(self, state: dict):
        """Load a saved state, also one of `torch.optim.AdamW`, whose m and v are the same."""
        super().__setstate__(state)
        for group in self.param_groups:
            for option in ("amsgrad", "maximize"):
                if group.get(option):
                    raise ValueError(f"this AdamW has no {option}, with which the saved state was made")
            group.setdefault("correct_bias", True)  # torch's is always on
            group.setdefault("fused", False)
        for p, s in self.state.items():
            for name, mean in s.items():
                if name != "step" and isinstance(mean, torch.Tensor) and mean.shape != p.shape:
                    raise ValueError(f"the saved {name} is {tuple(mean.shape)}, its weight {tuple(p.shape)}")
            if "step" in s:
                s["step"] = int(s["step"])  # torch keeps it as a float32 tensor, in which βᵗ would be rounded


def parameter_groups(
    module: nn.Module, lr: float, head_lr: float | None = None, weight_decay: float = 0.0, spare_norms: bool = False
) -> list[dict]:
    """The parameters of `module` that train, as groups for an optimizer: those named bert.… have the rate `lr`, the
    others `head_lr` where given. spare_norms: biases and LayerNorms do not decay (Devlin et al. 2019, §A.2)."""
    groups: dict[tuple, list] = {}
    for name, parameter in module.named_parameters():  # each once, under its first name
        if parameter.requires_grad:
            rate = lr if name.startswith("bert.") or head_lr is None else head_lr
            spared = spare_norms and (name.endswith("bias") or "layer_norm" in name)
            groups.setdefault((rate, 0.0 if spared else weight_decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def lr_factor(step: int, total: int, warmup: float = 0.0, decay: str = "constant") -> float:
    """The factor of the learning rate at `step` = 0 … total - 1: it rises linearly, then stays or falls to zero.

    warmup: the share of all steps, from 0 to 1, in which the rate rises to its full value. decay: "constant", or
    "linear" from there to zero at step `total` (Devlin et al. 2019, §A.2).
    """
    rise = warmup * total
    if step + 1 <= rise:
        return (step + 1) / rise
    return 1.0 if decay == "constant" else min(1.0, (total - step) / (total - rise))


def set_lr(optimizer: Optimizer, factor: float):
    """Give every parameter group `factor` times the learning rate that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
