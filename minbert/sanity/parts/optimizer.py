"""AdamW: what goes wrong in one step, and from step to step.

    m ← β₁m + (1−β₁)g        m̂ = m/(1−β₁ᵗ)
    v ← β₂v + (1−β₂)g²       v̂ = v/(1−β₂ᵗ)
    p ← p − α·m̂/(√v̂ + ε)     and, apart from that,     p ← p − α·λ·p

(Kingma & Ba 2015, Algorithm 1; Loshchilov & Hutter 2019, Algorithm 2). The subject makes an optimizer of parameters
and options. The "efficient" form of Kingma & Ba's section 2, α_t·m/(√v + ε), is the same with an ε that is not
corrected, and the decay may use the old p or the new one: all four are right.
"""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Part, Pieces, Probe, group

RIGHT: Pieces = {
    "group": lambda group, first: group,  # where the step's lr and the others come from
    # own: this parameter's updates; steps: the optimizer's; all: of all parameters; since: after the newest state
    "t": lambda own, steps, all, since: own,
    "corrects": lambda asked: asked,  # whether the bias is corrected; asked: correct_bias
    "uncorrected": lambda lr: lr,
    "asks for a GPU": False,
    "kept": True,  # m and v live on from step to step
    "without gradient": lambda p, lr, decay: None,
    "gradient": lambda g, p, decay: g,
    "m": lambda m, g, beta1: beta1 * m + (1 - beta1) * g,
    "v": lambda v, g, beta2: beta2 * v + (1 - beta2) * g * g,
    "betas": lambda beta1, beta2: (beta1, beta2),
    "c1": lambda beta1, t: 1 - beta1**t,
    "c2": lambda beta2, t: 1 - beta2**t,
    "rate": lambda lr, c1: lr / c1,
    "root": lambda v, eps, c2: (v.sqrt() + eps) / math.sqrt(c2),  # √v̂ + ε, with ε as in the efficient form
    "step": lambda p, rate, m, root: p - rate * m / root,
    "decays with": lambda lr, rate, c2: lr,
    "decayed": lambda old, new, amount: new - amount * new,
    "closure": torch.enable_grad(),  # in which it is called
    "names": ("step", "exp_avg", "exp_avg_sq"),  # in the state
}
TEXTBOOK: Pieces = {"root": lambda v, eps, c2: (v / c2).sqrt() + eps}
FROM_OLD: Pieces = {"decayed": lambda old, new, amount: new - amount * old}  # the same as decay before the update


class AdamW:
    """The optimizer out of pieces."""

    def __init__(self, pieces: Pieces, params: Any, **options: Any):
        groups = list(params)
        groups = groups if isinstance(groups[0], dict) else [{"params": groups}]
        self.pieces, self.param_groups = pieces, [{**options, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.steps = self.updates = self.since = 0

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        do = self.pieces
        with do["closure"]:
            loss = closure() if closure else None
        self.steps += 1
        for own in self.param_groups:
            options = do["group"](own, self.param_groups[0])
            lr, eps, decay = options["lr"], options["eps"], options["weight_decay"]
            beta1, beta2 = do["betas"](*options["betas"])
            for p in options["params"]:
                if p.grad is None:
                    do["without gradient"](p, lr, decay)
                    continue
                s = self.state.get(p)
                self.updates, self.since = self.updates + 1, (self.since + 1 if s else 1)
                if s is None or not do["kept"]:
                    t = s["t"] if s else 0
                    s = self.state[p] = {"t": t, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                s["t"] += 1
                t = do["t"](s["t"], self.steps, self.updates, self.since)
                g, old = do["gradient"](p.grad, p, decay), p.clone()
                s["m"], s["v"] = do["m"](s["m"], g, beta1), do["v"](s["v"], g, beta2)
                corrects = do["corrects"](options.get("correct_bias", True))
                c1, c2 = (do["c1"](beta1, t), do["c2"](beta2, t)) if corrects else (1.0, 1.0)
                rate = do["rate"](lr, c1) if corrects else do["uncorrected"](lr)
                new = do["step"](p, rate, s["m"], do["root"](s["v"], eps, c2))
                p.copy_(do["decayed"](old, new, do["decays with"](lr, rate, c2) * decay))
        return loss


class Maker:
    """The subject: makes an optimizer of parameters and options. asked: how often its steps asked for a GPU so far."""

    names: tuple[str, ...] | None = None  # of the right state, where it is not read from the optimizer
    like_torch = True  # whether it promises what torch.optim.AdamW does, beyond the course

    def __init__(self, make: Callable, asked: Callable[[], int], takes_correct_bias: bool):
        self.make, self.asked, self.takes_correct_bias = make, asked, takes_correct_bias

    def __call__(self, params: Any, **options: Any) -> Any:
        if not self.takes_correct_bias:
            options.pop("correct_bias", None)
        return self.make(params, **options)


def reference(pieces: Pieces) -> Maker:
    calls = itertools.count() if pieces["asks for a GPU"] else itertools.repeat(0)
    maker = Maker(lambda params, **options: AdamW(pieces, params, **options), lambda: next(calls), True)
    maker.names = pieces["names"]
    return maker


def find(project: Any) -> Maker:
    theirs = project.get("optimizer", "AdamW")
    if not isinstance(theirs, type):
        raise CannotCheck("AdamW is not a class")
    takes = inspect.signature(theirs.__init__).parameters
    takes_correct_bias = "correct_bias" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
    maker = Maker(theirs, lambda: project.cpu.asked if project.cpu else 0, takes_correct_bias)
    maker.like_torch = "__setstate__" in vars(theirs)  # as ours, which loads the state of torch.optim.AdamW
    return maker


# ------------------------------------------------------------------------------------------------ probes

OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "correct_bias": True}


def parameter(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def gradient(p: nn.Parameter, *numbers: float):
    p.grad = torch.tensor(numbers, dtype=torch.float64)


def one_step(make: Maker, values: tuple, gradients: tuple, **options: Any) -> Tensor:
    """(p after − p before)/lr of a first step."""
    p = parameter(*values)
    optimizer = make([p], **{**OPTIONS, **options})
    gradient(p, *gradients)
    optimizer.step()
    return (p.detach() - torch.tensor(values, dtype=torch.float64)) / options.get("lr", OPTIONS["lr"])


def first(make: Maker) -> Tensor:
    return one_step(make, (1.0, 1.0, 1.0, 1.0), (1.0, -2.0, 0.1, 1e-3))


def tiny_gradient(make: Maker) -> Tensor:
    return one_step(make, (0.0, 0.0), (1e-4, 1e-5))


def decay_alone(make: Maker) -> Tensor:
    return one_step(make, (3.0, 30.0, -3.0), (0.0, 0.0, 0.0), weight_decay=0.1)


def decay_and_gradient(make: Maker) -> Tensor:
    return one_step(make, (3.0, 30.0), (0.5, -0.5), weight_decay=0.1)


def sequence(make: Maker) -> Tensor:
    """Three steps; rows are p after each."""
    p, rows = parameter(0.5, -0.5), []
    optimizer = make([p], **{**OPTIONS, "lr": 0.1, "betas": (0.8, 0.95)})
    for numbers in ((1.0, -0.3), (-0.2, 0.8), (0.4, 0.1)):
        gradient(p, *numbers)
        optimizer.step()
        rows.append(p.detach().clone())
    return torch.stack(rows)


def late(make: Maker) -> dict[str, Tensor]:
    """A parameter that gets its first gradient at the third step moves as at a first step; rows are steps."""
    p, q, rows = parameter(1.0, 1.0), parameter(2.0, 2.0), []
    optimizer = make([p, q], **{**OPTIONS, "lr": 0.1, "betas": (0.8, 0.95)})
    for k in range(4):
        gradient(p, 0.5, -1.0)
        if k >= 2:
            gradient(q, 0.3, 0.9)
        optimizer.step()
        rows.append(torch.stack([q.detach().clone(), p.detach().clone()]))
    late, early = torch.stack(rows).unbind(dim=1)
    return {"the late one": late, "the other": early}


def uncorrected(make: Maker) -> Tensor:
    """0 if a step without the correction is −m/(√v + ε), or if the correction is always on; 1: no step; 2: another."""
    if not make.takes_correct_bias:
        raise Absent("it has no correct_bias")
    g = (1.0, -2.0, 0.1)
    step, corrected = (one_step(make, (1.0, 1.0, 1.0), g, correct_bias=asked) for asked in (False, True))
    by_hand = torch.tensor([-3.16217766, 3.16222766, -3.16127798])  # 0.1·g/(√0.001·|g| + 1e-6), with the sign of -g
    right = any(torch.allclose(step, x, rtol=1e-5) for x in (by_hand, corrected))
    return torch.tensor(0.0 if right else 2.0 if step.any() else 1.0)


def on_a_gpu(make: Maker) -> Tensor:
    before = make.asked()
    one_step(make, (1.0, 1.0), (1.0, -1.0))
    return torch.tensor(make.asked() > before)


def no_gradient(make: Maker) -> Tensor:
    p, q = parameter(1.0, 1.0), parameter(2.0, -2.0)
    optimizer = make([p, q], **{**OPTIONS, "lr": 0.1, "weight_decay": 0.1})
    gradient(p, 1.0, 1.0)
    optimizer.step()
    return q.detach().clone()


def groups(make: Maker) -> dict[str, Tensor]:
    """Two groups with a rate and a decay of their own; the first's rate is lowered after a step, as by a schedule."""
    p, q = parameter(1.0, 2.0), parameter(1.0, 2.0)
    options = [{"params": [p], "lr": 0.1, "weight_decay": 0.0}, {"params": [q], "lr": 0.01, "weight_decay": 0.5}]
    optimizer = make(options, **OPTIONS)
    for lr in (0.1, 0.02):
        optimizer.param_groups[0]["lr"] = lr
        gradient(p, 1.0, -1.0)
        gradient(q, 1.0, -1.0)
        optimizer.step()
    return {"first group": p.detach().clone(), "second group": q.detach().clone()}


def with_closure(make: Maker) -> dict[str, Tensor]:
    """A step by a closure: whether gradients are on inside it, the loss that the step returns, and p after."""
    if not make.like_torch:
        raise Absent("the course's optimizer is never given a closure")
    p, on = parameter(1.0, -2.0), []
    optimizer = make([p], **OPTIONS)

    def closure() -> Tensor:
        on.append(torch.is_grad_enabled())
        gradient(p, 2.0, -4.0)
        return p.square().sum()

    loss = optimizer.step(closure)
    result = {"gradients are on": torch.tensor(on), "p": p.detach().clone()}
    return result | {"the loss": torch.tensor(math.nan if loss is None else float(loss.detach()))}


def names(make: Maker) -> Tensor:
    """Whether what it keeps of a parameter has the names of torch.optim.AdamW."""
    if not make.like_torch:
        raise Absent("it does not load the state of torch.optim.AdamW")
    p = parameter(1.0)
    optimizer = make([p], **OPTIONS)
    gradient(p, 1.0)
    optimizer.step()
    return torch.tensor({"step", "exp_avg", "exp_avg_sq"} <= set(make.names or optimizer.state[p]))


def in_double(run: Callable[[Maker], Any]) -> Callable[[Maker], Any]:
    """The same probe while whatever is made without a dtype, such as a state by torch.zeros, is float64 as well."""

    def probe(make: Maker) -> Any:
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return run(make)
        finally:
            torch.set_default_dtype(usual)

    return probe


PROBES = (
    Probe("a first step, divided by the learning rate", first,
          "Gradients 1, −2, 0.1, 0.001, no decay: whatever the gradient's size, a first step is about −lr·sign(g)."),
    Probe("a first step for tiny gradients, divided by the learning rate", tiny_gradient,
          "Gradients 1e-4 and 1e-5 with ε = 1e-6: what counts is where ε is added."),
    Probe("weight decay alone, divided by the learning rate", decay_alone,
          "Gradient 0, p = (3, 30, −3), λ = 0.1: the step is −lr·λ·p."),
    Probe("weight decay beside a gradient, divided by the learning rate", decay_and_gradient,
          "p = (3, 30), g = (0.5, −0.5), λ = 0.1."),
    Probe("three steps", sequence,
          "lr 0.1, β = (0.8, 0.95), gradients that change; rows are p after each step."),
    Probe("a parameter that starts late", late,
          "Its first gradient comes at the third step of the other; rows are its value after each of four steps."),
    Probe("a parameter without a gradient", no_gradient,
          "p = (2, −2) has .grad None and λ = 0.1: it must not move."),
    Probe("two parameter groups", groups,
          "Each with its lr and λ; the first group's lr is lowered between the two steps."),
    Probe("a first step with correct_bias=False", uncorrected,
          "0: the step is −m/(√v + ε), or the correction is always on; 1: nothing moves; 2: something else."),
    Probe("whether the state asks for a GPU", on_a_gpu,
          "A step of parameters that are on the CPU."),
    Probe("a step with a closure", with_closure,
          "The closure gives ‖p‖² = 5: whether gradients are on inside it, the loss that step returns, and p after."),
    Probe("the names of the state", names,
          "Whether the state of a parameter has “step”, “exp_avg” and “exp_avg_sq”, as that of torch.optim.AdamW."),
)  # fmt: skip
PROBES = tuple(Probe(probe.name, in_double(probe.run), probe.says) for probe in PROBES)

# ------------------------------------------------------------------------------------------------ mistakes

ADAM = "Kingma & Ba 2015, Algorithm 1"
ADAMW = "Loshchilov & Hutter 2019, Algorithm 2"
STEP = ("AdamW.step",)
MEAN, SQUARE = "m ← β₁m + (1−β₁)g", "v ← β₂v + (1−β₂)g²"
CORRECTED = "m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ)"
UPDATE, DECAY = "p ← p − α·m̂/(√v̂ + ε)", "p ← p − α·λ·p, apart from the gradient"


def zero_division(lr: float, c1: float) -> Tensor:
    """What comes of t = 0 in the textbook's form, where tensors are divided: no exception, but 0/0."""
    return lr / torch.tensor(c1, dtype=torch.float64)


def unbound(lr: float) -> float:
    raise UnboundLocalError("the step size is set only where the bias is corrected")


class Anew:
    """One count for all, of the optimizer's steps, that a new state sets back to 1."""

    def __init__(self):
        self.start = 0

    def __call__(self, own: int, steps: int, all: int, since: int) -> int:
        self.start = steps - 1 if own == 1 or steps <= self.start else self.start
        return steps - self.start


def decays(p: Tensor, lr: float, decay: float):
    p.mul_(1 - lr * decay)


MISTAKES = (
    *group("loss = closure()", "torch.optim.Optimizer.step", STEP,
        ("the closure runs without gradients (no_grad)", {"closure": torch.no_grad()},
         "step changes the weights without a gradient of its own, but the closure calls backward. Call it inside "
         "torch.enable_grad().")),
    *group("m is exp_avg, v is exp_avg_sq", "torch.optim.AdamW", STEP,
        ("the state has other names than that of torch.optim.AdamW", {"names": ("t", "m", "v")},
         "A state that was saved by torch.optim.AdamW could not be loaded. Keep “step”, “exp_avg” and “exp_avg_sq”.")),
    *group(DECAY, ADAMW, STEP,
        ("coupled weight decay: λp is added to the gradient (L2)",
         {"gradient": lambda g, p, decay: g + decay * p, "decays with": lambda lr, rate, c2: 0.0},
         "In the gradient it is divided by √v̂ like the rest, and large weights hardly decay more than small ones. "
         "Decay p by itself, after the update."),
        ("weight decay without the learning rate", {"decays with": lambda lr, rate, c2: 1.0},
         "The decay must shrink with the learning rate: multiply λ·p by lr."),
        ("no weight decay", {"decays with": lambda lr, rate, c2: 0.0},
         "group['weight_decay'] is not used: subtract lr·λ·p."),
        ("weight decay with the bias-corrected step size", {"decays with": lambda lr, rate, c2: rate * math.sqrt(c2)},
         "α_t belongs to the gradient's step; the weights decay by the plain learning rate."),
        ("weight decay has the wrong sign", {"decays with": lambda lr, rate, c2: -lr},
         "Weights must shrink, not grow: subtract lr·λ·p."),
        ("weight decay is applied twice",
         ({"decays with": lambda lr, rate, c2: 2 * lr}, {"gradient": lambda g, p, decay: g + decay * p}),
         "Once a step."),
        ("weight decay by λ·sign(p), as L1",
         ({"decayed": lambda old, new, amount: new - amount * new.sign()},
          {"decayed": lambda old, new, amount: new - amount * old.sign()}),
         "The decay is proportional to the weight: subtract lr·λ·p."),
        ("weight decay by lr·λ, whatever p", {"decayed": lambda old, new, amount: new - amount},
         "The decay is proportional to the weight: subtract lr·λ·p."),
        ("parameters without a gradient decay too", {"without gradient": decays},
         "A parameter that took no part in the step must stay as it is: `continue` before anything else.")),
    *group(CORRECTED, ADAM, STEP,
        ("no bias correction", {"c1": lambda beta1, t: 1.0, "c2": lambda beta2, t: 1.0},
         "m and v begin at 0 and are too small at first, v more than m: the first steps are too long. Use "
         "lr·√(1−β₂ᵗ)/(1−β₁ᵗ)."),
        ("only m is corrected for its bias", {"c2": lambda beta2, t: 1.0},
         "v begins at 0 as well: √(1−β₂ᵗ) is missing."),
        ("only v is corrected for its bias", {"c1": lambda beta1, t: 1.0},
         "m begins at 0 as well: the division by 1−β₁ᵗ is missing.")),
    *group("α_t = α·√(1−β₂ᵗ)/(1−β₁ᵗ)", "Kingma & Ba 2015, end of §2", STEP,
        ("the root is missing on 1−β₂ᵗ",
         ({"root": lambda v, eps, c2: (v.sqrt() + eps) / c2}, {"root": lambda v, eps, c2: v.sqrt() / c2 + eps}),
         "v̂ stands under a root, so its correction does too: α_t = lr·√(1−β₂ᵗ)/(1−β₁ᵗ)."),
        ("there is a root on 1−β₁ᵗ", {"c1": lambda beta1, t: math.sqrt(1 - beta1**t)},
         "m stands under no root: α_t = lr·√(1−β₂ᵗ)/(1−β₁ᵗ).")),
    *group(CORRECTED, ADAM, STEP,
        ("the bias correction is upside down",
         {"c1": lambda beta1, t: 1 / (1 - beta1**t), "c2": lambda beta2, t: 1 / (1 - beta2**t)},
         "m̂ = m/(1−β₁ᵗ): the means are too small and must be made larger."),
        ("the bias correction has β₂², not β₂ᵗ",
         ({"c2": lambda beta2, t: 1 - beta2**2},
          {"c1": lambda beta1, t: 1 - beta1**1, "c2": lambda beta2, t: 1 - beta2**2}),
         "The 2 of β₂ is its name; the power is t, the number of steps: 1 − beta2 ** t."),
        ("the bias correction uses β·t, not βᵗ",
         {"c1": lambda beta1, t: 1 - beta1 * t, "c2": lambda beta2, t: 1 - beta2 * t},
         "β is raised to the power t: 1 − beta1 ** t.", STEP, "ValueError")),
    *group(f"{MEAN}, {SQUARE}", ADAM, STEP,
        ("β₁ and β₂ are swapped", {"betas": lambda beta1, beta2: (beta2, beta1)},
         "betas = (β₁, β₂): the first is for m, the second for v."),
        ("β₁ is used for both means", {"betas": lambda beta1, beta2: (beta1, beta1)},
         "v has its own rate, β₂.")),
    *group(UPDATE, ADAM, STEP,
        ("eps is inside the root",
         ({"root": lambda v, eps, c2: (v + eps).sqrt() / math.sqrt(c2)},
          {"root": lambda v, eps, c2: (v / c2 + eps).sqrt()}),
         "√(v + ε) is about √ε = 1e-3 for small gradients, and swallows their steps. Add ε after the root."),
        ("no eps",
         ({"root": lambda v, eps, c2: v.sqrt() / math.sqrt(c2) + 1e-300},
          {"root": lambda v, eps, c2: v.sqrt() / math.sqrt(c2)}),
         "Where a gradient has always been 0 this is 0/0. Add ε to the root."),
        ("no root over v",
         ({"root": lambda v, eps, c2: v / c2 + eps}, {"root": lambda v, eps, c2: (v + eps) / math.sqrt(c2)},
          {"root": lambda v, eps, c2: (v + eps) / c2}),
         "The step is divided by the root of the mean square, √v̂.")),
    *group(CORRECTED, ADAM, STEP,
        ("t begins at 0",
         ({"t": lambda own, steps, all, since: own - 1},
          {"t": lambda own, steps, all, since: own - 1, "rate": zero_division}),
         "Then 1−βᵗ is 0 at the first step, and divided by. Count first, then correct: state['step'] += 1.",
         STEP, "ZeroDivisionError"),
        ("t is one ahead", {"t": lambda own, steps, all, since: own + 1},
         "At the first step t is 1: begin at 0 and add 1 once."),
        ("t stays 1", {"t": lambda own, steps, all, since: 1},
         "Each step must add 1 to the parameter's state['step']."),
        ("t is shared between the parameters",
         ({"t": lambda own, steps, all, since: all}, {"t": lambda own, steps, all, since: steps}),
         "t counts each parameter's own updates: keep it in self.state[p]. One count for all is the same only where "
         "every parameter has a gradient at every step. A head misses the other tasks' steps, and its first steps are "
         "then up to (1−β₁)/√(1−β₂) = 3.2 times too long."),
        ("t starts anew whenever another parameter's state is made",
         ({"t": lambda own, steps, all, since: since}, {"t": Anew()}),
         "A parameter that joins later, such as a head's, sets the count back for all. Keep t in self.state[p].")),
    *group("p ← p − α·m/(√v + ε) without correction", ADAM, STEP,
        ("correct_bias=False is not handled: no step is taken",
         ({"uncorrected": lambda lr: 0.0}, {"uncorrected": unbound}),
         "Without the correction the step size is lr itself. Set it before the `if`, and correct it inside.",
         STEP, "UnboundLocalError")),
    *group(CORRECTED, ADAM, STEP,
        ("correct_bias is read the wrong way round", {"corrects": lambda asked: not asked},
         "Correct the bias where group['correct_bias'] is true.")),
    *group(f"{MEAN}, {SQUARE}", ADAM, STEP,
        ("the state is put on the GPU, wherever the parameter is", {"asks for a GPU": True},
         "On a machine without one this fails, and on one with several it may be another. torch.zeros_like(p) is on "
         "p's own device."),
        ("the state is made new at every step",
         ({"kept": False}, {"kept": False, "t": lambda own, steps, all, since: 1}),
         "m and v are running means and must live on: make them only where self.state[p] is still empty, and store the "
         "new ones there.")),
    *group(MEAN, ADAM, STEP,
        ("m lacks the factor 1−β₁", {"m": lambda m, g, beta1: beta1 * m + g},
         "A running mean adds (1−β₁)·g; without the factor it is a sum, ten times too large."),
        ("m has its weights swapped", {"m": lambda m, g, beta1: (1 - beta1) * m + beta1 * g},
         "The old mean gets β₁, the new gradient 1−β₁."),
        ("no momentum: m is the gradient", ({"m": lambda m, g, beta1: (1 - beta1) * g}, {"m": lambda m, g, beta1: g}),
         "The old mean must stay in it: β₁·m.")),
    *group(SQUARE, ADAM, STEP,
        ("v lacks the factor 1−β₂", {"v": lambda v, g, beta2: beta2 * v + g * g},
         "A running mean adds (1−β₂)·g²; without the factor steps are far too short."),
        ("v has its weights swapped", {"v": lambda v, g, beta2: (1 - beta2) * v + beta2 * g * g},
         "The old mean gets β₂, the new square 1−β₂."),
        ("v does not keep its old value",
         ({"v": lambda v, g, beta2: (1 - beta2) * g * g}, {"v": lambda v, g, beta2: g * g}),
         "The old mean must stay in it: β₂·v."),
        ("the gradient is not squared in v",
         ({"v": lambda v, g, beta2: beta2 * v + (1 - beta2) * g},
          {"v": lambda v, g, beta2: beta2 * v + (1 - beta2) * g.abs()}),
         "v is the mean of g², or its root has no meaning.")),
    *group(UPDATE, ADAM, STEP,
        ("the gradient's step has the wrong sign", {"step": lambda p, rate, m, root: p + rate * m / root},
         "Descend: subtract."),
        ("the learning rate is not used",
         ({"rate": lambda lr, c1: 1.0 / c1, "uncorrected": lambda lr: 1.0}, {"rate": lambda lr, c1: 1.0 / c1}),
         "Multiply the step by group['lr']."),
        ("every group uses the first group's options",
         {"group": lambda group, first: {**first, "params": group["params"]}},
         "Take lr, betas, eps and weight_decay from the group that the loop is at."),
        ("only the first group's parameters are updated",
         {"group": lambda group, first: group if group is first else {**group, "params": []}},
         "Loop over all of `self.param_groups`, and return only after the loop: heads with a rate of their own, and "
         "parameters without decay, are other groups.")),
)  # fmt: skip

PART = Part(
    "optimizer", "AdamW", RIGHT, reference, find, PROBES, MISTAKES,
    also_right=(TEXTBOOK, FROM_OLD, {**TEXTBOOK, **FROM_OLD}), owns=("AdamW",), atol=1e-7, rtol=1e-5,
)  # fmt: skip
