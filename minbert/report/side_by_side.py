"""Several runs on one page: the flags that differ, mean and range over the seeds, the dev scores by epoch."""

from collections.abc import Sequence

from minbert.report.blocks import NOTHING, Picture, Section, Table, Text, duration, score, short, spread, value
from minbert.report.compare import Group, in_groups, peak_memory, seconds
from minbert.report.folders import Run

MOST_LINES = 6  # in one picture: more could not be told apart


def comparison(runs: Sequence[Run]) -> Section:
    """The runs side by side; those that differ in the seed alone are one row."""
    groups = in_groups(runs)
    tasks = list(dict.fromkeys(task for run in runs for task in run.scores))
    columns = [(task, next(run.title(task) for run in runs if task in run.tasks)) for task in tasks]
    if len(tasks) > 1:
        columns.append((None, "Overall"))
    section = Section("Side by side", [scores(groups, columns)])
    if differing := list(groups[0].different):
        rows = [(group.name, *(value(group.different[name]) for name in differing)) for group in groups]
        text = ("Everything else is the same in all runs, as far as their folders say. A digest stands for the sha256 "
                "of files.")  # fmt: skip
        section.blocks.append(Table("What differs", ("run", *differing), rows, text))
    if any(group.values(task) for group in groups for task, _ in columns):
        section.blocks.append(Text("In these pictures a point is the mean over the seeds, and each stroke is a run."))
        section.blocks += [dots(groups, task, heading) for task, heading in columns]
    if len(groups) <= MOST_LINES and (series := curves(groups)):
        epochs = sorted({epoch for points in series.values() for epoch, _ in points})
        rows = [(str(epoch), *(short(dict(points).get(epoch)) for points in series.values())) for epoch in epochs]
        section.blocks.append(Picture(
            "overall", "Overall dev score by epoch",
            "The mean over the seeds. Epoch 0 is before training.",
            ("lines", (series, "overall")), ("epoch", *series), rows,
        ))  # fmt: skip
    return section


def scores(groups: Sequence[Group], columns: Sequence[tuple]) -> Table:
    rows = []
    for group in groups:
        times = [t for run in group.runs if (t := seconds(run)) is not None]
        memory = [m for run in group.runs if (m := peak_memory(run)) is not None]
        early = sum(run.ended_early for run in group.runs)
        rows.append((
            group.name, ", ".join(value(seed) for seed in group.seeds),
            *(spread(group.values(task)) for task, _ in columns),
            duration(sum(times) / len(times)) if times else NOTHING, score(max(memory, default=None), 2),
            f"{early} ended early" if early else "",
        ))  # fmt: skip
    head = ("run", "seeds", *(heading for _, heading in columns), "time", "memory (GiB)", "note")
    text = ("These are the dev scores of the kept epochs. Runs that differ in the seed alone are one row, with the "
            "mean and, in brackets, the lowest and the highest. Where two ranges overlap, the difference may be luck. "
            "Time is the mean training time of a run, and memory is the most that any run used.")  # fmt: skip
    keep = len(head) - (not any(row[-1] for row in rows))
    return Table("Scores, time and memory", head[:keep], [row[:keep] for row in rows], text)


def dots(groups: Sequence[Group], task: str | None, heading: str) -> Picture:
    rows = [(group.name, group.values(task)) for group in groups]
    table = [(name, *(spread([x]) for x in values)) for name, values in rows]
    most = max(len(values) for _, values in rows)
    table = [row + (NOTHING,) * (most + 1 - len(row)) for row in table]
    run = next(run for group in groups for run in group.runs if task is None or task in run.tasks)
    measure = "overall" if task is None else run.tasks[task].score_name
    return Picture(f"compare-{task or 'overall'}", f"{heading}: dev score of each run", "",
                   ("groups", (rows, measure)), ("run", *(f"run {k + 1}" for k in range(most))), table)  # fmt: skip


def curves(groups: Sequence[Group]) -> dict[str, list[tuple[int, float]]]:
    """Each group's overall dev score by epoch, the mean over its runs that have the epoch."""
    result = {}
    for group in groups:
        by_epoch: dict[int, list[float]] = {}
        for run in group.runs:
            for line in run.lines:
                if (x := run.overall(line)) is not None:
                    by_epoch.setdefault(line["epoch"], []).append(x)
        if by_epoch:
            result[group.name] = [(epoch, sum(xs) / len(xs)) for epoch, xs in sorted(by_epoch.items())]
    return result
