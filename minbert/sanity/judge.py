"""Compares what somebody's code gave with what the right pieces give, and finds the mistakes that explain it.

Equal to the right pieces, or to a variant that is right too: passed. Otherwise the smallest set of known mistakes
that, put into the right pieces, gives on every probe exactly what theirs gave: first one mistake, then two, then three
while there is time. If none does, the first probe that differs is shown, and the known mistake that comes nearest.
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from minbert.sanity.core import Mistake, NotWritten, Part, Probe, record_probe, visible_dropout
from minbert.sanity.project import Layout

PATIENCE = 3.0  # seconds of computing to look for two mistakes at once, and three
SHOWN = 24  # numbers of a tensor that are shown whole
Outcome = dict[str, Any]  # of one probe, as `core.record_probe` gives it


def same(found: Outcome, expected: Outcome, atol: float, rtol: float) -> bool:
    """Whether two outcomes of a probe are the same: the same tensors, or the same kind of failure."""
    if "absent" in found:
        return True
    if "error" in found or "error" in expected:
        return found.get("error") == expected.get("error")
    a, b = found["values"], expected["values"]
    return a.keys() == b.keys() and all(close(a[k], b[k], atol, rtol).all() for k in a)


def close(found: Tensor, expected: Tensor, atol: float, rtol: float) -> Tensor:
    """Elementwise |found - expected| ≤ atol + rtol·|expected|, NaN equal to NaN; a single False for another shape."""
    if found.shape != expected.shape:
        return torch.tensor(False)
    return torch.isclose(found.double(), expected.double(), atol=atol, rtol=rtol, equal_nan=True)


def distance(found: Outcome, expected: Outcome) -> float:
    """How far apart two outcomes are, from 0 to 1: the norm of the difference, relative to the expected one's."""
    if "absent" in found:
        return 0.0
    if "error" in found or "error" in expected:
        return float(found.get("error") != expected.get("error"))
    total = 0.0
    for name, b in expected["values"].items():
        a = found["values"].get(name)
        if a is None or a.shape != b.shape:
            return 1.0
        gap = (a.double() - b.double()).norm() / (b.double().norm() + 1e-12)
        total += min(1.0, gap.item()) if math.isfinite(gap) else 1.0
    return total / max(len(expected["values"]), 1)


class Bench:
    """A part's reference, right or with mistakes in it, and what each probe gives on it, kept."""

    def __init__(self, part: Part):
        self.part = part
        self.bases = ({}, *part.also_right)
        self._outcomes: dict[tuple, Outcome] = {}
        self._shows: dict[tuple, set[str]] = {}

    def outcome(self, changes: tuple[tuple[str, int, int], ...], base: int, probe: Probe) -> Outcome:
        """What a probe gives with these changes: (mistake's name, its number, which of its forms)."""
        key = (changes, base, probe.name)
        if key not in self._outcomes:
            pieces = {**self.part.right, **self.bases[base]}
            for _, number, form in changes:
                pieces.update(self.part.mistakes[number].forms[form])
            with visible_dropout():
                try:
                    outcome = record_probe(probe, self.part.reference(pieces))
                except NotWritten:
                    outcome = {"error": "NotWritten"}
            if len(changes) > 1:
                return outcome  # thousands of pairs, each of use once
            self._outcomes[key] = outcome
        return self._outcomes[key]

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

    def sets(self, size: int) -> Iterator[tuple[tuple[str, int, int], ...]]:
        """Every set of `size` mistakes that can be made at once, in the table's order, first forms first."""
        return iter(sorted(self._sets(size), key=lambda changes: sum(form for _, _, form in changes)))

    def _sets(self, size: int) -> Iterator[tuple[tuple[str, int, int], ...]]:
        for numbers in itertools.combinations(range(len(self.part.mistakes)), size):
            mistakes = [self.part.mistakes[n] for n in numbers]
            for forms in itertools.product(*(range(len(m.forms)) for m in mistakes)):
                replaced = [set(m.forms[f]) for m, f in zip(mistakes, forms, strict=True)]
                if sum(map(len, replaced)) == len(set().union(*replaced)):
                    yield tuple((m.name, n, f) for m, n, f in zip(mistakes, numbers, forms, strict=True))


_benches: dict[str, Bench] = {}


def bench(part: Part) -> Bench:
    """The part's bench, one a run: a class of thirty asks for the same references."""
    if part.name not in _benches or _benches[part.name].part is not part:
        _benches[part.name] = Bench(part)
    return _benches[part.name]


def judge(part: Part, recorded: Mapping[str, Outcome], layout: Layout | None = None) -> dict[str, Any]:
    """The verdict on a part's recorded probes: a result as `--json` shows it, "status" and what goes with it.

    layout: where to look for file and line of what is wrong.
    """
    table, result = bench(part), {"part": part.name, "title": part.title, "mistakes": [], "note": ""}
    if part.probes and all("absent" in recorded[p.name] for p in part.probes):
        return result | {"status": "absent", "note": recorded[part.probes[0].name]["absent"]}

    def agrees(changes: tuple, base: int, probe: Probe) -> bool:
        return same(recorded[probe.name], table.outcome(changes, base, probe), part.atol, part.rtol)

    differing = {
        base: [p for p in part.probes if not agrees((), base, p)] for base in range(len(table.bases))
    }  # fmt: skip
    if not all(differing.values()):
        return result | {"status": "passed"}
    base = min(differing, key=lambda b: (len(differing[b]), b))
    status = "crashed" if all("values" not in recorded[p.name] for p in part.probes) else "wrong"

    begun = time.process_time()
    for size in (1, 2, 3):
        if size > len(part.mistakes) or (size > 1 and not _tells(recorded)):
            break
        found, late = _explanations(table, size, differing, agrees, begun + PATIENCE if size > 1 else math.inf)
        if found:
            changes, base = found[0]
            result["mistakes"] = [
                _described(part, part.mistakes[change[1]], layout)
                | {"probe": _seen(table, change, changes, base, differing, recorded)}
                for change in changes
            ]
            result["probe"] = result["mistakes"][0]["probe"]
            return result | {"status": "wrong"}
        if late:
            break

    probe = differing[base][0]
    result["probe"] = _shown(part, probe, table.outcome((), base, probe), recorded[probe.name])
    result["nearest"] = _nearest(table, recorded)
    result["differs"] = [p.name for p in differing[base]]
    if status == "wrong":
        right = [p.name for p in part.probes if p not in differing[base]]
        result["note"] = _multiple(recorded[probe.name], table.outcome((), base, probe))
        result["note"] += f"Right are: {'; '.join(right)}." if right else ""
    if "error" in recorded[probe.name]:
        result["failure"] = recorded[probe.name]
    return result | {"status": status}


def _multiple(found: Outcome, expected: Outcome) -> str:
    """A sentence if everything that was found is the same multiple of what was expected."""
    if "values" not in found or "values" not in expected or len(expected["values"]) != 1:
        return ""
    (a,), (b,) = found["values"].values(), expected["values"].values()
    if a.shape != b.shape or not a.is_floating_point() or not b.abs().max() > 1e-6:
        return ""
    factor = ((a.double() * b.double()).sum() / (b.double() ** 2).sum()).item()
    if not close(a, b.double() * factor, 1e-6, 1e-3).all():
        return ""
    return f"What was found is {factor:.4g} times what was expected, everywhere. "


def _tells(recorded: Mapping[str, Outcome]) -> bool:
    """Whether theirs gave any number at all: failures and NaN everywhere could come of many things at once."""
    if all("values" not in outcome for outcome in recorded.values()):
        return False
    values = [v for outcome in recorded.values() for v in outcome.get("values", {}).values() if v.is_floating_point()]
    return not values or any(v.isfinite().any() and v.any() for v in values)


def _explanations(table: Bench, size: int, differing: dict, agrees: Any, until: float) -> tuple[list, bool]:
    """The first set of `size` mistakes that gives what theirs gave, on whichever right base; and if time ran out.

    Most mistakes leave one another alone: where only one of a set shows in a probe, theirs must be what that one gives
    by itself, which is known already. Sets for which this holds come first; only they need be put together and run.
    As one mistake may change another's trace, the rest has its turn after them.
    """
    part, known = table.part, {}

    def likely(changes: tuple, base: int) -> bool:
        for probe in part.probes:
            showing = tuple(change for change in changes if probe.name in table.shows(change, base))
            key = (showing, base, probe.name)
            if len(showing) < 2 and key not in known:
                known[key] = agrees(showing, base, probe)
            if not known.get(key, True):
                return False
        return True

    for first_try in (True, False) if size > 1 else (False,):
        for base, wrong in differing.items():
            order = [*wrong, *(p for p in part.probes if p not in wrong)]  # what tells most comes first
            for changes in table.sets(size):
                if size > 1 and likely(changes, base) != first_try:
                    continue
                if all(agrees(changes, base, probe) for probe in order):
                    return [(changes, base)], False
                if time.process_time() > until:
                    return [], True
    return [], False


def _described(part: Part, mistake: Mistake, layout: Layout | None) -> dict[str, Any]:
    """A mistake, for a person, with where to look."""
    where = layout.locate(mistake.where) if layout else None
    name, file, line = where or (mistake.where[0] if mistake.where else "", "", 0)
    return {
        "name": mistake.name, "why": mistake.why, "equation": mistake.equation, "source": mistake.source,
        "where": name, "file": file, "line": line,
    }  # fmt: skip


def _seen(
    table: Bench, change: tuple, changes: tuple, base: int, differing: dict, recorded: Mapping[str, Outcome]
) -> dict[str, Any]:
    """The first probe that shows this mistake, and that theirs shows too; if any, one that shows no other."""
    part = table.part
    mine = [p for p in differing[base] if p.name in table.shows(change, base)] or differing[base]
    others = [table.shows(other, base) for other in changes if other != change]
    probe = next((p for p in mine if all(p.name not in shown for shown in others)), mine[0])
    return _shown(part, probe, table.outcome((), base, probe), recorded[probe.name])


def _nearest(table: Bench, recorded: Mapping[str, Outcome]) -> str | None:
    """The known mistake whose numbers come nearest to theirs, if it is clearly nearer than right code is."""
    part = table.part

    def gap(changes: tuple) -> float:
        return sum(distance(recorded[p.name], table.outcome(changes, 0, p)) for p in part.probes)

    gaps = {changes[0][0]: gap(changes) for changes in table.sets(1)}
    name = min(gaps, key=gaps.__getitem__, default=None)
    return name if name and gaps[name] < 0.5 * gap(()) else None


def _shown(part: Part, probe: Probe, expected: Outcome, found: Outcome) -> dict[str, Any]:
    """Expected and found where they first differ, few enough numbers to be read."""
    shown = {"name": probe.name, "says": probe.says}
    if "error" in found:
        return shown | {"place": "", "expected": "numbers", "found": f"{found['error']}: {found.get('message', '')}"}
    if "error" in expected:
        return shown | {"place": "", "expected": expected["error"], "found": "numbers"}
    a, b = found["values"], expected["values"]
    if a.keys() != b.keys():
        return shown | {"place": "", "expected": f"{sorted(b)}", "found": f"{sorted(a)}"}
    name = next((k for k in a if not close(a[k], b[k], part.atol, part.rtol).all()), next(iter(b)))
    x, y = a[name], b[name]
    if x.shape != y.shape:
        return shown | {"place": name, "expected": f"shape {tuple(y.shape)}", "found": f"shape {tuple(x.shape)}"}
    place = name
    if y.numel() > SHOWN:
        wrong = (~close(x, y, part.atol, part.rtol)).nonzero()
        index = tuple(wrong[0, :-1].tolist()) if len(wrong) else (0,) * (y.dim() - 1)
        x, y = x[index][:SHOWN], y[index][:SHOWN]
        place = f"{name}[{', '.join(map(str, index))}]"
    return shown | {"place": place, "expected": _numbers(y), "found": _numbers(x)}


def _numbers(tensor: Tensor) -> Any:
    """A small tensor as nested lists of numbers with six digits."""

    def digits(value: Any) -> Any:
        if isinstance(value, list):
            return [digits(v) for v in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return digits(tensor.tolist())
