"""How a method of their model is called: as the course's, or with the arguments that their own code gives it."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from minbert.sanity.core import CannotCheck, NotWritten
from minbert.sanity.evidence import stands_for
from minbert.sanity.forms import first
from minbert.sanity.source import called
from minbert.sanity.starter import batch_of


class Answer:
    """One method of theirs, called with ids and masks: (ids, mask) or (ids, mask, ids, mask) → (B, ·)."""

    def __init__(self, project: Any, method: Callable, two: bool):
        self.project, self.method, self.two = project, method, two
        self.output: Any = None  # of the last call, in the form in which the method returned it
        names = inspect.signature(method).parameters
        self.name = getattr(method, "__qualname__", "forward")
        self.roles = roles(names, two)
        self.recorded = None if self.roles else self._recorded()
        if not self.roles and self.recorded is None:
            wanted = ", ".join(names)
            given = "ids, mask, ids, mask" if two else "ids, mask"
            raise CannotCheck(
                f"{self.name}({wanted}) does not take ({given}), and no line of yours shows how it is called",
                "The check reads the lines before a call of it in your training or evaluation.",
            )

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self.roles:
            args, options = given_as(self.roles, inputs)
        else:
            args, options = self._arguments(inputs)
        self.output = self.method(*args, **options)
        if self.output is None:
            raise NotWritten(self.name, *self.project.place(self.name))
        return self.logits(self.output)

    def logits(self, output: Any) -> Tensor:
        """The tensor with one row for each example; the method may return it in a tuple or a dictionary."""
        if isinstance(output, dict):
            output = output.get("logits", next(iter(output.values()), None))
        output = first(output)
        if package := stands_for(output):
            raise CannotCheck(f"{self.name} returns an output of the package {package}, which the check does not run")
        if not isinstance(output, Tensor):
            raise CannotCheck(f"{self.name} returns a {type(output).__name__}, not a tensor of logits")
        return output

    def _recorded(self) -> tuple | None:
        """(file, call, path) of a call of theirs whose arguments can be made from a batch."""
        one = torch.tensor([[2, 7, 3], [2, 8, 3]])
        for file in dict.fromkeys([*self.project.imports.reached, *self.project.sources]):
            for call, path in self.project.replay.calls(file, self._is_called):
                self.recorded = file, call, path
                with suppress(Exception):
                    inspect.signature(self.method).bind(*(bound := self._arguments((one,) * 4))[0], **bound[1])
                    return self.recorded
        return None

    def _is_called(self, call: ast.Call) -> bool:
        name = self.method.__name__
        return called(call) == name if name != "forward" else bool(re.search(r"(?i)(^|_)(model|net)$", called(call)))

    def _arguments(self, inputs: tuple[Tensor, ...]) -> tuple[list, dict]:
        file, call, path = self.recorded
        known, batch = self.project.replay.known(file), batch_of(*inputs[: 4 if self.two else 2])
        targets = [t for node in path if isinstance(node, ast.For) for t in _loop_names(node)]

        def supply(name: str) -> Any:
            if name in targets or "batch" in name.lower():
                return batch
            if name == "self":
                return self.method.__self__
            return known(name)

        return self.project.replay.arguments(file, call, path, supply)


def _loop_names(loop: ast.For) -> Iterator[str]:
    """The names that stand for a batch in `for batch in …` and `for step, batch in enumerate(…)`."""
    target = loop.target
    if isinstance(target, ast.Tuple) and "enumerate" in ast.unparse(loop.iter) and len(target.elts) == 2:
        target = target.elts[1]
    elements = target.elts if isinstance(target, ast.Tuple) and "zip" in ast.unparse(loop.iter) else [target]
    yield from (e.id for e in elements if isinstance(e, ast.Name))


Role = tuple[str, int]  # ("ids" | "mask" | "types", which sentence; 0 for both in one row)


def roles(parameters: Any, two: bool) -> dict[str, Role] | None:
    """What each parameter of a method is given, {name: role}; None where the course's form does not fit."""
    kinds: dict[str, str] = {}
    for name, p in parameters.items():
        if p.kind is p.VAR_POSITIONAL:
            return {f"*{i}": role for i, role in enumerate(_ROLES[two])} if not kinds else None
        kind = "mask" if re.search("mask|attn|attention", name) else "types" if re.search("type|seg", name) else "ids"
        is_second = re.search(r"(2|b|second|right)$", name) and kind != "types" and two
        if p.kind is not p.VAR_KEYWORD and (p.default is p.empty or is_second):
            kinds[name] = kind
    count = {kind: list(kinds.values()).count(kind) for kind in ("ids", "mask", "types")}
    sentences = 2 if two else 1
    if len(kinds) == 2 * sentences and not count["mask"] and not count["types"]:
        return dict(zip(kinds, _ROLES[two], strict=True))  # (i, m, j, n)
    if (count["ids"], count["mask"]) == (sentences, sentences) and count["types"] in (0, sentences):
        seen = dict.fromkeys(count, 0)
        result = {}
        for name, kind in kinds.items():
            seen[kind] += 1
            result[name] = (kind, seen[kind])
        return result
    if two and (count["ids"], count["mask"]) == (1, 1) and count["types"] < 2 and len(kinds) > 1:
        return {name: (kind, 0) for name, kind in kinds.items()}  # a cross-encoder: the pair in one row
    return None


_ROLES = {False: [("ids", 1), ("mask", 1)], True: [("ids", 1), ("mask", 1), ("ids", 2), ("mask", 2)]}


def given_as(roles: dict[str, Role], inputs: tuple[Tensor, ...]) -> tuple[list, dict]:
    """The arguments of a call: ids, masks and token types by their roles."""
    batch = batch_of(*inputs)
    keys = {"ids": "token_ids", "mask": "attention_mask", "types": "token_type_ids"}
    values = {
        name: batch[keys[kind] + (f"_{which}" if which and len(inputs) > 2 else "")]
        for name, (kind, which) in roles.items()
    }
    if all(name.startswith("*") for name in values):
        return list(values.values()), {}
    return [], values
