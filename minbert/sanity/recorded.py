"""A part of the check as numbers: what its probes give on the right pieces and with every mistake, without the pieces.

A student's copy of the project holds these files in place of the pieces, which are a solution. Its check then finds a
mistake as before. Two mistakes at once are not recorded; the check names both only if each shows alone in some probe.

A file has the safetensors format: every tensor once, and as metadata the texts of the mistakes and the outcome of each
probe with each mistake.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from minbert.sanity.bench import Bench
from minbert.sanity.core import Mistake, Part, Probe

WORDS = ("name", "why", "equation", "source", "where", "fails")
UNSEEN = {"unseen": True}  # what was not recorded


def record(part: Part, owns: Iterable[str] = ()) -> bytes:
    """The content of a part's file. owns: what a student writes for it, if that is not the part's own `owns`."""
    bench = Bench(part)
    tensors: dict[tuple, tuple[str, Tensor]] = {}

    def number(tensor: Tensor) -> str:
        key = (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        return tensors.setdefault(key, (str(len(tensors)), tensor.clone().contiguous()))[0]

    def written(outcome: dict[str, Any]) -> dict[str, Any]:
        if "values" in outcome:
            return {"values": {name: number(tensor) for name, tensor in outcome["values"].items()}}
        return outcome

    outcomes = {
        _key(changes, base, probe.name): written(bench.outcome(changes, base, probe))
        for base in range(len(bench.bases)) for changes in [(), *bench.sets(1)] for probe in part.probes
    }  # fmt: skip
    about = {
        "title": part.title, "owns": [*owns] or part.owns, "atol": part.atol, "rtol": part.rtol,
        "bases": len(part.also_right),
        "mistakes": [
            {word: getattr(m, word) for word in WORDS} | {"forms": [sorted(form) for form in m.forms]}
            for m in part.mistakes
        ],
        "outcomes": outcomes,
    }  # fmt: skip
    return save(dict(tensors.values()), {"part": json.dumps(about, ensure_ascii=False)})


def load(
    file: str, find: Callable, probes: Iterable[Probe], at_base: Callable[[Any, dict], bool] | None = None
) -> Part:
    """The part whose numbers lie beside `file`, a Python file, under its name. find, probes, at_base: as in `Part`."""
    path = Path(file).with_suffix(".safetensors")
    with safe_open(path, "pt") as content:
        about = json.loads(content.metadata()["part"])
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, it is no dict

    def recorded(changes: tuple, base: int, probe: str) -> dict[str, Any]:
        outcome = about["outcomes"].get(_key(changes, base, probe), UNSEEN)
        if "values" in outcome:
            return {"values": {name: tensors[number] for name, number in outcome["values"].items()}}
        return outcome

    return Part(
        name=path.stem, title=about["title"], right={}, reference=_gone, find=find, probes=tuple(probes),
        mistakes=tuple(map(_mistake, about["mistakes"])), also_right=({},) * about["bases"],
        owns=tuple(about["owns"]), at_base=at_base, atol=about["atol"], rtol=about["rtol"], recorded=recorded,
    )  # fmt: skip


def _key(changes: tuple, base: int, probe: str) -> str:
    return json.dumps([[list(change[1:]) for change in changes], base, probe], ensure_ascii=False)


def _mistake(words: dict[str, Any]) -> Mistake:
    first, *others = (dict.fromkeys(form) for form in words["forms"])
    there = {word: words[word] for word in WORDS} | {"where": tuple(words["where"])}
    return Mistake(pieces=first, also=tuple(others), **there)


def _gone(pieces: Any) -> Any:
    raise RuntimeError("this part of the check is here as recorded numbers; it cannot be built")
