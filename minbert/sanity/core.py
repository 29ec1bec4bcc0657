"""What a part of the check is made of: right pieces, mistakes that replace some of them, and probes.

The right code of a part is written once, as small named pieces. A mistake replaces one piece (now and then two) by a
wrong one; a probe puts something in and looks at what comes out. So the same probes run on somebody's code, on the
right pieces, and on the right pieces with one or two mistakes swapped in: where two of these give the same numbers,
the fault has a name.

`visible_dropout` makes the one thing that is random visible instead: a dropout of rate p that is on multiplies by
1 - p. Any way of writing dropout at the right place then gives the same numbers, and a dropout at another place, at
another rate, missing, or on in evaluation gives others.
"""

import inspect
import zlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

Pieces = Mapping[str, Any]  # name of a piece → a function, or a value


class NotWritten(Exception):
    """The code of a part is still to be written: it raises NotImplementedError, or it returns nothing."""

    def __init__(self, what: str, file: str = "", line: int = 0):
        super().__init__(what)
        self.what, self.file, self.line = what, file, line


class Absent(Exception):
    """The project has no such part at all; why, in one line."""


class CannotCheck(Exception):
    """The check itself cannot go on: it lacks something that it would need, or does not know this form.

    reason: what is lacking, a clause that can follow "because". remedy: what would let it be checked, a sentence.
    """

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Mistake:
    """One known mistake: what it is called, what it does, and how to make it.

    name: short, in a student's words. pieces: what it replaces in the right part. why: what goes wrong and what to
    write instead. equation: the one that it breaks, in the paper's symbols. source: the paper and its section.
    where: qualified names to look at, the first that exists wins. also: the same mistake in other words, each a
    complete replacement for `pieces`. fails: the exception that it raises, where that is how it shows.
    """

    name: str
    pieces: Pieces
    why: str
    equation: str
    source: str
    where: tuple[str, ...]
    also: tuple[Pieces, ...] = ()
    fails: str = ""

    @property
    def forms(self) -> tuple[Pieces, ...]:
        """Every way to make the mistake."""
        return (self.pieces, *self.also)


def group(equation: str, source: str, where: tuple[str, ...], *rows: tuple) -> tuple[Mistake, ...]:
    """Mistakes that break one equation. rows: (name, pieces or a tuple of forms, why[, where[, the exception]])."""
    mistakes = []
    for name, pieces, why, *rest in rows:
        forms = pieces if isinstance(pieces, tuple) else (pieces,)
        there, fails = (*rest, *(where, "")[len(rest) :])
        mistakes.append(Mistake(name, forms[0], why, equation, source, there, forms[1:], fails))
    return tuple(mistakes)


@dataclass(frozen=True)
class Probe:
    """An input, and what to look at. `run` takes the subject, theirs or the reference, and returns what came out.

    `run` itself sets training or evaluation mode, and leaves the subject as it was; dropout is visible and the seed
    fixed. It may raise Absent where theirs has no such thing; the other probes decide then.
    says: what was put in and looked at, one sentence for a person.
    """

    name: str
    run: Callable[[Any], Tensor | dict[str, Tensor]]
    says: str = ""


@dataclass(frozen=True)
class Part:
    """One chapter of the check.

    right: the pieces. reference: builds a subject out of pieces. find: the same subject out of somebody's project
    (see `project.Project`); raises NotWritten, Absent or CannotCheck. also_right: replacements that are right too, any
    of which may be what somebody wrote. owns: the classes and functions that a student writes for this part. at_base:
    (project, outcomes in which theirs differs) → whether theirs, wrong at the probes' sizes, is right at bert-base's,
    because it has 768 or 64 written into it. together: the names of mistakes that widespread code makes at once; one
    more mistake is looked for beside them. Numbers agree within atol + rtol·|expected|.
    recorded: (mistakes, which of `also_right`, probe) → what the probe gave, where the pieces themselves are not there.

    A subject may have `promised`: False where the check guesses how it is to be called, so that only numbers which
    are exactly those of a known mistake are evidence; and `places`: {mistake: (file, line)} to look at.
    """

    name: str
    title: str
    right: Pieces
    reference: Callable[[Pieces], Any]
    find: Callable[[Any], Any]
    probes: tuple[Probe, ...]
    mistakes: tuple[Mistake, ...]
    also_right: tuple[Pieces, ...] = ()
    owns: tuple[str, ...] = ()
    at_base: Callable[[Any, dict[str, Any]], bool] | None = None
    together: tuple[str, ...] = ()
    atol: float = 1e-5
    rtol: float = 1e-4
    recorded: Callable[[tuple, int, str], dict[str, Any]] | None = None


# ------------------------------------------------------------------------------------------------ dropout, visible

DROPPED: list[tuple[int, ...]] = []  # shapes of what went through a dropout that is on, since the probe began


def kappa(p: float) -> float:
    """What a dropout of rate p multiplies by while it is visible."""
    return 1 - p


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not p:
        return input
    DROPPED.append(tuple(input.shape))
    return input.mul_(kappa(p)) if inplace else input * kappa(p)


def _torch_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return _dropout(input, p, train)


REAL_SDPA = F.scaled_dot_product_attention


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """`F.scaled_dot_product_attention` with a visible dropout, on the probabilities, which one-hot values show."""
    tokens = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(*key.shape[:-1], -1)
    probabilities = REAL_SDPA(query, key, tokens, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
    return _dropout(probabilities, dropout_p, dropout_p > 0) @ value


@contextmanager
def visible_dropout():
    """Inside, PyTorch's dropout and attention multiply by 1 - p where dropout is on, in place of dropping at random."""
    stand_ins = {
        (F, "dropout"): _dropout,
        (torch, "dropout"): _torch_dropout,
        (F, "scaled_dot_product_attention"): _sdpa,
        (torch._C._nn, "scaled_dot_product_attention"): _sdpa,
        # not dropout: unwrapped, they do not load PyTorch's compiler for the first optimizer, which takes seconds
        (Optimizer, "add_param_group"): inspect.unwrap(Optimizer.add_param_group),
        (Optimizer, "zero_grad"): inspect.unwrap(Optimizer.zero_grad),
    }
    real = {(owner, name): getattr(owner, name) for owner, name in stand_ins}
    try:
        for (owner, name), stand_in in stand_ins.items():
            setattr(owner, name, stand_in)
        yield
    finally:
        for (owner, name), function in real.items():
            setattr(owner, name, function)


# ------------------------------------------------------------------------------------------------ seeded weights


def seeded(name: str, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers that depend on nothing but their name and shape, so that two processes agree on them."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(*shape, generator=generator) * scale


@torch.no_grad()
def fill(module: nn.Module, scale: float = 0.5) -> nn.Module:
    """Give every parameter seeded numbers by its name: `scale`·N(0, 1), or 1 + that for a LayerNorm's weight."""
    for name, parameter in module.named_parameters():
        numbers = seeded(name, *parameter.shape, scale=scale)
        parameter.copy_(1 + numbers if name.endswith("norm.weight") else numbers)
    return module


@torch.no_grad()
def copy_by_name(right: nn.Module, theirs: nn.Module) -> nn.Module:
    """Copy the right module's parameters into theirs, by name. Whatever else theirs has is left alone.

    A module with names of its own, such as one layer for Q, K and V, may take the starter's names when it is loaded.
    Raises CannotCheck for a parameter that theirs lacks or has in another shape.
    """
    have = dict(theirs.named_parameters())
    if not all(name in have for name, _ in right.named_parameters()) and _loaded(right, theirs):
        return theirs
    for name, parameter in right.named_parameters():
        if name not in have:
            raise CannotCheck(f"{type(theirs).__name__} has no parameter `{name}`: keep the starter's names")
        if have[name].shape != parameter.shape:
            raise CannotCheck(
                f"{type(theirs).__name__}'s `{name}` is {tuple(have[name].shape)}, not {tuple(parameter.shape)}"
            )
        have[name].copy_(parameter)
    return theirs


def _loaded(right: nn.Module, theirs: nn.Module) -> bool:
    """Whether theirs takes all of the right parameters by `load_state_dict`, as the published weights come to it."""
    weights = {name: parameter.detach().clone() for name, parameter in right.named_parameters()}
    before = {name: parameter.clone() for name, parameter in theirs.named_parameters()}
    try:
        left = theirs.load_state_dict(dict(weights), strict=False)
    except Exception:  # a hook of theirs fails, or shapes do not fit
        return False
    own = {name for name, parameter in theirs.named_parameters() if not torch.equal(parameter, before[name])}
    return not weights.keys() & {*left.unexpected_keys} and bool(own - weights.keys())


@contextmanager
def put_back(module: nn.Module):
    """Inside, a module's parameters and mode may be changed; afterwards they are as before, in evaluation mode."""
    kept = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    try:
        yield
    finally:
        module.eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(kept[name])
