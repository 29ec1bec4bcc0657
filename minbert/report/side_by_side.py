"""Several runs on one page: mean and range over the seeds, the flags that differ, the dev scores by epoch.

A page may have 30 runs. Its rows are groups of runs that differ in the seed alone, the best first; every single run's
numbers are in `every_run`, for pages that do not show each run by itself.
"""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from minbert.report.blocks import NOTHING, Code, Notes, Picture, Section, Table, Text, duration, score, spread, value
from minbert.report.compare import Group, best_first, in_groups, peak_memory, same_test, seconds
from minbert.report.folders import Run

MOST_LINES = 6  # with a name in one picture; more could not be told apart
NAMED = 3  # lines with a name, where there are more
MOST_FLAGS = 6  # a column each; more would make the table wider than a page

Columns = Sequence[tuple[str | None, str]]  # (task, its heading); None for the overall score


def comparison(runs: Sequence[Run]) -> Section:
    """The runs side by side; those that differ in the seed alone are one row."""
    groups = best_first(in_groups(runs))
    columns = columns_of(groups)
    section = Section("Side by side", [scores(groups, columns)])
    if not all(same_test(runs[0], run) for run in runs):
        section.blocks.append(Notes("Compare with care", [
            "The folders do not show that all runs were scored on the same tasks and the same dev examples. Scores on "
            "other tasks or other examples cannot be compared."
        ]))  # fmt: skip
    if any(group.different for group in groups):
        section.blocks.append(differences(groups))
    drawn = [column for column in columns if any(group.values(column[0]) for group in groups)]
    if drawn:
        text = (
            "A row is a run, or a group of runs that differ in the seed alone. The point and the number at the right "
            "are the mean, the line goes from the lowest to the highest, and a stroke is a run. The axis does not "
            "begin at 0, so small differences look large."
        )
        section.sections.append(
            Section("The scores as pictures", [Text(text), *(dots(groups, *column) for column in drawn)])
        )
    pictures = [picture for task, heading in columns if (picture := by_epoch(groups, task, heading))]
    if pictures:
        section.sections.append(Section("Dev scores by epoch", [Text(how_to_read(groups)), *pictures]))
    return section


def columns_of(groups: Sequence[Group]) -> Columns:
    """The columns of scores: the mean over the tasks first, where there are several, then each task."""
    runs = [run for group in groups for run in group.runs]
    tasks = list(dict.fromkeys(task for run in runs for task in run.scores))
    columns = [(task, next(run.title(task) for run in runs if task in run.tasks)) for task in tasks]
    return [(None, "Overall")] * (len(groups[0].tasks) > 1) + columns


def scores(groups: Sequence[Group], columns: Columns) -> Table:
    rows = []
    for group in groups:
        times = [t for run in group.runs if (t := seconds(run)) is not None]
        memory = [m for run in group.runs if (m := peak_memory(run)) is not None]
        early = sum(run.ended_early for run in group.runs)
        rows.append((
            group.name, *(spread(group.values(task)) for task, _ in columns),
            duration(sum(times) / len(times)) if times else NOTHING, score(max(memory, default=None), 2),
            seeds(group), f"{early} ended early" if early else "",
        ))  # fmt: skip
    head = ("run", *(heading for _, heading in columns), "time", "memory (GiB)", "seeds", "note")
    text = (
        "These are the dev scores of the kept epochs, the best run first. Runs that differ in the seed alone are one "
        f"row, with the mean and, in brackets, the lowest and the highest. {overall_text(columns)}Where two ranges "
        "overlap, the difference may be luck; one run alone does not show how much the seed matters. Time is the mean "
        "training time of a run, without evaluations, and memory is the most that any run used."
    )
    keep = len(head) - (not any(row[-1] for row in rows))
    return Table("Scores, time and memory", head[:keep], [row[:keep] for row in rows], text)


def seeds(group: Group) -> str:
    """The seeds of a group: "11711 to 11713", or "1, 5"."""
    numbers = group.seeds
    whole = len(numbers) > 2 and all(isinstance(x, int) for x in numbers)
    if whole and sorted(numbers) == [*range(min(numbers), min(numbers) + len(numbers))]:
        return f"{min(numbers)} to {max(numbers)}"
    return ", ".join(value(seed) for seed in numbers)


def overall_text(columns: Columns) -> str:
    """What the overall score is, and which runs have none."""
    if columns[:1] != [(None, "Overall")]:
        return ""
    return "Overall is the mean over the tasks, with r taken as (r + 1)/2; only runs with the most tasks have it. "


def differences(groups: Sequence[Group]) -> Table:
    """A column for each flag that differs; where these are many, one with each row's deviations from the commonest."""
    text = ("Everything else is the same in all runs, as far as their folders say. A digest stands for the sha256 "
            "of files.")  # fmt: skip
    names = list(dict.fromkeys(name for group in groups for name in group.different))
    if len(names) <= MOST_FLAGS:
        rows = [(group.name, *(value(group.different.get(name)) for name in names)) for group in groups]
        return Table("What differs", ("run", *names), rows, text)

    def key(x: Any) -> str:
        return json.dumps(x, default=str)

    def written(values: dict[str, Any]) -> str:
        return ", ".join(f"{name} {value(x)}" for name, x in values.items()) or "nothing"

    common = {}
    for name in names:
        values = [group.different[name] for group in groups if name in group.different]
        commonest = Counter(map(key, values)).most_common(1)[0][0]
        common[name] = next(x for x in values if key(x) == commonest)
    rows = [("the commonest values", written(common))]
    for group in groups:
        rows.append((group.name, written({n: x for n, x in group.different.items() if key(x) != key(common[n])})))
    text = ("The first row has the commonest value of each flag that differs. Every other row has the values in which "
            f"that run deviates from the first row, of the flags that its script has. {text}")  # fmt: skip
    return Table("What differs", ("run", "values"), rows, text)


def dots(groups: Sequence[Group], task: str | None, heading: str) -> Picture:
    rows = [(group.name, values) for group in groups if (values := group.values(task))]
    table = [(name, *(spread([x]) for x in values)) for name, values in rows]
    most = max(len(values) for _, values in rows)
    table = [row + (NOTHING,) * (most + 1 - len(row)) for row in table]
    return Picture(f"compare-{task or 'overall'}", f"{heading}: dev score of each run", "",
                   ("groups", (rows, measure(groups, task))), ("run", *(f"run {k + 1}" for k in range(most))),
                   table)  # fmt: skip


def measure(groups: Sequence[Group], task: str | None) -> str:
    run = next((run for group in groups for run in group.runs if task in run.tasks), None)
    return run.tasks[task].score_name if run else "overall"


# ------------------------------------------------------------------------------------------------ by epoch


def how_to_read(groups: Sequence[Group]) -> str:
    seeds = " and the band goes from the lowest to the highest" if any(len(group.runs) > 1 for group in groups) else ""
    text = f"A line is the mean over the runs of a group that have the epoch{seeds}. Epoch 0 is before training."
    if len(groups) > MOST_LINES:
        text += (
            f" Of more than {MOST_LINES} lines the {NAMED} best by overall score have a name, and the others are grey."
        )
    return text


def by_epoch(groups: Sequence[Group], task: str | None, heading: str) -> Picture | None:
    """The curves of a score; None where no run has it."""
    series = {group.name: points for group in groups if (points := curve(group, task))}
    if not series:
        return None
    epochs = sorted({epoch for points in series.values() for epoch in points})
    rows = [(name, *(spread(points.get(epoch, ())) for epoch in epochs)) for name, points in series.items()]
    drawn = {
        name: [(epoch, sum(xs) / len(xs), min(xs), max(xs)) for epoch, xs in points.items()]
        for name, points in series.items()
    }
    named = NAMED if len(series) > MOST_LINES else MOST_LINES
    return Picture(f"epochs-{task or 'overall'}", f"{heading}: dev score by epoch", "",
                   ("curves", (drawn, measure(groups, task), named)),
                   ("run", *(f"epoch {epoch}" for epoch in epochs)), rows)  # fmt: skip


def curve(group: Group, task: str | None) -> dict[int, list[float]]:
    """A dev score by epoch, of each run of a group that has the epoch."""
    result: dict[int, list[float]] = {}
    for run in group.runs:
        for line in run.lines:
            if (x := group.score(run, line, task)) is not None:
                result.setdefault(line["epoch"], []).append(x)
    return dict(sorted(result.items()))


# ------------------------------------------------------------------------------------------------ many


def every_run(runs: Sequence[Run]) -> Section:
    """Each run's numbers and what is odd about it, where the runs are too many to be shown by themselves."""
    groups = best_first(in_groups(runs))
    columns, ordered = columns_of(groups), [run for group in groups for run in group.runs]
    rows = [
        (run.name, *(score(groups[0].score(run, run.kept, task)) for task, _ in columns),
         value(run.seed), value(run.kept.get("epoch")), f"{len(run.epochs)} of {value(run.planned)}",
         duration(seconds(run)), score(peak_memory(run), 2))
        for run in ordered
    ]  # fmt: skip
    head = ("run", *(heading for _, heading in columns), "seed", "kept epoch", "epochs", "time", "memory (GiB)")
    text = ("These are the dev scores of the kept epoch, which is the one with the best of them. “5 of 10” epochs "
            "means that 10 were planned and 5 are in the log. Time is that of their training, without evaluations, "
            "and memory is the most that was in use.")  # fmt: skip
    section = Section("Every run", [Table("The numbers of each run", head, rows, text)])
    epochs = sorted({line["epoch"] for run in runs for line in run.lines})
    by_run = [(run, {line["epoch"]: groups[0].score(run, line, None) for line in run.lines}) for run in ordered]
    rows = [(run.name, *(score(values.get(epoch)) for epoch in epochs)) for run, values in by_run]
    section.blocks.append(Table("The overall dev score of each run by epoch", ("run", *(f"epoch {e}" for e in epochs)),
                                rows, folded=True))  # fmt: skip
    notes: dict[str, list[str]] = {}
    for run in ordered:
        for note in run.notes:
            notes.setdefault(note, []).append(run.name)
    if notes:
        lines = [f"{'In all runs' if len(names) == len(runs) else ', '.join(names)}: {note}"
                 for note, names in notes.items()]  # fmt: skip
        section.blocks.append(Notes("What is missing or odd", lines))
    section.blocks += [
        Text("This page does not show each run by itself. This command makes the page of the first one, with its "
             "learning curves and its mistakes:"),
        Code(f"python -m minbert.report {shlex.quote(str(ordered[0].path))}"),
    ]  # fmt: skip
    return section
