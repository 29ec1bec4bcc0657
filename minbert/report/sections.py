"""The sections of one run's page: how it was made, what it scored, where it fails. How it learned: `over_time.py`."""

from collections.abc import Sequence

from minbert.description import PROGRAM
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
    value,
)
from minbert.report.blocks import share as percent
from minbert.report.compare import best_other, seconds
from minbert.report.folders import Run, as_object, by_task
from minbert.report.over_time import cost, learned, techniques
from minbert.tasks import TASKS, Task

FLATTERED = (
    "The weights are all-MiniLM-L6-v2, whose own training has seen question pairs of Quora and NLI pairs, so scores "
    "on such pairs are too high."
)
ASKED = {  # the question of each task
    "sst": "How positive is a sentence from a film review, in five classes from negative to positive?",
    "para": "Do two questions from Quora ask the same?",
    "sts": "How alike are two sentences, from 0 (not at all) to 5 (the same meaning)?",
    "cfimdb": "Is a film review positive or negative?",
    "nli": "Does the second sentence follow from the first (entailment), contradict it, or neither (neutral)?",
}


def run_section(run: Run, others: Sequence[Run] = ()) -> Section:
    """All about one run. others: runs on the same page, with which it is compared."""
    parts = [made(run), scored(run, others), learned(run)]
    parts += [answered(run, name) for name in run.tasks if name in run.answers]
    parts += [techniques(run), cost(run)]
    notes = [Notes("What is missing or odd", run.notes)] if run.notes else []
    return Section(f"Run {run.name}", [Text(summary(run)), *notes], [part for part in parts if part.blocks])


def summary(run: Run) -> str:
    """What the run was, in two sentences."""
    if not run.epochs:
        return "This run has no epoch in its log yet."
    tasks = ", ".join(run.title(task) + (f" ({task})" if run.title(task) != task else "") for task in run.trained)
    n = len(run.epochs)
    text = f"Trained{f' on {tasks}' if tasks else ''} for {n} {'epoch' if n == 1 else 'epochs'}"
    text += f" in {duration(seconds(run))}."
    mean = run.overall(run.kept)
    if mean is not None:
        parts = [f"{run.tasks[task].score_name} {score(x)} on {run.title(task)}" for task, x in run.scores.items()]
        parts += [f"{score(mean)} overall"] * (len(parts) > 1)
        last = f" and {parts.pop()}" if len(parts) > 1 else ""
        text += (f" The model of epoch {run.kept['epoch']} was kept. Its scores on the dev files, whose examples it "
                 f"did not train on, are {', '.join(parts)}{last}.")  # fmt: skip
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
        rows = [(run.flag(name), value(x)) for name, x in changed.items()]
        text = "The script explains every flag when it is called with --help."
        section.blocks.append(Table("Flags that are not the default", ("flag", "value"), rows, text))
    elif run.part("flags"):
        section.blocks.append(Text("Every flag has its default."))
    weights, data = run.part("weights"), run.part("data")
    facts = [("seed", value(run.seed)), ("weights", value(weights.get("name")))]
    facts += [(name, str(description[name])) for name in ("started", "finished") if description.get(name)]
    if isinstance(took := run.took, float):
        facts.append(("time in all", duration(took)))
    for name in ("versions", "machine"):
        if part := run.part(name):
            facts.append((name, ", ".join(f"{key} {value(x)}" for key, x in part.items())))
    if limit := as_object(run.part("plan").get("limit")):
        facts.append(("limit", ", ".join(f"{value(n)} of {task}" for task, n in limit.items()) + " of each file"))
    text = ("The command above repeats the run with these versions on such a machine. The seed fixes what is random: "
            "the fresh heads, dropout and the order of the examples.")  # fmt: skip
    if weights.get("name") == PROGRAM:
        text = ("A program made the model and the data, and called train() with them. The line above started that "
                "program, and does not repeat the run by itself where it is a notebook's. The seed fixes dropout and "
                "the order of the examples.")  # fmt: skip
    if isinstance(run.took, float):
        text += " The time in all includes the evaluations."
    section.blocks.append(Table("Seed, versions and machine", ("fact", "value"), facts, text))
    files = [(f"weights: {name}", value(x)) for name, x in weights.items() if name != "name"]
    files += [(f"data: {name}", value(x)) for name, x in data.items()]
    if files:
        text = "Two files with the same sha256 have the same content, so it shows whether runs had the same data."
        section.blocks.append(Table("Files, by their sha256", ("file", "sha256"), files, text, folded=True))
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
            run.title(task), run.tasks[task].score_name, score(x),
            f"{score(interval[0])} to {score(interval[1])}" if interval else NOTHING,
            *map(score, columns), count(len(answers)) if answers else NOTHING,
        ))  # fmt: skip
        marks.append((run.title(task), x, interval, *columns))
    if len(run.scores) > 1:
        whole = overall(by_chance, run.tasks) if by_chance.keys() >= run.scores.keys() else None
        columns = [whole, run.overall(run.before), rival.overall(rival.kept) if rival else None]
        rows.append(("overall", "mean", score(run.overall(run.kept)), NOTHING, *map(score, columns), NOTHING))
        marks.append(("overall", run.overall(run.kept), None, *columns))
    head = ("task", "measure", "this run", "95% interval", "chance", "before training", "best other run", "examples")
    section.blocks.append(
        Picture("scores", "Dev scores beside chance, before training and the best other run",
                meaning(run, rival, rivals), ("scores", (marks,)), head, rows, open=True)
    )  # fmt: skip
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
    text.append("Chance is the score of a model that always gives the commonest label; for r it is 0. Before training "
                "means BERT with heads that have learned nothing yet.")  # fmt: skip
    if rival:
        more = f" of {rivals} others" if rivals > 1 else ""
        text.append(f"The best other run in the folder{more} with the same dev examples is {rival.name}.")
    else:
        text.append("No other run in the folder was scored on the same dev examples.")
    text.append(
        "The 95% interval is how far the score may be off because the dev file is only a sample: the fewer examples, "
        "the wider. A difference that is smaller than the interval may be luck. The epoch to keep was chosen by these "
        "scores, so expect less on a test file."
    )
    name = str(run.part("weights").get("name", "")).lower()
    if "minilm" in name and any(run.tasks[task].name in ("para", "nli") for task in run.scores):
        text.append(FLATTERED)
    return " ".join(text)


# ------------------------------------------------------------------------------------------------ where it fails


def answered(run: Run, name: str) -> Section:
    """What the kept model says of a task's dev examples."""
    task, answers = run.tasks[name], run.answers[name]
    section = Section(run.title(name))
    predictions, labels = numbers.arrays(answers)
    scores = " and ".join(f"{label} {score(x)}" for label, x in all_scores(task, predictions, labels).items())
    question = f"The task: {ASKED[name]} " if name in ASKED and task == TASKS[name] else ""
    section.blocks.append(Text(f"{question}The kept model has {scores} on {count(len(answers))} dev examples."))
    if task.kind == "number":
        section.blocks.append(numbers_of(task, name, answers))
    else:
        section.blocks += [confusions(task, name, answers), classes(task, answers), reliability(task, name, answers)]
    section.blocks.append(worst(task, answers))
    return section


def confusions(task: Task, name: str, answers: Sequence) -> Picture:
    matrix, names = numbers.confusion(task, answers), numbers.class_names(task)
    text = ("A row is a true class and a column what the model says; right answers are on the diagonal. The shade is "
            "the share of the row.")  # fmt: skip
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
            f"({NOTHING}). Macro F1 is their mean, in which a rare class counts as much as a common one.")  # fmt: skip
    return Table(f"{task.title}: precision, recall and F1 of each class",
                 ("class", "precision", "recall", "F1", "in the file", "predicted"), rows, text)  # fmt: skip


def reliability(task: Task, name: str, answers: Sequence) -> Picture:
    bins, error = numbers.calibration(task, answers)
    predictions, labels = numbers.arrays(answers)
    accuracy = float((predictions == labels).mean())
    confidence = sum(b.count * b.confidence for b in bins if b.count) / len(answers)
    side = "overconfident" if confidence > accuracy else "underconfident"
    side = side if abs(confidence - accuracy) > 0.02 else "about as sure as it is right"
    text = ("The confidence is the probability that the model gives to its own answer. Of the answers with a "
            "confidence of about 80%, about 80% should be right; then the points lie on the diagonal. Below it the "
            f"model is overconfident, above it underconfident. Here the mean confidence is {percent(confidence)} and "
            f"{percent(accuracy)} of the answers are right, so on the whole the model is {side}. The expected "
            f"calibration error (ECE) is the mean distance from the diagonal over all examples; it is {score(error)}, "
            "and 0 is perfect. The bars below count the examples. A small point stands for few of them.")  # fmt: skip
    rows = [(f"{b.low:.1f} to {b.high:.1f}", count(b.count), score(b.confidence), score(b.accuracy)) for b in bins]
    head = ("confidence", "examples", "mean confidence", "accuracy")
    title = f"{task.title}: confidence and accuracy (calibration)"
    return Picture(f"{name}-calibration", title, text, ("calibration", (bins,)), head, rows)


def numbers_of(task: Task, name: str, answers: Sequence) -> Picture:
    predictions, labels = numbers.arrays(answers)
    ranges, s = numbers.distributions(task, answers), numbers.number_score(task, answers)
    low, high = task.label_range
    direction = "above" if s.bias > 0 else "below"
    text = ("Spearman's ρ is Pearson's r of the ranks: it asks only whether a higher label gets a higher prediction. "
            "In the picture each point is one example; the diagonal is where prediction and label are equal, and the "
            "line with squares joins the mean predictions of each range of labels. Predictions are off by "
            f"{s.mean_error:.2f} on average, and their mean is {abs(s.bias):.2f} {direction} that of the labels. "
            f"{count(s.outside)} of {count(len(answers))} predictions are beyond the scale from {low:g} to {high:g}. "
            "The lower picture shows how many labels and how many predictions are in each range; the outer ranges "
            "include what is beyond them.")  # fmt: skip
    rows = [
        (f"{r.low:.4g} to {r.high:.4g}", count(r.labels), count(r.predictions), score(r.mean, 2), score(r.spread, 2))
        for r in ranges
    ]
    head = ("range", "labels", "predictions", "mean prediction for these labels", "their standard deviation")
    return Picture(f"{name}-predictions", f"{task.title}: predictions against labels", text,
                   ("numbers", (labels.tolist(), predictions.tolist(), ranges)), head, rows)  # fmt: skip


def worst(task: Task, answers: Sequence) -> Quotes:
    names, quotes = numbers.class_names(task) if task.kind != "number" else [], []
    for m in numbers.mistakes(task, answers):
        a = m.answer
        if names:
            true, predicted = names[int(a.label)], names[int(a.prediction)]
            remark = f"Label “{true}”. The model says “{predicted}” ({percent(m.probability)}) "
            remark += f"and gives “{true}” {percent(m.true_probability)}."
        else:
            remark = f"Label {a.label:.4g}. The model says {a.prediction:.4g}."
        quotes.append((a.texts, remark, a.id))
    text = "These predictions are furthest from their labels." if task.kind == "number" else (
        "These are the wrong answers in which the model gives the true class the least probability.")  # fmt: skip
    return Quotes(f"{task.title}: the worst mistakes", f"{text} Read them: sometimes the label is wrong.", quotes)
