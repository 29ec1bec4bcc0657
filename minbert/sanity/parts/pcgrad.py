"""PCGrad, in pieces (Yu et al. 2020, Algorithm 1).

    gᵢ' = gᵢ;  for every j ≠ i in random order, if gᵢ'·gⱼ < 0:   gᵢ' ← gᵢ' - (gᵢ'·gⱼ)/‖gⱼ‖² · gⱼ
    the update follows Σᵢ gᵢ'

The orders are random, so the check compares the sets of all sums that come out: the right pieces go through every
order, and theirs is called many times. Theirs may be a function of gradients, or a class around an optimizer with
`pc_backward(losses)`.
"""

import inspect
import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck, Part, Pieces, Probe, group
from minbert.sanity.evidence import NoAttribute
from minbert.sanity.search import named, optional, unlike

# The worked examples. Three tasks: with the orders 1-2-3 the sum is (-.389, .222, 1.778).
THREE = ((1.0, 0, 0), (-1.0, 1, 0), (-0.5, -1, 1))
OPPOSED = ((1.0, 0), (-1.0, 1))  # → (.5, 1.5)
STEEP = ((2.0, 0), (0.0, 3))  # for gradient vaccine
BETA = 1e-2  # how fast its targets follow
AGREED = ((1.0, 0), (1.0, 1))  # → (2, 1)
HEADS = ((3.0, 1), (0.5, -2))  # each task's own head, beside OPPOSED
DRAWS = 150  # of 8 equally likely sums, one stays unseen once in 60 million times

# ------------------------------------------------------------------------------------------------ the right pieces


Order = list[tuple[int, tuple[int, ...]]]  # one turn after the other: the task i, and the others j that it meets


def every_order(T: int) -> list[Order]:
    """All possible orders: every task i has its turn, and the others j come in any order."""
    return _turns(T, lambda i: itertools.permutations(j for j in range(T) if j != i))


def with_itself(T: int) -> list[Order]:
    """The same where a task meets itself as well, which changes nothing as long as only conflicts count."""
    return _turns(T, lambda i: itertools.permutations(range(T)))


def _turns(T: int, others: Callable[[int], Iterable[tuple[int, ...]]]) -> list[Order]:
    return [list(enumerate(choice)) for choice in itertools.product(*[list(others(i)) for i in range(T)])]


def _sine(cosine: float) -> float:
    return math.sqrt(1 - cosine**2)


def original(g: list[Tensor], projected: list[Tensor], j: int) -> Tensor:
    """The gⱼ that gᵢ' is compared with: as it came from task j."""
    return g[j]


def current(g: list[Tensor], projected: list[Tensor], i: int) -> Tensor:
    """The gᵢ' that is looked at: with what was taken out of it so far."""
    return projected[i]


RIGHT = {
    "orders": every_order,
    "other": original,
    "mine": current,
    "conflict": lambda dot: dot < 0,
    "divisor": lambda g_j: g_j @ g_j,  # ‖gⱼ‖²
    "take": lambda g_i, part: g_i - part,
    "chunks": lambda g: [slice(0, len(g))],  # all parameters are one long vector
    "sum": lambda g: g.sum(dim=0),
    "with_heads": False,  # the vector holds what all tasks share, and no head
    "heads": lambda g, T: g,  # a head keeps its own gradient
    # gradient vaccine: what of gⱼ is added, in units of ‖gᵢ‖/‖gⱼ‖; whether at all; and the next target
    "vaccine": lambda phi, goal: (goal * _sine(phi) - phi * _sine(goal)) / _sine(goal),
    "too low": lambda phi, goal: phi < goal,
    "lengths": lambda g_i, g_j: g_i.norm() / g_j.norm(),
    "next goal": lambda phi, goal: (1 - BETA) * goal + BETA * phi,
}


def surgery(p: Pieces, gradients: list[Tensor], order: Order) -> list[Tensor]:
    """Algorithm 1 with one choice of orders: g₁' … g_T', each (n,)."""
    projected = [g.clone() for g in gradients]
    for i, others in order:
        for j in others:
            for chunk in p["chunks"](gradients[0]):
                g_i = p["mine"](gradients, projected, i)[chunk]
                g_j = p["other"](gradients, projected, j)[chunk]
                dot = g_i @ g_j
                if p["conflict"](dot):
                    projected[i][chunk] = p["take"](projected[i][chunk], dot / p["divisor"](g_j) * g_j)
    return projected


class Reference:
    """PCGrad of these pieces."""

    def __init__(self, pieces: Pieces):
        self.pieces = pieces

    def sums(self, gradients: Sequence[Sequence[float]]) -> list[Tensor]:
        """Every sum that can come out. gradients: (T, n)."""
        g = [torch.tensor(row, dtype=torch.float64) for row in gradients]
        return [self.pieces["sum"](torch.stack(surgery(self.pieces, g, o))) for o in self.pieces["orders"](len(g))]

    def heads(self, gradients, heads) -> dict[str, Tensor]:
        """The shared parameters' gradient and the heads', where every task has a head of its own."""
        p, T, n = self.pieces, len(gradients), len(gradients[0])
        own = torch.block_diag(*torch.tensor(heads, dtype=torch.float64))  # a task's row holds its head, and zeros
        vectors = torch.cat([torch.tensor(gradients, dtype=torch.float64), own], dim=1)
        taking_part = vectors.shape[1] if p["with_heads"] else n
        done = torch.stack(surgery(p, list(vectors[:, :taking_part]), p["orders"](T)[0]))
        of_heads = torch.cat([done, vectors[:, taking_part:]], dim=1)[:, n:].sum(dim=0)
        return {"shared": p["sum"](done)[:n], "heads": p["heads"](of_heads.reshape(T, -1), T)}

    def vaccine(self, gradients, goals) -> tuple[Tensor, Tensor]:
        """For two tasks: the sum of their gradients, and the targets afterwards, (2, 2)."""
        p, g = self.pieces, torch.tensor(gradients, dtype=torch.float64)
        after, total = torch.tensor(goals, dtype=torch.float64), g.sum(dim=0)
        for i, j in ((i, j) for i, others in p["orders"](2)[0] for j in others):
            phi = (g[i] @ g[j] / (g[i].norm() * g[j].norm())).item()
            goal = goals[i][j]
            amount = p["lengths"](g[i], g[j]) * p["vaccine"](phi, goal) if p["too low"](phi, goal) else 0.0
            total += amount * g[j]
            after[i, j] = p["next goal"](phi, goal)
        return total, after


# ------------------------------------------------------------------------------------------------ theirs


class Theirs:
    """Somebody's PCGrad: `update` puts into `.grad` of the parameters what should be there after T losses."""

    def __init__(self, update: Callable[[list[nn.Parameter], list[Tensor]], None], heads: bool, promised: bool = False):
        self.update, self.has_heads, self.promised = update, heads, promised

    def sums(self, gradients):
        random.seed(0)
        np.random.seed(0)
        found = []
        for _ in range(DRAWS):
            # two tensors, as a model has several: (1,) and (n - 1,)
            first, rest = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (1, len(gradients[0]) - 1))
            rows = [torch.tensor(g, dtype=torch.float64) for g in gradients]
            self.update([first, rest], [first @ g[:1] + rest @ g[1:] for g in rows])
            found.append(torch.cat([first.grad, rest.grad]))
        return found

    def heads(self, gradients, heads):
        if not self.has_heads:
            raise Absent("this PCGrad is a function of gradients; heads are the caller's")
        first, rest = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (1, len(gradients[0]) - 1))
        own = [nn.Parameter(torch.zeros(len(h), dtype=torch.float64)) for h in heads]
        pairs = zip(gradients, own, heads, strict=True)
        losses = [first @ first.new_tensor(g[:1]) + rest @ rest.new_tensor(g[1:]) + o @ o.new_tensor(h)
                  for g, o, h in pairs]  # fmt: skip
        self.update([first, rest, *own], losses)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        return {"shared": torch.cat([first.grad, rest.grad]), "heads": torch.stack(grads)}


class Ours(Theirs):
    """A module like our `pcgrad.py`."""

    def __init__(self, module: Any):
        self.module, memory = module, module.Memory(0)

        def update(parameters, losses):
            taken = []
            for loss in losses:
                loss.backward()
                taken.append(module.take_gradients(parameters))
            module.give_gradients(taken, module.pcgrad, memory)

        super().__init__(update, heads=True, promised=True)

    def vaccine(self, gradients, goals):
        memory = self.module.Memory(0)
        memory.targets = torch.tensor(goals, dtype=torch.float64)
        rows = [[torch.tensor(g[:1]), torch.tensor(g[1:])] for g in gradients]
        rows = [[part.double() for part in row] for row in rows]
        return torch.cat(self.module.gradvac(rows, memory)), memory.targets


def find(project) -> Theirs:
    """Our `pcgrad` and what stands around it; or a class PCGrad(optimizer); or a function of a list of gradients."""
    if module := optional(project, "pcgrad", "pcgrad", "gradvac", "Memory", "take_gradients", "give_gradients"):
        return Ours(module)

    for _, PCGrad in named(project, lambda name: name.endswith(".pc_backward")):
        return Theirs(partial(wrapped, PCGrad), heads=True)
    surgical = re.compile(r"(?i)_?(pc_?grad|\w*project_conflict|gradient_surgery)")
    for _, function in named(project, surgical.match):
        if inspect.isfunction(function):
            needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            if len(needed) == 1:
                return Theirs(partial(called, function), heads=False)
    unlike(project, r"(?i)pc_?grad|pc_?backward|project_?conflict|gradient[ _]?surgery|Yu et al",
           "functions pcgrad(gradients) and classes PCGrad(optimizer) with pc_backward(losses)")  # fmt: skip


def wrapped(PCGrad: type, parameters: list[nn.Parameter], losses: list[Tensor]):
    """The widespread class around an optimizer, of which it needs the parameters; no step is taken."""
    PCGrad(Parameters(parameters)).pc_backward(losses)


class Parameters:
    """What PCGrad needs of an optimizer. (`torch.optim` takes seconds to load.)"""

    def __init__(self, parameters: list[nn.Parameter]):
        self.param_groups = [{"params": parameters}]

    def zero_grad(self, set_to_none: bool = True):
        for p in self.param_groups[0]["params"]:
            p.grad = None

    def step(self, closure: Callable | None = None):
        pass

    def __getattr__(self, name: str) -> Any:
        raise NoAttribute(f"it asks the optimizer for `{name}`, which the check's stand-in does not have")


def called(function: Callable, parameters: list[nn.Parameter], losses: list[Tensor]):
    """A function of one list: of flat gradients or, if it will not take these, of lists of tensors.

    What it returns may be the update, or every task's projected gradient, still to be summed.
    """
    lists = [list(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in losses]
    try:
        result = function([torch.cat([g.flatten() for g in gradient]) for gradient in lists])
    except NotImplementedError:
        raise
    except Exception:
        result = function(lists)
    n = sum(p.numel() for p in parameters)
    flat = torch.cat([torch.as_tensor(t).flatten() for t in _tensors(result)])
    if flat.numel() % n:
        raise CannotCheck(f"{function.__name__} returns {flat.numel()} numbers for gradients of {n}")
    at = 0
    for p in parameters:
        p.grad = flat.reshape(-1, n).sum(dim=0)[at : at + p.numel()].reshape(p.shape)
        at += p.numel()


def _tensors(result) -> list[Tensor]:
    return [t for part in result for t in _tensors(part)] if isinstance(result, list | tuple) else [result]


# ------------------------------------------------------------------------------------------------ probes


def distinct(sums: list[Tensor]) -> Tensor:
    """The different ones among some sums, sorted: (how many, n)."""
    return torch.stack(sums).round(decimals=6).add(0.0).unique(dim=0)


def vaccinated(gradients: tuple, goal: float) -> Callable[[Any], dict[str, Tensor]]:
    """GradVac of two tasks with this target for either."""

    def run(s) -> dict[str, Tensor]:
        if not hasattr(s, "vaccine"):
            raise Absent("no gradient vaccine")
        total, after = s.vaccine(gradients, ((0.0, goal), (goal, 0.0)))
        return {"the sum": total, "the targets after": after[[0, 1], [1, 0]]}

    return run


PROBES = (
    Probe("two tasks in conflict", lambda s: distinct(s.sums(OPPOSED)),
          "Gradients (1, 0) and (-1, 1): each gives up what opposes the other, and the sum is (½, 1½)."),
    Probe("two tasks that agree", lambda s: distinct(s.sums(AGREED)),
          "Gradients (1, 0) and (1, 1) do not oppose one another: they are summed as they are, (2, 1)."),
    Probe("three tasks, in every order", lambda s: distinct(s.sums(THREE)),
          f"Gradients (1, 0, 0), (-1, 1, 0), (-½, -1, 1), {DRAWS} times: the sums that came out, each once, sorted."),
    Probe("two tasks with a head each", lambda s: s.heads(OPPOSED, HEADS),
          "The shared gradients (1, 0) and (-1, 1), and a head for each task: what `.grad` holds after."),
    Probe("gradvac, below the target", vaccinated(STEEP, 0.6),
          "Gradients (2, 0) and (0, 3), φ = 0, and the target φ̂ = 0.6: gᵢ' must have a cosine of 0.6 with gⱼ, so that "
          "2·0.6/0.8 = 1.5 is added to the first along (0, 1), and 2.25 to the second along (1, 0)."),
    Probe("gradvac, below the target and in conflict", vaccinated(OPPOSED, 0.6),
          "Gradients (1, 0) and (-1, 1), φ = -√½, and the target φ̂ = 0.6."),
    Probe("gradvac, above the target", vaccinated(AGREED, 0.6),
          "Gradients (1, 0) and (1, 1), φ = √½, and the target φ̂ = 0.6: nothing is added, and the targets rise."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

EQUATION = "gᵢ' ← gᵢ' - (gᵢ'·gⱼ)/‖gⱼ‖² · gⱼ   if gᵢ'·gⱼ < 0;   the update is Σᵢ gᵢ'"
SOURCE = "Yu et al. 2020, Algorithm 1"
VACCINE = "gᵢ' ← gᵢ' + ‖gᵢ'‖(φ̂√(1 − φ²) − φ√(1 − φ̂²))/(‖gⱼ‖√(1 − φ̂²))·gⱼ   if φ < φ̂;   φ̂ ← (1 − β)φ̂ + βφ"
WHERE = ("PCGrad._project_conflicting", "PCGrad.pc_backward", "pcgrad", "project_conflicting", "gradient_surgery")


def mean(g: Tensor) -> Tensor:
    return g.mean(dim=0)


MISTAKES = (
    *group(EQUATION, SOURCE, WHERE,
        ("projects against gradients that are projected already", {"other": current},
         "gⱼ must be the gradient as it came from task j; yours was changed by an earlier round. Keep a copy of all "
         "gradients before the loop and project against the copies."),
        ("the order of the tasks is always the same",
         {"orders": lambda T: [[(i, tuple(j for j in range(T) if j != i)) for i in range(T)]]},
         "The result depends on the order, and the first task would always be served the same way. Draw a fresh order "
         "for every task at every step (`random.shuffle` works in place; `torch.randperm` returns)."),
        ("the mean of the gradients, not their sum", ({"sum": mean}, {"sum": mean, "heads": lambda g, T: g / T}),
         "The update is the sum of the projected gradients. A mean makes every step, and the norm that clipping sees, "
         "T times smaller. (The public Pytorch-PCGrad does this.)"),
        ("projects also where nothing is in conflict", {"conflict": lambda dot: True},
         "Where gᵢ'·gⱼ ≥ 0 the tasks help one another and nothing may be taken away. Project only if gᵢ'·gⱼ < 0."),
        ("projects where the tasks agree, and not where they oppose one another",
         ({"conflict": lambda dot: dot > 0}, {"conflict": lambda dot: dot > 0, "orders": with_itself}),
         "The comparison is the wrong way round: the part to be taken out is there when gᵢ'·gⱼ < 0."),
        ("divides by ‖gⱼ‖ instead of ‖gⱼ‖²", {"divisor": lambda g_j: g_j.norm()},
         "The part of gᵢ' along gⱼ is (gᵢ'·gⱼ)/‖gⱼ‖² · gⱼ: the norm is needed once for the length and once for the "
         "direction."),
        ("does not divide by ‖gⱼ‖²", {"divisor": lambda g_j: 1.0},
         "Without the divisor a long gⱼ takes far too much out of gᵢ'. Divide gᵢ'·gⱼ by gⱼ·gⱼ."),
        ("looks at the first gᵢ each time instead of what is left of it", {"mine": original},
         "After one projection gᵢ' may oppose the next task where gᵢ did not, or no longer. Take the product with gᵢ', "
         "the gradient with what was taken out of it so far."),
        ("adds the part that opposes instead of taking it out", {"take": lambda g_i, part: g_i + part},
         "gᵢ'·gⱼ is negative, so that minus it times gⱼ moves along gⱼ. With a plus the conflict doubles."),
        ("looks only at the tasks that come later",
         ({"orders": lambda T: _turns(T, lambda i: itertools.permutations(range(i + 1, T)))},
          {"orders": lambda T: [[(i, tuple(range(i + 1, T))) for i in range(T)]]}),
         "Every task must be compared with all others: j runs over all j ≠ i, not over j > i."),
        ("projects every tensor by itself", {"chunks": lambda g: [slice(0, 1), slice(1, len(g))]},
         "A conflict is one of whole gradients: all shared parameters together are one vector. Flatten and concatenate "
         "before taking products."),
        ("counts the heads' gradients in ‖gⱼ‖²", {"with_heads": True},
         "A head belongs to one task and cannot be in conflict; in ‖gⱼ‖² it only makes the projection too weak. "
         "Project the parameters that all tasks share, and no others. (The public Pytorch-PCGrad does this.)",
         ("PCGrad._pack_grad", "give_gradients", *WHERE)),
        ("divides the heads' gradients by the number of tasks", {"heads": lambda g, T: g / T},
         "A head gets its gradient from one task and should keep it as it is.", ("give_gradients", *WHERE)),
        ("leaves the heads without a gradient", {"heads": lambda g, T: torch.zeros_like(g)},
         "Parameters that only one task reaches are no part of the surgery, but they must still learn: give them their "
         "own gradient.", ("PCGrad._set_grad", "give_gradients", *WHERE))),
    *group(VACCINE, "Wang et al. 2021, eq. 5 and Algorithm 1", ("gradvac",),
        ("the sines of φ and φ̂ are swapped",
         {"vaccine": lambda phi, goal: (goal * _sine(goal) - phi * _sine(phi)) / _sine(phi)},
         "The gradient that is added must make the cosine φ̂: φ̂ goes with √(1 − φ²), φ and the divisor with "
         "√(1 − φ̂²)."),
        ("gradient vaccine without the target: pairs are only made orthogonal",
         {"vaccine": lambda phi, goal: -phi, "too low": lambda phi, goal: phi < 0},
         "That is PCGrad. Raise the cosine to its target wherever it is below it, not only below 0."),
        ("a cosine above its target is lowered", {"too low": lambda phi, goal: True},
         "Tasks that agree more than was aimed at are left alone: only where φ < φ̂ is anything added."),
        ("gradient vaccine without the gradients' lengths", {"lengths": lambda g_i, g_j: 1.0},
         "What is added is a multiple of gⱼ; ‖gᵢ'‖/‖gⱼ‖ brings it to the size of gᵢ'."),
        ("the targets stay as they are", {"next goal": lambda phi, goal: goal},
         "φ̂ is a running mean of the cosines that were seen: φ̂ ← (1 − β)·φ̂ + β·φ, for every pair at every step."),
        ("the targets follow only where a gradient is changed",
         {"next goal": lambda phi, goal: (1 - BETA) * goal + BETA * phi if phi < goal else goal},
         "φ̂ follows φ in any case, also where φ is above it; otherwise the targets only fall.")),
)  # fmt: skip

PART = Part(
    name="pcgrad",
    title="gradient surgery (PCGrad)",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
    together=("the mean of the gradients, not their sum", "counts the heads' gradients in ‖gⱼ‖²"),  # Pytorch-PCGrad's
    also_right=(  # one order a step, the same for every task
        {"orders": lambda T: [[(i, tuple(j for j in o if j != i)) for i in range(T)]
                              for o in itertools.permutations(range(T))]},
    ),
)  # fmt: skip
