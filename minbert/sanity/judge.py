"""Compares what somebody's code gave with what the right pieces give, and finds the mistakes that explain it.

A part passes if it equals the right pieces, or a variant that is right too. Otherwise the judge looks for the smallest
set of known mistakes that, put into the right pieces, gives on every probe exactly what theirs gave: one mistake, then
two, then three while there is time. If none does, it shows the first probe that differs, and the nearest known mistake.

Only numbers are compared, and failures that are known to come of a mistake. What is not known is no evidence: it
agrees with everything, and the part is at best "passed in part".
"""

import itertools
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from minbert.sanity.bench import Bench, Changes, bench, close, differing, distance, same
from minbert.sanity.core import Mistake, Part, Probe
from minbert.sanity.evidence import Outcome
from minbert.sanity.layout import Layout

PATIENCE = 3.0  # seconds of computing to look for two mistakes at once, and three
SHOWN = 24  # numbers of a tensor that are shown whole

BASE = "it is right at the sizes of bert-base and fails at others, as if 768, 64 or 12 were written into it"


def judge(
    part: Part, recorded: Mapping[str, Outcome], layout: Layout | None = None, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The verdict on a part's recorded probes: a result as `--json` shows it, "status" and what goes with it.

    layout: where to look for file and line of what is wrong. about: the rest of the child's record.
    """
    about, table = about or {}, bench(part)
    result = {"part": part.name, "title": part.title, "mistakes": [], "note": "", "unknown": [], "todo": []}
    if part.probes and all("absent" in recorded[p.name] for p in part.probes):
        return result | {"status": "absent", "note": recorded[part.probes[0].name]["absent"]}
    if about.get("base"):
        unknown = {"unknown": BASE, "remedy": "Take the sizes from the config, and all of it is checked."}
        recorded = {**recorded, **{name: unknown for name in differing(part, recorded)}}
    if not about.get("promised", True):
        recorded = {name: _not_evidence(outcome) for name, outcome in recorded.items()}
    recorded = {p.name: _untouched(table, p, recorded[p.name]) for p in part.probes}
    result |= {"unknown": _unknown(part, recorded), "todo": _todo(recorded, about.get("unwritten", ()))}
    having = {kind: [p for p in part.probes if kind in recorded[p.name]] for kind in ("values", "error", "unknown")}

    def agrees(changes: Changes, base: int, probe: Probe) -> bool:
        return same(recorded[probe.name], table.outcome(changes, base, probe), part.atol, part.rtol)

    def described(changes: Changes, base: int) -> list[dict[str, Any]]:
        return [
            _described(part, part.mistakes[change[1]], layout, about)
            | {"probe": _seen(table, change, changes, base, wrong, recorded)}
            for change in changes
        ]

    failed = having["error"]
    wrong = {b: [p for p in having["values"] if not agrees((), b, p)] for b in range(len(table.bases))}
    right = not all(wrong.values())
    if right and not failed:
        if result["todo"]:
            return result | _not_written(result["todo"])
        seen, unseen = having["values"], having["unknown"]
        return result | {"status": "not checked" if not seen else "partly" if unseen else "passed"}
    found = _explained(table, recorded, [*having["values"], *failed], wrong, agrees)
    if found is None and failed and not right:  # one probe's failure must not hide what the others show
        found = _explained(table, recorded, having["values"], wrong, agrees)
        result["failure"] = recorded[failed[0].name] | {"probe": failed[0].name}
    if found:
        result["mistakes"] = described(*found)
        return result | {"status": "wrong", "probe": result["mistakes"][0]["probe"]}
    if right:
        failure = recorded[failed[0].name]
        return result | {"status": "crashed", "failure": failure, "differs": [p.name for p in failed]}

    if result["todo"]:  # the numbers of a half-written part are no evidence of a mistake
        return result | _not_written(result["todo"])
    base = min(wrong, key=lambda b: (len(wrong[b]), b))
    probe = wrong[base][0]
    result["probe"] = _shown(part, probe, table.outcome((), base, probe), recorded[probe.name])
    result["nearest"] = _nearest(table, recorded)
    result["differs"] = [p.name for p in wrong[base]]
    if not about.get("promised", True):
        note = f"its numbers are not those of the paper, nor those of a known mistake, in “{probe.name}”"
        return result | {"status": "not checked", "note": note}
    agreeing = [p.name for p in having["values"] if p not in wrong[base]]
    result["note"] = _multiple(recorded[probe.name], table.outcome((), base, probe))
    result["note"] += f"These are right: {'; '.join(agreeing)}." if agreeing else ""
    return result | {"status": "wrong"}


def _not_written(todo: list[dict[str, Any]]) -> dict[str, Any]:
    place = {key: todo[0][key] for key in ("file", "line")}
    return {"status": "not written", "note": ", ".join(method["name"] for method in todo)} | place


def _not_evidence(outcome: Outcome) -> Outcome:
    """The outcome, but unknown if it failed: the check only guesses how theirs is to be called."""
    if "error" not in outcome:
        return outcome
    where = f" ({outcome['file']}:{outcome['line']})" if outcome.get("file") else ""
    return {
        "unknown": f"the check has to guess how it is called, and met {outcome['error']}: {outcome['message']}{where}",
        "remedy": "",
    }


def _untouched(table: Bench, probe: Probe, outcome: Outcome) -> Outcome:
    """The outcome, but unknown if its numbers are not right and a package's stand-in had a part in them."""
    part = table.part
    if "touched" not in outcome or "values" not in outcome:
        return outcome
    if any(same(outcome, table.outcome((), b, probe), part.atol, part.rtol) for b in range(len(table.bases))):
        return outcome
    return {"unknown": outcome["touched"], "remedy": ""}


def _unknown(part: Part, recorded: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """What could not be seen: {"reason", "remedy", "probes"}, one for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for probe in part.probes:
        outcome = recorded[probe.name]
        if "unknown" in outcome:
            reasons.setdefault((outcome["unknown"], outcome.get("remedy", "")), []).append(probe.name)
    return [{"reason": reason, "remedy": remedy, "probes": names} for (reason, remedy), names in reasons.items()]


def _todo(recorded: Mapping[str, Outcome], unwritten: Iterable[tuple]) -> list[dict[str, Any]]:
    """The methods that are still to be written, each once. unwritten: those that the source tells of."""
    methods = dict.fromkeys(map(tuple, unwritten))
    methods |= dict.fromkeys(tuple(m) for outcome in recorded.values() for m in outcome.get("todo", ()))
    return [{"name": name, "file": file, "line": line} for name, file, line in methods]


def _explained(
    table: Bench, recorded: Mapping[str, Outcome], probes: list[Probe], differing: dict, agrees: Any
) -> tuple[Changes, int] | None:
    """The smallest set of mistakes that gives what theirs gave on these probes, and on which right base; or None."""
    part, begun = table.part, time.process_time()
    for size in (1, 2, 3):
        if size > len(part.mistakes) or (size > 1 and not _tells(recorded)):
            return None
        until = begun + PATIENCE if size > 1 else math.inf
        found, late = _explanations(table, size, probes, differing, agrees, until)
        if found:
            return found[0]
        if size == 2:
            for changes, base in itertools.product(table.beside(part.together), differing):
                if all(agrees(changes, base, probe) for probe in probes):
                    return changes, base
        if late:
            return None
    return None


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


def _explanations(
    table: Bench, size: int, probes: list[Probe], differing: dict, agrees: Any, until: float
) -> tuple[list[tuple[Changes, int]], bool]:
    """The first set of `size` mistakes that gives what theirs gave, on whichever right base; and whether time ran out.

    Most mistakes do not affect one another: in a probe where only one of a set shows, theirs must give what that one
    gives alone, which is known already. Sets for which this holds are built and run first. The others come after them,
    because one mistake may change what another shows.
    """
    known: dict[tuple, bool] = {}

    def likely(changes: Changes, base: int) -> bool:
        for probe in probes:
            showing = tuple(change for change in changes if probe.name in table.shows(change, base))
            key = (showing, base, probe.name)
            if len(showing) < 2 and key not in known:
                known[key] = agrees(showing, base, probe)
            if not known.get(key, True):
                return False
        return True

    for first_try in (True, False) if size > 1 else (False,):
        for base, wrong in differing.items():
            order = [*(p for p in wrong if p in probes), *(p for p in probes if p not in wrong)]  # differing ones first
            for changes in table.sets(size):
                if size > 1 and likely(changes, base) != first_try:
                    continue
                if all(agrees(changes, base, p) for p in order) and table.tells_apart(changes, base, order):
                    return [(changes, base)], False
                if time.process_time() > until:
                    return [], True
    return [], False


def _described(part: Part, mistake: Mistake, layout: Layout | None, about: Mapping[str, Any]) -> dict[str, Any]:
    """A mistake, for a person, with where to look."""
    name, file, line = mistake.where[0] if mistake.where else "", "", 0
    if mistake.name in about.get("places", {}):
        name, (file, line) = "", about["places"][mistake.name]
    elif layout and (where := layout.locate(_as_called(mistake.where, about), about.get("judged", {}).values())):
        name, file, line = where
    return {
        "name": mistake.name, "why": mistake.why, "equation": mistake.equation, "source": mistake.source,
        "where": name, "file": file, "line": line,
    }  # fmt: skip


def _as_called(names: tuple[str, ...], about: Mapping[str, Any]) -> list[str]:
    """Qualified names; those of their own classes come first, where these are called otherwise."""
    renamed = about.get("renamed", {})
    theirs = ((renamed.get(n.partition(".")[0], ""), n.partition(".")[2]) for n in names)
    return [*(f"{cls}.{method}" for cls, method in theirs if cls), *names]


def _seen(
    table: Bench, change: tuple, changes: Changes, base: int, differing: dict, recorded: Mapping[str, Outcome]
) -> dict[str, Any]:
    """The first probe where this mistake shows and theirs differs; if there is one, where no other of them shows."""
    part, shows = table.part, table.shows(change, base)
    told = [p for p in part.probes if p in differing[base] or "error" in recorded[p.name]]
    mine = [p for p in told if p.name in shows] or told
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
        return shown | {"place": "", "failed": f"{found['error']}: {found.get('message', '')}"}
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
