"""Several runs: the conditions in which they differ, groups that differ in the seed alone, and the best other run."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from minbert.description import PROGRAM
from minbert.flags import flags_then
from minbert.recipe import SCRIPTS, letter_of
from minbert.report.folders import Run, by_task, runs_inside
from minbert.report.read import read_run

# Flags that change no score; and flags that name data files, whose sha256 is compared instead where it is known.
OUTPUT = ("out", "overwrite", "resume", "skip_predictions", "save_every", "eval_train", "local_files_only", "predict",
          "predict_only", "recipe", "seed")  # fmt: skip
FILES = ("data", "train", "dev", "test")
PREDICTIONS = ("dev_out", "test_out")  # flags of prediction files, whose names end so


def counts(flag: str, has_data: bool) -> bool:
    """Whether a flag may change a score. has_data: the sha256 of the data files are known."""
    is_file = flag in FILES or flag.endswith(tuple(f"_{split}" for split in FILES[1:]))
    return flag not in (*OUTPUT, "tasks") and not flag.endswith(PREDICTIONS) and not (is_file and has_data)


def digest(sums: Iterable[str]) -> str:
    """Eight hexadecimal digits made from texts in any order, such as some files' sha256; "" without any."""
    sums = sorted(sums)
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:8] if sums else ""


def conditions(run: Run) -> dict[str, Any]:
    """All that may change a score except the seed: the script, flags, tasks, data, weights and versions.

    A flag that did not exist yet when the run was made has its default. A program's model has no flags.
    """
    has_data, values = bool(run.part("data")), run.part("flags")
    script = run.description.get("script", "")
    if (letter := letter_of(script)) and values and run.part("weights").get("name") != PROGRAM:
        script, values = SCRIPTS[letter], values | flags_then(letter, values)  # in the order of run.json
    flags = {run.flag(name): value for name, value in values.items() if counts(name, has_data)}
    versions = {f"{name}'s version": value for name, value in run.part("versions").items()}
    return {
        "script": script,
        "tasks": ", ".join(run.tasks),
        **flags,
        "data (digest)": digest(f"{place} {x}" for place, x in run.part("data").items()),  # "sst/train 5d41…"
        "weights (digest)": digest(str(x) for name, x in run.part("weights").items() if name != "name"),
        **versions,
    }


class Group(NamedTuple):
    """Runs that differ in the seed alone. different: the runs' values of the conditions in which the page's groups
    differ. tasks: those of the overall score; a mean over other tasks cannot be compared with it."""

    name: str
    runs: list[Run]
    different: dict[str, Any]
    tasks: frozenset[str]

    @property
    def seeds(self) -> list[Any]:
        return [run.seed for run in self.runs]

    def values(self, task: str | None) -> list[float]:
        """Each run's dev score of a task; for None, the overall score."""
        scores = [self.score(run, run.kept, task) for run in self.runs]
        return [score for score in scores if score is not None]

    def score(self, run: Run, line: Mapping[str, Any], task: str | None) -> float | None:
        """The dev score that a line of a run's log has."""
        dev = by_task(line, "dev")
        return dev.get(task) if task else run.overall(line) if dev.keys() == self.tasks else None


def in_groups(runs: Sequence[Run]) -> list[Group]:
    """The runs in groups that differ in more than the seed, in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(conditions(run), sort_keys=True, default=str), []).append(run)
    firsts = [conditions(members[0]) for members in groups.values()]
    names = list(dict.fromkeys(name for first in firsts for name in first))
    differing = [name for name in names if len({json.dumps(f.get(name), default=str) for f in firsts}) > 1]
    tasks = frozenset(max((run.scores for run in runs), key=len, default=()))
    names_of_groups = group_names([[run.name for run in members] for members in groups.values()])
    return [
        Group(name, members, {key: first[key] for key in differing if key in first}, tasks)
        for name, members, first in zip(names_of_groups, groups.values(), firsts, strict=True)
    ]


def best_first(groups: Sequence[Group]) -> list[Group]:
    """The groups by the mean of their overall scores; those without a score are the last."""

    def mean(group: Group) -> float:
        values = group.values(None)
        return sum(values) / len(values) if values else -math.inf

    return sorted(groups, key=mean, reverse=True)


def group_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """A name for each group: its run's name or, for several runs, the common part of their names and their number.

    [["a-1", "a-2"], ["b"]] → ["a (2 runs)", "b"]
    """
    common = [common_name(names) for names in groups]
    return [
        names[0] if len(names) == 1
        else f"{name} ({len(names)} runs)" if name and common.count(name) == 1
        else f"{names[0]} and {len(names) - 1} more"
        for names, name in zip(groups, common, strict=True)
    ]  # fmt: skip


def common_name(names: Sequence[str]) -> str:
    """The names' common beginning, in whole words, and last folder: "a/sst" of "a-1/sst" and "a-2/sst"; or ""."""
    same = [list(takewhile(lambda c: len(set(c)) == 1, zip(*texts, strict=False)))
            for texts in (names, [name[::-1] for name in names])]  # fmt: skip
    start, end = "".join(c[0] for c in same[0]), "".join(c[0] for c in same[1])[::-1]
    start = re.sub(r"[^-_./ ]*$", "", start).rstrip("-_./ ")
    return start and start + (end[end.index("/") :] if "/" in end else "")


def same_test(one: Run, other: Run) -> bool:
    """Whether two runs have scores of the same tasks on the same examples of the same dev files."""

    def examples(run: Run) -> tuple:
        sums = {task: run.part("data").get(f"{task}/dev") for task in run.scores}
        limit = run.part("plan").get("limit")
        return sums, limit if isinstance(limit, dict) else {}

    return bool(one.scores) and None not in examples(one)[0].values() and examples(one) == examples(other)


def best_other(run: Run, others: Sequence[Run] = ()) -> tuple[Run | None, int]:
    """The best run, beside this one or in `others`, with the same dev examples, or None; and how many there are."""
    paths = {path.resolve(): path for path in runs_inside(run.path.resolve().parent)}
    known = {other.path.resolve(): other for other in others}
    paths |= {path: other.path for path, other in known.items()}
    paths.pop(run.path.resolve(), None)
    rivals = [known.get(resolved) or read_run(path, with_answers=False) for resolved, path in paths.items()]
    rivals = [rival for rival in rivals if same_test(run, rival) and rival.overall(rival.kept) is not None]
    return max(rivals, key=lambda rival: rival.overall(rival.kept), default=None), len(rivals)


def seconds(run: Run) -> float | None:
    """The training time of all epochs together, or None."""
    times = [line["seconds"] for line in run.epochs if isinstance(line.get("seconds"), float)]
    return sum(times) if times else None


def peak_memory(run: Run) -> float | None:
    """The most memory that any epoch's line has, in GiB."""
    return max((x for line in run.epochs if isinstance(x := line.get("peak_memory_gib"), float)), default=None)


def shares(line: Mapping[str, Any], name: str) -> dict[str, float]:
    """Each task's share of an epoch's batches or examples."""
    counts = {task: n for task, n in by_task(line, name).items() if n >= 0}
    total = sum(counts.values())
    return {task: n / total for task, n in counts.items()} if total > 0 else {}


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Each folder once, in the order in which they were named."""
    return list({path.resolve(): path for path in paths}.values())


def label(runs: Sequence[Run]):
    """Give the runs names that tell them apart: the last parts of their paths, as many as that takes."""
    parts = {id(run): run.path.resolve().parts for run in runs}
    for run in runs:
        mine = parts[id(run)]
        others = [theirs for key, theirs in parts.items() if key != id(run)]
        n = next((n for n in range(1, len(mine)) if all(theirs[-n:] != mine[-n:] for theirs in others)), len(mine))
        run.name = "/".join(mine[-n:])
