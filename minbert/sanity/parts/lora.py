"""LoRA, in pieces (Hu et al. 2022, §4.1).

    y = W·x + b + (α/r)·B·A·dropout(x)          W: (out, in)   A: (r, in)   B: (out, r);  W and b stay as they were

At the start one factor is zero and the other random, so that the model starts unchanged and can still learn.
Theirs may be a function like our `add_lora`, a class around a linear layer, `LinearWithLoRA(linear, rank, alpha)`, or
an adapter beside one, `LoRALayer(in_dim, out_dim, rank, alpha)`. Their factors are known by their shapes.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Part, Pieces, Probe, fill, group, seeded
from minbert.sanity.search import named, optional, says, unlike

IN, OUT = 7, 5  # so that a factor's shape, with ranks 2 and 3, says which one it is

# ------------------------------------------------------------------------------------------------ the right pieces

RIGHT = {
    "scale": lambda r, alpha: alpha / r,
    "start A": lambda A: nn.init.normal_(A),
    "start B": lambda B: nn.init.zeros_(B),
    "weight trains": False,
    "bias trains": False,
    "base": lambda x, dropout: x,  # the frozen layer's input
    "adapter": lambda x, dropout: dropout(x),  # the factors' input
    "merged scale": lambda r, alpha: alpha / r,
    "merged adapter": 0.0,  # how much of the adapter a merged layer still adds
    "kept": lambda weight: weight.clone(),  # W, to come back
    "switch": lambda names, name: name,  # which of several adapters answers after `use`
}


class LoRA(nn.Module):
    """A linear layer with adapters beside it, of these pieces."""

    def __init__(self, p: Pieces, linear: nn.Linear, r: int, alpha: float, dropout: float, names: tuple[str, ...]):
        super().__init__()
        self.p, self.linear, self.r, self.alpha, self.dropout = p, linear, r, alpha, nn.Dropout(dropout)
        self.A = nn.ParameterDict({n: p["start A"](nn.Parameter(torch.zeros(r, linear.in_features))) for n in names})
        self.B = nn.ParameterDict({n: p["start B"](nn.Parameter(torch.zeros(linear.out_features, r))) for n in names})
        self.names, self.active, self.merged = names, names[0], None
        linear.weight.requires_grad_(p["weight trains"])
        linear.bias.requires_grad_(p["bias trains"])

    def forward(self, x: Tensor) -> Tensor:
        p, A, B = self.p, self.A[self.active], self.B[self.active]
        y = self.linear(p["base"](x, self.dropout))
        scale = p["scale"](self.r, self.alpha) * (1.0 if self.merged is None else p["merged adapter"])
        return y + scale * F.linear(F.linear(p["adapter"](x, self.dropout), A), B)

    def use(self, name: str):
        self.active = self.p["switch"](self.names, name)

    @torch.no_grad()
    def merge(self):
        A, B = self.A[self.active], self.B[self.active]
        self.merged = self.p["kept"](self.linear.weight)
        self.linear.weight += self.p["merged scale"](self.r, self.alpha) * (B @ A)

    @torch.no_grad()
    def unmerge(self):
        self.linear.weight.copy_(self.merged)
        self.merged = None


class Subject:
    """A LoRA, theirs or our own. `make` puts it on a linear layer, which it may change."""

    def use(self, module: nn.Module, name: str):
        module.use(name)

    def merge(self, module: nn.Module):
        module.merge()

    def unmerge(self, module: nn.Module):
        module.unmerge()

    def weight(self, module: nn.Module, linear: nn.Linear) -> Tensor:
        """W, as it is in the module now."""
        return linear.weight

    def scaled(self):
        """Raise Absent where there is no scale."""

    def must_freeze(self) -> bool:
        """Whether it is LoRA's own task to freeze the layer."""
        return True


class Reference(Subject):
    """LoRA of these pieces."""

    def __init__(self, pieces: Pieces):
        self.pieces = pieces

    def make(self, linear: nn.Linear, r: int, alpha: float, dropout: float = 0.0, names=("all",)) -> nn.Module:
        return LoRA(self.pieces, linear, r, alpha, dropout, names)


# ------------------------------------------------------------------------------------------------ theirs


class Ours(Subject):
    """A module like our `lora.py`."""

    def __init__(self, lora: Any):
        self.lora = lora

    def make(self, linear, r, alpha, dropout=0.0, names=("all",)):
        return self.lora.add_lora(nn.Sequential(linear), r, alpha, dropout, names=names)

    def use(self, module, name):
        self.lora.use_lora(module, name)

    def merge(self, module):
        self.lora.merge_lora(module)

    def unmerge(self, module):
        self.lora.unmerge_lora(module)

    def weight(self, module, linear):
        return module[0].weight


ARGUMENTS = {
    "linear": r"linear|base|base_layer|layer|original_layer|orig|module|lin|original_linear|linear_layer",
    "in": r"n_?in|fan_in|d_in|in_(dim|features|size|feat)|input_(dim|size|features)",
    "out": r"n_?out|fan_out|d_out|out_(dim|features|size|feat)|output_(dim|size|features)",
    "r": r"rank|r|lora_rank|lora_r|lora_dim",
    "alpha": r"alpha|lora_alpha|scaling_alpha",
    "dropout": r"dropout|lora_dropout|dropout_p|p",
}


def arguments(LoRA: type) -> dict[str, str]:
    """Which of a class's arguments is what: {"r": "rank", …}."""
    names = [n for n in inspect.signature(LoRA).parameters]
    return {k: n for k, form in ARGUMENTS.items() for n in names if re.fullmatch(form, n.lower())}


class Theirs(Subject):
    """A class around a linear layer, or one that stands beside it."""

    promised = False

    def __init__(self, LoRA: type, names: Mapping[str, str], freezes: bool):
        self.LoRA, self.names, self.freezes = LoRA, names, freezes

    def make(self, linear, r, alpha, dropout=0.0, names=("all",)):
        if len(names) > 1:
            raise Absent("one adapter a layer")
        if dropout and "dropout" not in self.names:
            raise Absent("no dropout")
        if "alpha" not in self.names:
            alpha = r  # nothing to scale with
        values = {"linear": linear, "in": IN, "out": OUT, "r": r, "alpha": alpha, "dropout": dropout}
        made = self.LoRA(**{self.names[k]: v for k, v in values.items() if k in self.names})
        if isinstance(made, nn.Linear) and "linear" not in self.names:  # it is the layer itself
            with torch.no_grad():
                made.weight.copy_(linear.weight)
                made.bias.copy_(linear.bias)
            linear.weight, linear.bias = made.weight, made.bias
            return made
        return made if "linear" in self.names else Beside(linear, made)

    def scaled(self):
        if "alpha" not in self.names:
            raise Absent("it has no α to scale with")

    def use(self, module, name):
        raise Absent("one adapter a layer")

    def _call(self, module, *names):
        module = module.beside if isinstance(module, Beside) else module
        for name in names:
            if callable(getattr(module, name, None)):
                return getattr(module, name)()
        raise Absent(f"no method {names[0]}()")

    def merge(self, module):
        self._call(module, "merge", "merge_weights")

    def unmerge(self, module):
        self._call(module, "unmerge", "unmerge_weights")

    def must_freeze(self):
        return self.freezes


class Beside(nn.Module):
    """A linear layer and an adapter that somebody wrote to stand beside it."""

    def __init__(self, linear: nn.Linear, beside: nn.Module):
        super().__init__()
        self.linear, self.beside = linear, beside

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.beside(x)


def find(project: Any) -> Subject:
    """Our `add_lora`; or a class with LoRA in its name and arguments that are known, preferably one around a layer."""
    if module := optional(project, "lora", "add_lora", "use_lora", "merge_lora", "unmerge_lora"):
        return Ours(module)
    classes = {name: c for name, c in named(project, lambda n: re.fullmatch(r"\w*[Ll]o[Rr][Aa]\w*", n)) if _is_layer(c)}
    usable = {n: (c, a) for n, c in classes.items() if "r" in (a := arguments(c)) and _complete(c, a)}
    if not classes:
        unlike(project, r"(?i)lora(?![a-z])|low.rank adapt|Hu et al",
               "functions add_lora(module, rank, alpha) and modules with LoRA in their names")  # fmt: skip
    if not usable:
        raise CannotCheck(
            f"{', '.join(classes)}: the check knows classes with the arguments (linear, rank, alpha) or "
            "(in_dim, out_dim, rank, alpha)"
        )
    name = min(usable, key=lambda n: "linear" not in usable[n][1])
    LoRA, names = usable[name]
    # Freezing may be the caller's; where nobody freezes anything, it was forgotten.
    probe = Theirs(LoRA, names, False).make(nn.Linear(IN, OUT), 2, 2.0)
    base = [p for p in probe.parameters() if p.shape == (OUT, IN)]
    freezes = any(not p.requires_grad for p in base) or not says(project, r"requires_grad\w*\s*(\(|=)\s*False")
    own = "linear" in names or issubclass(LoRA, nn.Linear)
    return Theirs(LoRA, names, freezes and own)


def _is_layer(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _complete(LoRA: type, names: Mapping[str, str]) -> bool:
    """Whether the check knows a value for every argument without a default."""
    needed = [n for n, p in inspect.signature(LoRA).parameters.items() if p.default is p.empty and p.kind < 2]
    return set(needed) <= set(names.values()) and ("linear" in names or {"in", "out"} <= names.keys())


# ------------------------------------------------------------------------------------------------ probes


def linear() -> nn.Linear:
    return fill(nn.Linear(IN, OUT))


def x() -> Tensor:
    return seeded("x", 3, IN)


def factors(module: nn.Module, r: int) -> list[nn.Parameter]:
    """The factors: A has the input's size and r, B the output's; in either order, whatever they are called."""
    return [p for p in module.parameters() if sorted(p.shape) in (sorted((r, IN)), sorted((r, OUT)))]


@torch.no_grad()
def learned(module: nn.Module, r: int) -> nn.Module:
    """The module as if it had learned: seeded numbers in A and B, whichever way round they lie."""
    for i, p in enumerate(factors(module, r)):
        shape = (r, IN) if IN in p.shape else (OUT, r)
        numbers = seeded(f"{shape} {i // 2 if i > 1 else 0}", *shape, scale=0.5)
        p.copy_(numbers if p.shape == shape else numbers.T)
    return module


def at_the_start(s) -> Tensor:
    base = linear()
    before = base(x())
    return (s.make(base, 2, 4.0).eval()(x()) - before).abs().max() > 1e-6


def learners(s) -> Tensor:
    module = s.make(linear(), 2, 4.0)
    module(x()).square().sum().backward()
    return torch.tensor(sum(p.grad is not None and bool(p.grad.any()) for p in factors(module, 2)))


def scales(s) -> dict[str, Tensor]:
    s.scaled()
    outputs = {}
    for r, alpha in ((2, 2.0), (2, 6.0), (3, 6.0)):
        base = linear()
        before = base(x())
        outputs[f"r={r}, α={alpha:g}"] = learned(s.make(base, r, alpha), r).eval()(x()) - before
    return outputs


def trained(s, part: str) -> Tensor:
    if not s.must_freeze():
        raise Absent("freezing is the caller's")
    base = linear()
    before = getattr(base, part).detach().clone()
    module = learned(s.make(base, 2, 4.0), 2)
    module(x()).square().sum().backward()
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad and p.grad is not None:
                p -= 0.1 * p.grad
    after = [p for p in module.parameters() if p.shape == before.shape]
    return torch.stack([(p - before).abs().max() for p in after]).min() > 0


def with_dropout(s) -> Tensor:
    s.scaled()
    base = linear()
    before = base(x())
    return learned(s.make(base, 2, 4.0, dropout=0.5), 2).train()(x()) - before


def merged(s) -> dict[str, Tensor]:
    s.scaled()
    base = linear()
    before, W = base(x()), base.weight.detach().clone()
    module = learned(s.make(base, 2, 4.0), 2).eval()
    s.merge(module)
    output = {"y - W·x - b": module(x()) - before}
    s.unmerge(module)
    return output | {"W came back": (s.weight(module, base) - W).abs().max() < 1e-6}


def switched(s) -> dict[str, Tensor]:
    base = linear()
    before = base(x())
    module = s.make(base, 2, 4.0, names=("one", "two")).eval()
    with torch.no_grad():
        for p in factors(module, 2):
            p.fill_(0.0)
        for name, p in module.named_parameters():
            if "two" in name:
                p.fill_(0.5)
    outputs = {}
    for name in ("one", "two", "one"):
        s.use(module, name)
        outputs[f"{name} {len(outputs)}"] = module(x()) - before
    return outputs


PROBES = (
    Probe("whether the output changes at the start", at_the_start,
          "A linear layer from 7 to 5, r = 2, α = 4, just made: whether its output differs from W·x + b."),
    Probe("factors that learn at the start", learners,
          "The same, after a backward pass: how many of the two factors have a gradient. The random one has none yet."),
    Probe("the scale", scales,
          "Seeded numbers in A and B: y - W·x - b for three pairs of r and α."),
    Probe("the pretrained matrix after a step", lambda s: trained(s, "weight"),
          "A step along all gradients of what may learn: whether W moved."),
    Probe("the pretrained bias after a step", lambda s: trained(s, "bias"),
          "A step along all gradients of what may learn: whether b moved."),
    Probe("in training, with dropout", with_dropout,
          "Dropout of ½: y - W·x - b. Only what goes through A and B is dropped."),
    Probe("merged", merged,
          "Seeded A and B, merged into W: y - W·x - b; and whether W comes back when it is unmerged."),
    Probe("two adapters", switched,
          "One layer with the adapters “one” (zeros) and “two” (halves): y - W·x - b when either is in use."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

FORWARD = "y = W·x + b + (α/r)·B·A·x"
START = "ΔW = B·A = 0 at the start:  A ~ N(0, σ²),  B = 0"
WHERE = ("LoRALinear.forward", "LoRALayer.forward", "LinearWithLoRA.forward", "LoRA.forward")
HU = "Hu et al. 2022, §4.1"
MADE = tuple(name.replace("forward", "__init__") for name in ("LoRALinear.forward", "LoRALayer.forward", *WHERE))


def scale(wrong: Callable) -> list[Pieces]:
    """A wrong scale, in the forward pass alone or in the merged matrix too."""
    return [{"scale": wrong, "merged scale": wrong}, {"scale": wrong}]


def random(factor: nn.Parameter) -> nn.Parameter:
    return nn.init.normal_(factor)


MISTAKES = (
    *group(START, HU, MADE,
        ("both factors start random", {"start B": random},
         "The pretrained model is disturbed before it has learned anything. Start B with zeros."),
        ("both factors start at zero", {"start A": nn.init.zeros_},
         "The gradient of each factor is a product with the other: with both at zero nothing ever learns. Start A "
         "random.")),
    *group(FORWARD, HU, WHERE,
        ("the scale α/r is left out", (*scale(lambda r, alpha: 1.0),),
         "Without it r changes how large an update is, and α does nothing. Multiply B·A·x by α/r."),
        ("multiplied by α, but not divided by r", (*scale(lambda r, alpha: alpha),),
         "The scale is α/r, so that the learning rate need not be found again for every r."),
        ("divided by r, but not multiplied by α", (*scale(lambda r, alpha: 1 / r),),
         "The scale is α/r."),
        ("the scale is r/α", (*scale(lambda r, alpha: r / alpha),),
         "It is the other way round: α/r."),
        ("divided by √r", (*scale(lambda r, alpha: alpha / r**0.5),),
         "α/√r is another method (rank-stabilised LoRA); the paper's is α/r. If you meant it, say so.")),
    *group("W₀ is frozen and does not receive gradient updates", HU, MADE,
        ("the pretrained matrix trains too", ({"weight trains": True}, {"weight trains": True, "bias trains": True}),
         "LoRA's point is that W stays: set `requires_grad = False` for it, and give the optimizer only A and B."),
        ("the pretrained bias trains too", {"bias trains": True},
         "b belongs to the pretrained layer: set `requires_grad = False` for it as well.")),
    *group("y = W·x + b + (α/r)·B·A·dropout(x)", HU, WHERE,
        ("the frozen layer's input is dropped out too", {"base": lambda x, dropout: dropout(x)},
         "LoRA's dropout is for the adapter alone: W sees x as it is."),
        ("LoRA's dropout is left out", {"adapter": lambda x, dropout: x},
         "A rate is asked for and not used: drop out x before A.")),
    *group("W ← W + (α/r)·B·A", HU, ("LoRALinear.merged", "LoRALinear.merge", "LoRALayer.merge"),
        ("merges without α/r", {"merged scale": lambda r, alpha: 1.0},
         "The merged matrix must answer as the two paths did: scale B·A as in the forward pass."),
        ("adds the adapter to a merged layer again", {"merged adapter": 1.0},
         "After merging, W·x holds the adapter's share already: return it as it is.", WHERE)),
    *group("W ← W - (α/r)·B·A", HU, ("LoRALinear.unmerge", "LoRALayer.unmerge", "unmerge_lora"),
        ("unmerging does not bring W back", {"kept": lambda weight: weight},
         "Keep W when merging, or take out exactly what was added.")),
    *group("y = W·x + b + (α/r)·Bᵢ·Aᵢ·x for the task i in use", HU, ("LoRALinear.use", "use_lora"),
        ("the first adapter always answers", {"switch": lambda names, name: names[0]},
         "A layer with an adapter a task must use the one that was asked for.")),
)  # fmt: skip

PART = Part(
    name="lora",
    title="low-rank adaptation (LoRA)",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
    also_right=({"start A": nn.init.zeros_, "start B": random},),  # the other factor starts at zero
)
