"""The sections of one run's page about its epochs: learning curves, techniques, schedule, time and memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minbert.report.blocks import Picture, Section, Table, Text, count, duration, score, short, value
from minbert.report.blocks import share as percent
from minbert.report.compare import peak_memory, seconds, shares
from minbert.report.folders import SCALARS, Run, by_task, flatten, terms

MOST_BARS = 40  # epochs in the picture of the schedule, which has no room for more
Points = list[tuple[int, float | None]]  # (epoch, value)
Line = Mapping[str, Any]  # of metrics.jsonl


def points(lines: Sequence[Line], get: Callable[[Line], float | None]) -> Points:
    """A number by epoch."""
    return [(line["epoch"], get(line)) for line in lines]


def table_of(series: Mapping[str, Points], form: Callable = short, kept: int | None = None) -> dict[str, Any]:
    """The head and the rows of a table of several series, with a row an epoch."""
    by_epoch = {name: dict(points) for name, points in series.items()}
    epochs = sorted({epoch for points in by_epoch.values() for epoch in points})
    rows = [
        (f"{epoch}{' (kept)' if epoch == kept else ''}", *(form(values.get(epoch)) for values in by_epoch.values()))
        for epoch in epochs
    ]
    return {"head": ("epoch", *series), "rows": rows}


# ------------------------------------------------------------------------------------------------ how it learned


def learned(run: Run) -> Section:
    """The learning curves of each task, and those of the pre-training's scores."""
    section = Section("Learning curves")
    logged = {task for line in run.epochs for name in ("loss", "dev") for task in by_task(line, name)}
    tasks = [task for task in run.tasks if task in logged]
    if not tasks:
        return section
    section.blocks.append(Text(how_to_read_curves(run)))
    kept = run.kept.get("epoch")
    for task in tasks:
        series = {}
        for name in ("dev", "train", "loss"):
            values = points(run.lines, lambda line, name=name, task=task: by_task(line, name).get(task))
            if any(y is not None for _, y in values):
                series[name] = values
        measure = run.tasks[task].score_name if len(series) > ("loss" in series) else ""
        section.blocks.append(
            Picture(f"{task}-learning", f"{run.title(task)}: {measure or 'loss'} by epoch", "",
                    ("learning", (series, measure, kept)), **table_of(series, score, kept))
        )  # fmt: skip
    names = dict.fromkeys(name for line in run.lines for name, x in line.items() if isinstance(x, float))
    for name in (name for name in names if name not in SCALARS):  # the pre-training's scores of held-out sentences
        title, values = name.replace("_", " "), points(run.lines, lambda line, name=name: line.get(name))
        section.blocks.append(Picture(f"{name}-learning", f"Held out: {title} by epoch", "",
                                      ("lines", ({title: values}, title)), **table_of({title: values})))  # fmt: skip
    return section


def how_to_read_curves(run: Run) -> str:
    text = ""
    if any(by_task(line, "dev") for line in run.lines):
        text = "The dev score is of examples on which the model does not train"
        if any(by_task(line, "train") for line in run.epochs):
            text += (", the train score of those on which it does. Where the train score goes on rising and the dev "
                     "score does not, the model learns its examples by heart. ")  # fmt: skip
        else:
            text += ". (The flag --eval_train adds the score of the training examples.) "
    if run.trained and (scored := [run.title(task) for task in run.scores if task not in run.trained]):
        text += f"{' and '.join(scored)} {'is' if len(scored) == 1 else 'are'} scored and not trained. "
    text += ("Epoch 0 is before training. The loss is what training makes smaller: the cross-entropy of classes, or "
             "the squared error of numbers, as a mean over the epoch's training batches with dropout on. Only losses "
             "of the same task can be compared.")  # fmt: skip
    if run.kept:
        text += " The vertical line marks the epoch whose model was kept, because its dev score is the best."
    return text


# ------------------------------------------------------------------------------------------------ techniques

TERMS = {  # of the loss: title, what its numbers mean
    "smart": (
        "SMART's smoothness term",
        "How much the outputs change when a small noise δ is added to an example's embeddings. “Before” is with random "
        "δ, and “after” is when δ has gone one step uphill, in the direction that changes the outputs most. "
        "After should not be below before.",
    ),
    "rdrop": (
        "R-Drop's distance",
        "How far apart the outputs are when the same batch passes twice, with different dropout.",
    ),
    "bregman": (
        "The Bregman term's distance",
        "How far the model's outputs are from those of the running mean of its weights.",
    ),
}
MAX_DELTA = (
    "SMART's largest noise, max|δ|",
    "The largest number in any δ of the epoch. With the default noise it stays within ε, --smart_epsilon.",
)


def techniques(run: Run) -> Section:
    """Cosines between the tasks' gradients, and what each term of the loss logged."""
    section = Section("Techniques over time")
    pairs = dict.fromkeys(pair for line in run.epochs for pair in by_task(line, "cosines"))
    if pairs:
        series = {
            pair.replace(",", " and "): points(run.epochs, lambda line, pair=pair: by_task(line, "cosines").get(pair))
            for pair in pairs
        }
        text = ("The cosine between two tasks' gradients at BERT's shared weights. Above 0 a step for one task "
                "also helps the other. Below 0 the tasks are in conflict, which is where gradient surgery (PCGrad) "
                "acts. Near 0 they have little to do with each other.")  # fmt: skip
        section.blocks.append(Picture("cosines", "Cosines between the tasks' gradients", text,
                                      ("lines", (series, "cosine", "zero")), **table_of(series)))  # fmt: skip
    for term in dict.fromkeys(term for line in run.epochs for term in terms(line)):
        section.blocks += term_pictures(run, term)
    return section


def term_pictures(run: Run, term: str) -> list[Picture]:
    """What a term of the loss logged; the largest noise of SMART has another scale and so a picture of its own."""
    logs = [(line["epoch"], terms(line).get(term, {})) for line in run.epochs]
    keys = dict.fromkeys((task, name) for _, log in logs for task, numbers in log.items() for name in numbers)
    series = {key: [(epoch, log.get(key[0], {}).get(key[1])) for epoch, log in logs] for key in keys}
    title, text = TERMS.get(term, (f"The term {term}", "What the term logged, by task."))
    parts = [
        (
            term,
            title,
            text,
            {f"{t} {n.replace('_', ' ')}": s for (t, n), s in series.items() if n != "max_delta"},
            "distance",
        ),
        (f"{term}-delta", *MAX_DELTA, {t: s for (t, n), s in series.items() if n == "max_delta"}, "max|δ|"),
    ]
    return [
        Picture(name, title, text, ("lines", (lines, unit, "log" if unit == "distance" else "")), **table_of(lines))
        for name, title, text, lines, unit in parts if lines
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ what it cost

COSTS = {  # scalars of the log: title, how they are written
    "lr": ("learning rate at its end", short),
    "seconds": ("time", duration),
    "examples_per_second": ("examples a second", lambda x: score(x, 1)),
    "peak_memory_gib": ("peak memory (GiB)", lambda x: score(x, 2)),
}
WHOLE_LOG = (
    "Every number of metrics.jsonl. A name with strokes is a path: dev/sst is the dev score of the task sst, loss/sst "
    "its loss, batches/sst the number of its batches. lr is the learning rate of the epoch's last step, seconds the "
    "time of its training, and peak_memory_gib the most memory until its end. A section above explains the others."
)


def cost(run: Run) -> Section:
    """The schedule's shares, time and memory, and the whole log."""
    section = Section("Schedule, time and memory")
    section.blocks += [picture for name in ("batches", "examples") if (picture := schedule(run, name))]
    columns = [name for name in COSTS if any(isinstance(line.get(name), float) for line in run.epochs)]
    if columns:
        rows = [(str(line["epoch"]), *(COSTS[name][1](line.get(name)) for name in columns)) for line in run.epochs]
        text = rates(run)
        text += f"The training of all epochs took {duration(seconds(run))}; the evaluations are not counted."
        if (memory := peak_memory(run)) is not None:
            text += (f" Peak memory is the most that was in use until the end of the epoch, {score(memory, 2)} GiB in "
                     "all: on a CUDA device by this run, and on a CPU by the whole process so far, with the runs that "
                     "it made before this one.")  # fmt: skip
        head = ("epoch", *(COSTS[name][0] for name in columns))
        section.blocks.append(Table("Learning rate, time and memory", head, rows, text))
    flat = {line["epoch"]: flatten(line) for line in run.lines}
    names = dict.fromkeys(name for numbers in flat.values() for name in numbers)
    if names:
        rows = [(name, *(short(numbers.get(name)) for numbers in flat.values())) for name in names]
        head = ("number", *(f"epoch {epoch}" for epoch in flat))
        section.blocks.append(Table("The whole log", head, rows, WHOLE_LOG, folded=True))
    return section


def rates(run: Run) -> str:
    """How the learning rate moves from step to step, which the log's one number an epoch does not show."""
    flags = run.part("flags")
    full, heads, warmup, decay = (flags.get(name) for name in ("lr", "head_lr", "warmup", "lr_decay"))
    text = "The learning rate is the size of a step. "
    if any(isinstance(line.get("lr"), float) for line in run.epochs):
        text += "The table has that of the last step of each epoch. "
    if decay not in ("linear", "constant"):
        return text
    size = f"its full size, --lr {value(full)}," if isinstance(full, int | float) else "its full size, the default,"
    rise = isinstance(warmup, int | float) and warmup > 0
    if rise:
        text += f"The rate rises in a straight line to {size} in the first {percent(warmup)} of the steps (--warmup)"
    else:
        text += f"The rate begins with {size}"
    text += " and then falls to 0 at the last step (--lr_decay linear). " if decay == "linear" else " and stays there. "
    if isinstance(heads, int | float) and heads != full:
        text += f"The heads have a rate of their own, --head_lr {value(heads)}, which moves in the same way. "
    return text


def schedule(run: Run, name: str) -> Picture | None:
    """Each task's share of an epoch's batches or examples; None where the log does not have them."""
    parts = {line["epoch"]: part for line in run.epochs if (part := shares(line, name))}
    tasks = list(dict.fromkeys(task for part in parts.values() for task in part))
    if not tasks:
        return None
    rows = []
    for line in (line for line in run.epochs if line["epoch"] in parts):
        counts, part = by_task(line, name), parts[line["epoch"]]
        rows.append((str(line["epoch"]), *(f"{count(counts.get(t))} ({percent(part.get(t))})" for t in tasks)))
    text = (f"How many {name} of each task an epoch had. A task with a larger share has more say in the weights that "
            "the tasks share.")  # fmt: skip
    if len(parts) > MOST_BARS:
        text += f" The picture has the last {MOST_BARS} epochs, and the table all of them."
    drawn = dict(list(parts.items())[-MOST_BARS:])
    return Picture(f"schedule-{name}", f"The schedule: each task's share of the {name}", text,
                   ("shares", (drawn, tasks)), ("epoch", *tasks), rows)  # fmt: skip
