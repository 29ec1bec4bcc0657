"""The sections of one run's page: how it was made, what it scored, how it learned, where it fails."""

from collections.abc import Sequence
from typing import Any

from minbert.evaluation import all_scores, chance, overall
from minbert.report import numbers
from minbert.report.blocks import (
    NOTHING,
    Code,
    Notes,
    Picture,
    Quotes,
    Section,
    Table,
    Text,
    count,
    duration,
    score,
    short,
    value,
)
from minbert.report.blocks import share as percent
from minbert.report.compare import best_other, peak_memory, seconds, shares
from minbert.report.folders import Run, as_object, by_task, flatten, terms
from minbert.tasks import Task

FLATTERED = (
    "The weights are all-MiniLM-L6-v2, whose own training has seen question pairs of Quora and NLI pairs, so scores "
    "on such pairs are flattered."
)


def run_section(run: Run, others: Sequence[Run] = ()) -> Section:
    """All about one run. others: runs on the same page, with which it is compared."""
    parts = [made(run), scored(run, others), learned(run)]
    parts += [answered(run, name) for name in run.tasks if name in run.answers]
    parts += [techniques(run), cost(run)]
    notes = [Notes("What is missing or odd", run.notes)] if run.notes else []
    return Section(f"Run {run.name}", [Text(summary(run)), *notes], [part for part in parts if part.blocks])


def title(run: Run, task: str) -> str:
    return run.tasks[task].title if task in run.tasks else task


def summary(run: Run) -> str:
    """What the run was, in two sentences."""
    if not run.epochs:
        return "This run has no epoch in its log yet."
    tasks = ", ".join(title(run, task) for task in run.tasks)
    n = len(run.epochs)
    text = f"Trained on {tasks} for {n} {'epoch' if n == 1 else 'epochs'} in {duration(seconds(run))}."
    mean = run.overall(run.kept)
    if mean is not None:
        text += f" The model of epoch {run.kept['epoch']} was kept. Its dev scores: " + ", ".join(
            f"{title(run, task)} {score(x)}" for task, x in run.scores.items()
        )
        text += f", overall {score(mean)}." if len(run.scores) > 1 else "."
    return text


# ------------------------------------------------------------------------------------------------ how it was made


def made(run: Run) -> Section:
    """The command, the flags that are not the default, the seed, and the facts from which the run can be repeated."""
    section = Section("How it was made")
    description = run.description
    if not description:
        return section
    if isinstance(description.get("command"), str):
        section.blocks.append(Code(f"python {description['command']}"))
    changed = run.part("changed")
    if changed:
        rows = [(f"--{name}", value(x)) for name, x in changed.items()]
        section.blocks.append(Table("Flags that are not the default", ("flag", "value"), rows))
    elif run.part("flags"):
        section.blocks.append(Text("Every flag has its default."))
    weights, data = run.part("weights"), run.part("data")
    facts = [("seed", value(run.seed)), ("weights", value(weights.get("name")))]
    facts += [(name, str(description[name])) for name in ("started", "finished") if description.get(name)]
    for name in ("versions", "machine"):
        if part := run.part(name):
            facts.append((name, ", ".join(f"{key} {value(x)}" for key, x in part.items())))
    if limit := as_object(run.part("plan").get("limit")):
        facts.append(("limit", ", ".join(f"{value(n)} of {task}" for task, n in limit.items()) + " of each file"))
    section.blocks.append(Table("Seed, versions and machine", ("fact", "value"), facts))
    files = [(f"weights: {name}", value(x)) for name, x in weights.items() if name != "name"]
    files += [(f"data: {name}", value(x)) for name, x in data.items()]
    if files:
        section.blocks.append(Table("Files, by their sha256", ("file", "sha256"), files, folded=True))
    return section


# ------------------------------------------------------------------------------------------------ what it scored


def scored(run: Run, others: Sequence[Run] = ()) -> Section:
    """The kept scores beside chance, BERT before training, and the best other run in the folder."""
    section = Section("Scores on the dev files")
    if not run.scores:
        return section
    before, (rival, rivals) = by_task(run.before, "dev"), best_other(run, others)
    by_chance = {t: chance(run.tasks[t], numbers.arrays(a)[1]) for t, a in run.answers.items()}
    rows, marks = [], []
    for task, x in run.scores.items():
        answers = run.answers.get(task)
        interval = numbers.interval(run.tasks[task], answers) if answers else None
        columns = [by_chance.get(task), before.get(task), rival.scores.get(task) if rival else None]
        rows.append((
            title(run, task), run.tasks[task].score_name, score(x),
            f"{score(interval[0])} to {score(interval[1])}" if interval else NOTHING,
            *map(score, columns), count(len(answers)) if answers else NOTHING,
        ))  # fmt: skip
        marks.append((title(run, task), x, interval, *columns))
    if len(run.scores) > 1:
        whole = overall(by_chance, run.tasks) if by_chance.keys() >= run.scores.keys() else None
        columns = [whole, run.overall(run.before), rival.overall(rival.kept) if rival else None]
        rows.append(("overall", "mean", score(run.overall(run.kept)), NOTHING, *map(score, columns), NOTHING))
        marks.append(("overall", run.overall(run.kept), None, *columns))
    head = ("task", "score", "this run", "95% interval", "chance", "before training", "best other run", "examples")
    section.blocks.append(Picture("scores", "Scores on the dev files", meaning(run, rival, rivals),
                                  ("scores", (marks,)), head, rows, open=True))  # fmt: skip
    return section


def meaning(run: Run, rival: Run | None, rivals: int) -> str:
    """What the numbers of the table of scores mean."""
    kinds = {run.tasks[task].kind for task in run.scores}
    text = []
    if kinds - {"number"}:
        text.append("Accuracy is the share of examples with the right answer.")
    if "number" in kinds:
        text.append("Pearson's r is between -1 and 1, and 1 where predictions and labels lie on a rising line.")
    if len(run.scores) > 1:
        text.append(
            "Overall is the mean over the tasks" + (", with r taken as (r + 1)/2." if "number" in kinds else ".")
        )
    text.append("Chance is what a model scores that always gives the commonest label, 0 for r. Before training is BERT "
                "with heads that have learned nothing yet.")  # fmt: skip
    if rival:
        more = f" of {rivals} others" if rivals > 1 else ""
        text.append(f"The best other run in the folder{more} with the same dev examples is {rival.name}.")
    else:
        text.append("No other run in the folder was scored on the same dev examples.")
    text.append("The 95% interval is the range that so few examples leave open; a smaller difference may be luck. The "
                "kept epoch was chosen by these scores, so expect a little less on a test file.")  # fmt: skip
    name = str(run.part("weights").get("name", "")).lower()
    if "minilm" in name and any(run.tasks[task].name in ("para", "nli") for task in run.scores):
        text.append(FLATTERED)
    return " ".join(text)


# ------------------------------------------------------------------------------------------------ how it learned


def learned(run: Run) -> Section:
    """The learning curves of each task."""
    section = Section("Learning curves")
    tasks = [task for task in run.tasks if any(task in by_task(line, "loss") for line in run.epochs)]
    if not tasks:
        return section
    has_train = any(by_task(line, "train") for line in run.epochs)
    text = ("The dev score is of examples on which the model does not train" + (
            ", the train score of those on which it does. Where the train score goes on rising and the dev score does "
            "not, the model learns its examples by heart." if has_train else
            ". (The flag --eval_train adds the score of the training examples.)") +
            " Epoch 0 is before training. The loss is the mean over the epoch's batches, with dropout on. The vertical "
            "line marks the epoch whose model was kept.")  # fmt: skip
    section.blocks.append(Text(text))
    kept = run.kept.get("epoch")
    for task in tasks:
        series = {name: [(line["epoch"], by_task(line, name).get(task)) for line in run.lines]
                  for name in ("dev", "train", "loss")}  # fmt: skip
        series = {name: points for name, points in series.items() if any(y is not None for _, y in points)}
        rows = [(f"{line['epoch']}{' (kept)' if line['epoch'] == kept else ''}",
                 *(score(dict(points).get(line["epoch"])) for points in series.values()))
                for line in run.lines]  # fmt: skip
        measure = run.tasks[task].score_name if any(by_task(line, "dev") for line in run.lines) else ""
        section.blocks.append(Picture(f"{task}-learning", f"{title(run, task)}: {measure or 'loss'} by epoch", "",
                                      ("learning", (series, measure, kept)), ("epoch", *series), rows))  # fmt: skip
    return section


# ------------------------------------------------------------------------------------------------ where it fails


def answered(run: Run, name: str) -> Section:
    """What the kept model says of a task's dev examples."""
    task, answers = run.tasks[name], run.answers[name]
    section = Section(title(run, name))
    predictions, labels = numbers.arrays(answers)
    found = ", ".join(f"{label} {score(x)}" for label, x in all_scores(task, predictions, labels).items())
    section.blocks.append(Text(f"The kept model on {count(len(answers))} dev examples: {found}."))
    if task.kind == "number":
        section.blocks.append(numbers_of(task, name, answers))
    else:
        section.blocks += [confusions(task, name, answers), classes(task, answers), reliability(task, name, answers)]
    section.blocks.append(worst(task, answers))
    return section


def confusions(task: Task, name: str, answers: Sequence) -> Picture:
    matrix, names = numbers.confusion(task, answers), numbers.class_names(task)
    text = (
        "A row is a true class and a column what the model says; right answers are on the diagonal. The shade is the "
    )
    text += "share of the row."
    wrong = matrix.copy()
    for k in range(len(names)):
        wrong[k, k] = 0
    if wrong.max():
        i, j = divmod(int(wrong.argmax()), len(names))
        text += (f" The commonest mistake: of the {count(matrix[i].sum())} examples of “{names[i]}”, the model takes "
                 f"{count(wrong[i, j])} for “{names[j]}”.")  # fmt: skip
    rows = [(label, *map(count, row), count(row.sum())) for label, row in zip(names, matrix, strict=True)]
    rows.append(("predicted in all", *map(count, matrix.sum(axis=0)), count(matrix.sum())))
    return Picture(f"{name}-confusion", f"{task.title}: true class and predicted class", text,
                   ("confusion", (matrix.tolist(), names)), ("true class", *names, "in the file"), rows)  # fmt: skip


def classes(task: Task, answers: Sequence) -> Table:
    rows = [(s.name, score(s.precision), score(s.recall), score(s.f1), count(s.labels), count(s.predictions))
            for s in numbers.class_scores(task, answers)]  # fmt: skip
    text = ("Precision is the share of right answers among the examples that the model takes for a class, recall the "
            "share of a class that the model finds, and F1 = 2PR/(P + R). A class that does not occur has no value "
            f"({NOTHING}). Macro F1 above is the mean of the F1, so that a rare class counts as much as a "
            "common one.")  # fmt: skip
    return Table(f"{task.title}: precision, recall and F1 of each class",
                 ("class", "precision", "recall", "F1", "in the file", "predicted"), rows, text)  # fmt: skip


def reliability(task: Task, name: str, answers: Sequence) -> Picture:
    bins, error = numbers.calibration(task, answers)
    correct = numbers.arrays(answers)
    accuracy = float((correct[0] == correct[1]).mean())
    confidence = sum(b.count * b.confidence for b in bins if b.count) / len(answers)
    side = "too sure of itself" if confidence > accuracy else "not sure enough"
    side = side if abs(confidence - accuracy) > 0.02 else "about as sure as it is right"
    text = ("The confidence is the probability that the model gives to its own answer. Of the answers with a confidence "
            "of about 80%, about 80% should be right; then the points lie on the diagonal. Below it the model is too "
            f"sure, above it not sure enough. Here the mean confidence is {percent(confidence)} and "
            f"{percent(accuracy)} are right: on the whole the model is {side}. The expected calibration error (ECE), the mean "
            "distance from the diagonal over all "
            f"examples, is {score(error)}. Points of few examples say little; the bars are their numbers.")  # fmt: skip
    rows = [(f"{b.low:.1f} to {b.high:.1f}", count(b.count), score(b.confidence), score(b.accuracy)) for b in bins]
    return Picture(f"{name}-calibration", f"{task.title}: confidence and accuracy (calibration)", text,
                   ("calibration", (bins,)), ("confidence", "examples", "mean confidence", "accuracy"), rows)  # fmt: skip


def numbers_of(task: Task, name: str, answers: Sequence) -> Picture:
    predictions, labels = numbers.arrays(answers)
    ranges, s = numbers.distributions(task, answers), numbers.number_score(task, answers)
    low, high = task.label_range
    direction = "above" if s.bias > 0 else "below"
    text = (f"Each point is one example; the diagonal is where prediction and label are equal, and the line with squares "
            f"joins the mean predictions of each range of labels. Predictions are off by {s.mean_error:.2f} in the mean, and "
            f"lie {abs(s.bias):.2f} {direction} the labels in the mean; {count(s.outside)} of {count(len(answers))} "
            f"lie beyond the scale from {low:g} to {high:g}. The lower picture compares how many labels and how many "
            "predictions lie in each range (the outer ones hold what is beyond).")  # fmt: skip
    rows = [(f"{r.low:.4g} to {r.high:.4g}", count(r.labels), count(r.predictions), score(r.mean, 2), score(r.spread, 2))
            for r in ranges]  # fmt: skip
    return Picture(f"{name}-predictions", f"{task.title}: predictions against labels", text,
                   ("numbers", (labels.tolist(), predictions.tolist(), ranges)),
                   ("range", "labels", "predictions", "mean prediction of these labels", "their spread"), rows)  # fmt: skip


def worst(task: Task, answers: Sequence) -> Quotes:
    names, quotes = numbers.class_names(task) if task.kind != "number" else [], []
    for m in numbers.mistakes(task, answers):
        a = m.answer
        if names:
            true, predicted = names[int(a.label)], names[int(a.prediction)]
            said = f"Label “{true}”. The model says “{predicted}” ({percent(m.probability)}) "
            said += f"and gives “{true}” {percent(m.true_probability)}."
        else:
            said = f"Label {a.label:.4g}. The model says {a.prediction:.4g}."
        quotes.append((a.texts, said, a.id))
    what = "is furthest from the label" if task.kind == "number" else "gave the true class the least probability"
    text = f"The examples of which the prediction {what}." if task.kind == "number" else (
        f"The wrong answers in which the model {what}.")  # fmt: skip
    return Quotes(f"{task.title}: the worst mistakes", f"{text} Read them: sometimes the label is wrong.", quotes)


# ------------------------------------------------------------------------------------------------ techniques


TERMS = {  # of the loss: title, what its numbers mean
    "smart": (
        "SMART's smoothness term",
        "How much the outputs change when a small noise δ is added to an example's embeddings: before, with random δ, "
        "and after δ went one step uphill to do more harm. After should not be below before. max|δ| is the largest "
        "number in any δ of the epoch; it stays within ε.",
    ),
    "rdrop": (
        "R-Drop's distance",
        "How far apart the outputs of two passes of the same batch are that differ in dropout alone.",
    ),
    "bregman": (
        "The Bregman term's distance",
        "How far the model's outputs are from those of the running mean of its weights.",
    ),
}


def points(run: Run, get: Any) -> list[tuple[int, float | None]]:
    return [(line["epoch"], get(line)) for line in run.epochs]


def table_of(run: Run, series: dict[str, list]) -> dict[str, Any]:
    """The head and the rows of a table of several series."""
    rows = [(str(line["epoch"]), *(short(dict(s).get(line["epoch"])) for s in series.values())) for line in run.epochs]
    return {"head": ("epoch", *series), "rows": rows}


def techniques(run: Run) -> Section:
    """Cosines between the tasks' gradients, and what each term of the loss logged."""
    section = Section("Techniques over time")
    pairs = list(dict.fromkeys(pair for line in run.epochs for pair in by_task(line, "cosines")))
    if pairs:
        series = {pair.replace(",", " and "): points(run, lambda line, pair=pair: by_task(line, "cosines").get(pair))
                  for pair in pairs}  # fmt: skip
        text = ("The mean cosine between two tasks' gradients at BERT's shared weights. Above 0 a step for one task also "
                "helps the other, below 0 they are in conflict, which is where gradient surgery acts, and near 0 they "
                "have little to do with each other.")  # fmt: skip
        section.blocks.append(Picture("cosines", "Cosines between the tasks' gradients", text,
                                      ("lines", (series, "cosine", "zero")), **table_of(run, series)))  # fmt: skip
    for term in dict.fromkeys(term for line in run.epochs for term in terms(line)):
        heading, text = TERMS.get(term, (f"The term {term}", "What the term logged, by task."))
        keys = dict.fromkeys((t, n) for line in run.epochs for t, xs in terms(line).get(term, {}).items() for n in xs)
        series = {f"{task} {n.replace('_', ' ').replace('max delta', 'max|δ|')}":
                  points(run, lambda line, t=task, n=n: terms(line).get(term, {}).get(t, {}).get(n))
                  for task, n in keys}  # fmt: skip
        if not series:
            continue
        drawn = {name: s for name, s in series.items() if "max|δ|" not in name}
        section.blocks.append(Picture(term, heading, text, ("lines", (drawn or series, "distance", "log")),
                                      **table_of(run, series)))  # fmt: skip
    return section


def cost(run: Run) -> Section:
    """The schedule's shares, time and memory, and the whole log."""
    section = Section("Schedule, time and memory")
    for name in ("batches", "examples"):
        parts = {line["epoch"]: shares(line, name) for line in run.epochs}
        tasks = list(dict.fromkeys(task for part in parts.values() for task in part))
        if tasks:
            rows = [(str(line["epoch"]), *(f"{count(by_task(line, name).get(t))} ({percent(parts[line['epoch']].get(t))})"
                                           for t in tasks)) for line in run.epochs]  # fmt: skip
            section.blocks.append(Picture(
                f"schedule-{name}", f"The schedule: each task's share of the {name}",
                f"How many {name} of each task an epoch had. A task with a larger share has more say in the weights "
                "that the tasks share.",
                ("shares", ({e: p for e, p in parts.items() if p}, tasks)), ("epoch", *tasks), rows,
            ))  # fmt: skip
    names = {"seconds": duration, "examples_per_second": short, "peak_memory_gib": short, "lr": short}
    there = [name for name in names if any(isinstance(line.get(name), float) for line in run.epochs)]
    if there:
        titles = {"seconds": "time", "examples_per_second": "examples a second", "peak_memory_gib": "peak memory (GiB)",
                  "lr": "learning rate"}  # fmt: skip
        rows = [(str(line["epoch"]), *(names[n](line.get(n)) for n in there)) for line in run.epochs]
        text = f"All epochs took {duration(seconds(run))}, without the evaluation, and {short(peak_memory(run))} GiB."
        section.blocks.append(Table("Time and memory", ("epoch", *(titles[n] for n in there)), rows, text))
    flat = [flatten(line) for line in run.lines]
    columns = [name for name in dict.fromkeys(name for line in flat for name in line)]
    if columns:
        rows = [(str(line["epoch"]), *(short(numbers_.get(name)) for name in columns))
                for line, numbers_ in zip(run.lines, flat, strict=True)]  # fmt: skip
        section.blocks.append(Table("The whole log", ("epoch", *columns), rows, "", folded=True))
    return section
