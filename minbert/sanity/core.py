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
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

Pieces = Mapping[str, Any]  # name of a piece → a function, or a value


class NotWritten(Exception):
    """The code of a part is still to be written: it raises NotImplementedError, or returns nothing."""

    def __init__(self, what: str, file: str = "", line: int = 0):
        super().__init__(what)
        self.what, self.file, self.line = what, file, line


class Absent(Exception):
    """The project has no such part at all; why, in one line."""


class CannotCheck(Exception):
    """The part is there, in a form that the probes cannot use; why, in one line."""


@dataclass(frozen=True)
class Mistake:
    """One known mistake: what it is called, what it does, and how to make it.

    name: short, in a student's words. pieces: what it replaces in the right part. why: what goes wrong and what to
    write instead. equation: the one that it breaks, in the paper's symbols. source: the paper and its section.
    where: qualified names to look at, the first that exists wins. also: the same mistake in other words, each a
    complete replacement for `pieces`.
    """

    name: str
    pieces: Pieces
    why: str
    equation: str
    source: str
    where: tuple[str, ...]
    also: tuple[Pieces, ...] = ()

    @property
    def forms(self) -> tuple[Pieces, ...]:
        """Every way to make the mistake."""
        return (self.pieces, *self.also)


@dataclass(frozen=True)
class Probe:
    """Something to put in and to look at. `run` takes the subject, whoever wrote it, and returns what came out.

    It is called in training or evaluation as it itself sets, with dropout made visible and a fixed seed, and leaves
    the subject as it was. Where theirs has no such thing it may raise Absent: the other probes decide then.
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
    of which may be what somebody wrote. needs: parts that must have passed before this one can be judged.
    Numbers agree within atol + rtol·|expected|.
    """

    name: str
    title: str
    right: Pieces
    reference: Callable[[Pieces], Any]
    find: Callable[[Any], Any]
    probes: tuple[Probe, ...]
    mistakes: tuple[Mistake, ...]
    also_right: tuple[Pieces, ...] = ()
    needs: tuple[str, ...] = ()
    atol: float = 1e-5
    rtol: float = 1e-4


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


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """`F.scaled_dot_product_attention` by its formula, so that its dropout is visible too."""
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if allowed else scores + attn_mask
    return _dropout(scores.softmax(dim=-1), dropout_p, dropout_p > 0) @ value


@contextmanager
def visible_dropout():
    """In this context every dropout that is on multiplies by 1 - p, and no number is random."""
    stand_ins = {
        (F, "dropout"): _dropout,
        (torch, "dropout"): _torch_dropout,
        (F, "scaled_dot_product_attention"): _sdpa,
        (torch._C._nn, "scaled_dot_product_attention"): _sdpa,
        # not dropout: without its wrapping, a first optimizer does not load PyTorch's compiler, which takes seconds
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

    Raises CannotCheck for a parameter that theirs lacks or has in another shape.
    """
    have = dict(theirs.named_parameters())
    for name, parameter in right.named_parameters():
        if name not in have:
            raise CannotCheck(f"{type(theirs).__name__} has no parameter `{name}`: keep the starter's names")
        if have[name].shape != parameter.shape:
            raise CannotCheck(
                f"{type(theirs).__name__}'s `{name}` is {tuple(have[name].shape)}, not {tuple(parameter.shape)}"
            )
        have[name].copy_(parameter)
    return theirs


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


# ------------------------------------------------------------------------------------------------ recording


def where_it_failed(error: BaseException, home: Path | None) -> tuple[str, int, str]:
    """(file, line, function) of the last step of a traceback that lies in `home`; ("", 0, "") where none does."""
    if isinstance(error, SyntaxError) and error.filename and home and Path(error.filename).is_relative_to(home):
        return str(Path(error.filename).relative_to(home)), error.lineno or 0, ""
    found, step = ("", 0, ""), error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if home and file.is_relative_to(home):
            found = (str(file.relative_to(home)), step.tb_lineno, step.tb_frame.f_code.co_qualname)
        step = step.tb_next
    return found


def failure(error: BaseException, home: Path | None) -> dict[str, Any]:
    """What went wrong, for a person and for comparing: type, message, and where in `home`."""
    file, line, function = where_it_failed(error, home)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = message.strip().splitlines() or [""]
    return {"error": type(error).__name__, "message": lines[0][:300], "file": file, "line": line, "function": function}


def record(part: Part, subject: Any, home: Path | None = None) -> dict[str, dict[str, Any]]:
    """Run a part's probes: {probe: {"values": {name: tensor}} or a `failure`}. Call it within `visible_dropout`.

    home: the folder of the code under test. NotImplementedError on the way becomes NotWritten.
    """
    return {probe.name: record_probe(probe, subject, home) for probe in part.probes}


def record_probe(probe: Probe, subject: Any, home: Path | None = None) -> dict[str, Any]:
    """One probe's outcome: {"values": {name: tensor}}, a `failure`, or {"absent": why} where there is no such thing."""
    torch.manual_seed(0)
    DROPPED.clear()
    try:
        values = probe.run(subject)
        if not isinstance(values, Mapping):
            values = {"": values}
        if any(value is None for value in values.values()):
            raise NotWritten("it returns None")
        return {"values": {name: torch.as_tensor(value).detach().clone() for name, value in values.items()}}
    except NotImplementedError as error:
        file, line, function = where_it_failed(error, home)
        raise NotWritten(function or str(error), file, line) from error
    except NotWritten:
        raise
    except Absent as reason:
        return {"absent": str(reason)}
    except Exception as error:
        return failure(error, home)
