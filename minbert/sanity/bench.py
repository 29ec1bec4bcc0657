"""A part's right pieces with mistakes put into them, what each probe gives on them, and whether two outcomes agree."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from minbert.sanity.core import NotWritten, Part, Probe, visible_dropout
from minbert.sanity.evidence import Outcome, record_probe

NO_EVIDENCE = ("absent", "unknown", "todo")


def same(found: Outcome, expected: Outcome, atol: float, rtol: float) -> bool:
    """Whether two outcomes of a probe are the same: the same tensors, or a failure that is known to be expected.

    A probe that does not apply to one of the two is no evidence, and agrees with everything.
    """
    if any(kind in found or kind in expected for kind in NO_EVIDENCE) or "unseen" in expected:
        return True
    if "error" in found or "error" in expected:
        return found.get("error", "") == expected.get("error") and expected.get("known", False)
    a, b = found["values"], expected["values"]
    return a.keys() == b.keys() and all(close(a[k], b[k], atol, rtol).all() for k in a)


def close(found: Tensor, expected: Tensor, atol: float, rtol: float) -> Tensor:
    """Elementwise |found - expected| ≤ atol + rtol·|expected|, NaN equal to NaN; a single False for another shape."""
    if found.shape != expected.shape:
        return torch.tensor(False)
    return torch.isclose(found.double(), expected.double(), atol=atol, rtol=rtol, equal_nan=True)


def distance(found: Outcome, expected: Outcome) -> float:
    """How far apart two outcomes are, from 0 to 1: the norm of the difference, relative to the expected one's."""
    if "values" not in found:
        return 0.0
    if "values" not in expected:
        return 1.0
    total = 0.0
    for name, b in expected["values"].items():
        a = found["values"].get(name)
        if a is None or a.shape != b.shape:
            return 1.0
        gap = (a.double() - b.double()).norm() / (b.double().norm() + 1e-12)
        total += min(1.0, gap.item()) if math.isfinite(gap) else 1.0
    return total / max(len(expected["values"]), 1)


Changes = tuple[tuple[str, int, int], ...]  # of each mistake: its name, its number, which of its forms


class Bench:
    """A part's reference, right or with mistakes in it. It keeps what each probe gives on it."""

    def __init__(self, part: Part):
        self.part = part
        self.bases = ({}, *part.also_right)
        self._outcomes: dict[tuple, Outcome] = {}
        self._shows: dict[tuple, set[str]] = {}
        self._subject: tuple[tuple, Any] = ((), None)  # the last one built: a probe leaves it as it was

    def outcome(self, changes: Changes, base: int, probe: Probe) -> Outcome:
        """What a probe gives with these changes."""
        key = (changes, base, probe.name)
        if key not in self._outcomes:
            outcome = self._run(changes, base, probe)
            if len(changes) > 1:
                return outcome  # there are thousands of pairs, and each is used once
            self._outcomes[key] = outcome
        return self._outcomes[key]

    def _run(self, changes: Changes, base: int, probe: Probe) -> Outcome:
        mistakes = [self.part.mistakes[number] for _, number, _ in changes]
        if self.part.recorded:
            showing = tuple(change for change in changes if len(changes) < 2 or probe.name in self.shows(change, base))
            return self.part.recorded(showing, base, probe.name)
        with visible_dropout():
            try:
                if self._subject[0] != (changes, base) or self._subject[1] is None:
                    pieces = {**self.part.right, **self.bases[base]}
                    for mistake, (_, _, form) in zip(mistakes, changes, strict=True):
                        pieces.update(mistake.forms[form])
                    self._subject = (changes, base), self.part.reference(pieces)
                outcome = record_probe(probe, self._subject[1])
            except NotWritten:
                outcome = {"error": "NotWritten"}
        if outcome.get("error") in {mistake.fails for mistake in mistakes}:
            outcome["known"] = True
        return outcome

    def shows(self, change: tuple[str, int, int], base: int) -> set[str]:
        """The names of the probes in which this mistake alone differs from right."""
        part = self.part
        if (change, base) not in self._shows:
            self._shows[change, base] = {
                p.name
                for p in part.probes
                if not same(self.outcome((change,), base, p), self.outcome((), base, p), part.atol, part.rtol)
            }
        return self._shows[change, base]

    def tells_apart(self, changes: Changes, base: int, probes: Iterable[Probe]) -> bool:
        """True if each of these mistakes shows alone in some probe, or if the part is not recorded (and has pairs)."""
        showing = [{change for change in changes if probe.name in self.shows(change, base)} for probe in probes]
        return len(changes) < 2 or not self.part.recorded or all({change} in showing for change in changes)

    def sets(self, size: int) -> Iterator[Changes]:
        """Every set of `size` mistakes that can be made at once, in the table's order, first forms first."""
        return iter(sorted(self._sets(size), key=lambda changes: sum(form for _, _, form in changes)))

    def _sets(self, size: int) -> Iterator[Changes]:
        yield from self._forms(itertools.combinations(range(len(self.part.mistakes)), size))

    def beside(self, together: tuple[str, ...]) -> Iterator[Changes]:
        """Sets of these mistakes and any one more."""
        usual = [n for n, mistake in enumerate(self.part.mistakes) if mistake.name in together]
        others = (n for n in range(len(self.part.mistakes)) if n not in usual)
        return self._forms((*usual, n) for n in others) if usual else iter(())

    def _forms(self, sets: Iterable[tuple[int, ...]]) -> Iterator[Changes]:
        """The mistakes of these numbers in all their forms that do not replace the same piece."""
        for numbers in sets:
            mistakes = [self.part.mistakes[n] for n in numbers]
            for forms in itertools.product(*(range(len(m.forms)) for m in mistakes)):
                replaced = [set(m.forms[f]) for m, f in zip(mistakes, forms, strict=True)]
                if sum(map(len, replaced)) == len(set().union(*replaced)):
                    yield tuple((m.name, n, f) for m, n, f in zip(mistakes, numbers, forms, strict=True))


_benches: dict[str, Bench] = {}


def bench(part: Part) -> Bench:
    """The part's bench, made once in a run: all projects of a class are compared with the same references."""
    if part.name not in _benches or _benches[part.name].part is not part:
        _benches[part.name] = Bench(part)
    return _benches[part.name]


def differing(part: Part, recorded: Mapping[str, Outcome]) -> list[str]:
    """The names of the probes in which theirs differs from the right form with the fewest differences."""
    table = bench(part)
    wrong = [
        [p.name for p in part.probes
         if not same(recorded[p.name], table.outcome((), base, p), part.atol, part.rtol)]
        for base in range(len(table.bases))
    ]  # fmt: skip
    return min(wrong, key=len)
