"""From the flags of the two training scripts to the settings of a run: its files, what trains, at which rate.

`settle` turns the flags' values into the settings. Flags that cannot be combined raise a UserError of one line that
names them. The same function serves the command line and keyword arguments from Python.
"""

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minbert.command_line import check_columns, check_recipe, flags_of_run, parse, recipe_values, typed
from minbert.errors import UserError
from minbert.examples import SPLITS as STANFORDS
from minbert.flags import DATA, MULTITASK, QUICKSTART, SINGLE, SPLITS, changed, flags_of, groups, techniques
from minbert.heads import choose_head
from minbert.parser import Parser, at_least
from minbert.sampling import SCHEDULES
from minbert.tasks import TASKS, Task, of_task

MODES = {"pretrain": "last-linear-layer", "freeze": "last-linear-layer", "finetune": "full-model"}  # --option
QUESTIONS = ("list_recipes", "predict", "predict_only")  # flags of a call of the script that does not train
TRAINING = ("training", "terms of the loss", "output")  # groups of flags that a model which is already built can take
FROZEN, FULL = "last-linear-layer", "full-model"
WEIGHTLESS = ("cosine", "mapped_cosine")  # heads that have nothing to learn
SURGERY = ("pcgrad", "gradvac", "cagrad")  # values of --combine that work on the gradients of shared weights


def from_command_line(script: str, argv: Sequence[str] | None, description: str) -> Namespace:
    """The settings of a command line. Wrong flags end the program with a one-line error. script: "m", "c"."""
    values = parse(script, argv, description)
    try:
        return settle(script, values)
    except UserError as error:
        Parser().error(str(error))


def from_keywords(script: str, rows: Iterable[Task] | None = None, of_training: bool = False, **keywords) -> Namespace:
    """The settings of keyword arguments, named as the flags are: from_keywords("m", smart=5, epochs=3).

    `mode` is --fine-tune-mode. With `resume`, the flags of the run in `out` come first. rows: tasks of your own, in
    place of those that a flag names. of_training: allow only the flags of the groups TRAINING. Raises TypeError for a
    name that is no such flag, or one of QUESTIONS, and UserError for a wrong value and for flags that cannot be
    combined.
    """
    flags = flags_of(script)
    allowed = [name for name in flags if name not in QUESTIONS]
    if of_training:
        allowed = [flag.key for title in TRAINING for flag in groups(script).get(title, ()) if flag.key != "use_gpu"]
    unknown = [name for name in keywords if name not in allowed]
    if unknown:
        raise TypeError(f"unknown keyword {unknown[0]}; the keywords are {', '.join(allowed)}")
    given = {}
    for key, value in keywords.items():
        try:
            given[key] = typed(flags[key], value)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UserError(f"{key}: {error}") from error
    values = {key: flag.default for key, flag in flags.items()} | (QUICKSTART if given.get("quickstart") else {})
    if given.get("recipe"):
        values |= recipe_values(script, given["recipe"])
    if given.get("resume") and not given.get("overwrite"):  # both together are refused below
        values |= {"overwrite": False} | flags_of_run(script, {"out": values["out"]} | given)
    values |= given
    if values["recipe"] and not values["resume"]:
        check_recipe(script, values, given)
    check_columns(script, values)
    args = settle(script, values, rows, FULL if of_training else None)
    if of_training:  # the other flags say nothing of a model that is there
        args.values = {name: values[name] for name in allowed}
    return args


# ------------------------------------------------------------------------------------------------ settling


def settle(
    script: str, values: Mapping[str, Any], rows: Iterable[Task] | None = None, mode: str | None = None
) -> Namespace:
    """The settings of a run, from the values of all flags. Raises UserError where they cannot be combined.

    A flag that only the other training script has is there with its default. rows: see `from_keywords`. mode: FULL
    where a model that is built already says what trains, so that no flag does. These are added:

        values, changed     every flag's value, and those that are not the default, for run.json
        tasks, rows         the tasks' names; name → Task     mode        "last-linear-layer" or "full-model"
        files, outs         task → split → path               asked_test  the tasks whose test file was named
        heads               task → name of its head           additions   name → settings, of what is added to BERT
        limit, task_weights task → number                     terms       name → settings, of what is added to a loss
        train_tasks         the tasks that are trained        priorities  task → number, or None
        pooling, pairs      one word, or task → word
    """
    flags = {**flags_of("m"), **flags_of("c"), **flags_of(script)}
    args = Namespace(**{key: flag.default for key, flag in flags.items()} | dict(values))
    args.values = dict(values)
    args.changed = changed(script, values)
    args.script = script
    args.mode = mode or args.mode
    if script == "c":
        args.schedule = "interleaved"  # with one task: every example once an epoch, also those of a short last batch
    return settle_rows(args, {task.name: task for task in rows} if rows is not None else _rows(args))


def settle_rows(args: Namespace, rows: dict[str, Task]) -> Namespace:
    """The rest of `settle`, which depends on the tasks; it changes `args` itself. rows: name → task."""
    args.rows, args.tasks = rows, list(rows)
    limit, weights = args.values.get("limit"), args.values.get("task_weights")
    if not args.limit or isinstance(args.limit, str):  # else a task of classifier.py, which are settled together first
        args.limit = per_task("--limit", limit, args.tasks, int) if limit else {}
    args.task_weights = per_task("--task_weights", weights or "1", args.tasks, float)
    trained, priorities = args.values.get("train_tasks"), args.values.get("priorities")
    args.train_tasks = [name for name in args.tasks if not trained or name in trained]
    args.priorities = per_task("--priorities", priorities, args.tasks, int) if priorities else None
    args.pooling = one_or_each("--pooling", args.values.get("pooling") or "cls", args.tasks)
    args.pairs = one_or_each("--pairs", args.values.get("pairs") or "separate", args.tasks)
    for name in trained or ():
        if name not in args.tasks:
            raise UserError(f"--train_tasks {name} needs {name} among --tasks")
    _settle_techniques(args)
    _settle_mode(args)
    _settle_heads(args)
    _settle_places(args)
    for broken, sentence in RULES:
        if broken(args):
            raise UserError(sentence(args))
    return args


def per_task(flag: str, text: str, tasks: Sequence[str], kind: type, of: str = "--tasks ") -> dict:
    """A flag's number for each task, from one for all or a list: {"sst": 1.0, "para": 2.0, "sts": 1.0}.

    tasks: none where there is one, of the user's own, which is not known yet. of: the flag that names them.
    """
    try:
        numbers = [at_least(kind, 0, above=True)(word) for word in str(text).split(",")]
        return dict(zip(tasks, numbers * len(tasks) if len(numbers) == 1 else numbers, strict=True))
    except (ValueError, argparse.ArgumentTypeError) as error:
        each = f", or one for each of {of}{','.join(tasks)}" if tasks else ""
        raise UserError(f"{flag} {text}: give one number above 0{each}") from error


def one_or_each(flag: str, text: str, tasks: Sequence[str]) -> str | dict[str, str]:
    """A flag's one word as it is, or its list by task: {"sst": "cls", "para": "cls", "sts": "mean"}."""
    words = text.split(",")
    if len(words) == 1:
        return text
    if len(words) != len(tasks):
        raise UserError(f"{flag} {text}: give one word, or one for each of --tasks {','.join(tasks)}")
    return dict(zip(tasks, words, strict=True))


def _rows(args: Namespace) -> dict[str, Task]:
    """The tasks that --tasks names; with --train none yet, since classifier.py makes the task from the file."""
    known = MULTITASK if args.script == "m" else SINGLE
    if args.train:
        for flag, use in (("tasks", "chooses among"), ("cfimdb_batch_size", "is for one of")):
            if getattr(args, flag):
                raise UserError(f"--{flag} {use} the course's data sets and cannot be combined with --train")
        return {}
    rows = {}
    for name in (args.tasks or ",".join(known)).split(","):
        if name not in known:
            raise UserError(f"--tasks {name}: the tasks are {', '.join(known)}")
        rows[name] = TASKS[name]
    if args.cfimdb_batch_size and "cfimdb" not in rows:
        raise UserError("--cfimdb_batch_size needs cfimdb among --tasks")
    return rows


def _settle_places(args: Namespace):
    """Set each task's files, and those of its predictions that a flag names; the others have their usual place in OUT.

    Without --out, `out` is None; the run then begins in a free folder called `run_name`.
    """
    args.data = data_folder(args.data)
    args.out = Path(args.out) if args.out else None
    args.run_name, args.prediction_name = args.mode, "{task}-{split}-output.csv"
    args.course_folder = None if args.out else Path("predictions")  # gets copies of the predictions, as in the course
    args.files, args.outs, args.asked_test = {}, {}, []
    for name, task in args.rows.items():
        given = {split: getattr(args, f"{name}_{split}", None) for split in SPLITS}
        outs = {split: getattr(args, f"{name}_{split}_out", None) for split in ("dev", "test")}
        args.files[name] = {s: Path(path) if path else find_file(args.data, task, s) for s, path in given.items()}
        args.outs[name] = {split: Path(path) for split, path in outs.items() if path}
        if given["test"]:
            args.asked_test.append(name)
    for name in MULTITASK if args.script == "m" else ():
        for key in (*(f"{name}_{split}" for split in SPLITS), f"{name}_dev_out", f"{name}_test_out", f"{name}_head"):
            if getattr(args, key, None) and name not in args.rows:
                value = f" {getattr(args, key)}" if key.endswith("head") else ""
                raise UserError(f"--{key}{value} needs {name} among --tasks")


def data_folder(data: str | None) -> Path:
    """The folder that --data names; without the flag data/ beside the scripts or, where there is none, in this one."""
    return Path(data) if data else DATA if DATA.is_dir() else Path("data")


def find_file(folder: Path, task: Task, split: str) -> Path:
    """A task's file in a folder, under Stanford's name or one of CMU's; where none exists, under Stanford's."""
    names = [task.file.format(STANFORDS[split]), *(name.format(split) for name in task.other_files)]
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def _settle_techniques(args: Namespace):
    """Set the additions to BERT and the terms of the losses: name → the settings that were given."""
    on = [technique for technique in techniques().values() if technique.switch.is_on(vars(args))]
    args.additions = {t.name: t.settings(vars(args)) for t in on if t.table == "ADDITIONS"}
    args.terms = {t.name: t.settings(vars(args)) for t in on if t.table == "TERMS"}
    for technique in on:
        for name in technique.settings(vars(args)).get("tasks", ()):
            if name not in args.train_tasks:
                raise UserError(f"--{technique.name}_tasks {name} needs {name} among {_trained(args)[0]}")


def _settle_mode(args: Namespace):
    """Set the mode, which says what trains, and the quickstart's learning rate."""
    if args.option:
        mode = MODES[args.option]
        if args.mode and args.mode != mode:
            raise UserError(f"--option {args.option} and --fine-tune-mode {args.mode} contradict each other")
        args.mode = mode
    inside = [techniques()[name].switch.written(vars(args)) for name in args.additions]
    if args.quickstart and not args.mode:
        args.mode = FULL
        args.lr = args.lr or (None if args.freeze_bert or args.lora_rank else 1e-4)
    args.mode = args.mode or (FULL if inside else FROZEN)
    if inside and args.mode == FROZEN:
        raise UserError(
            f"{inside[0]} trains inside BERT, --fine-tune-mode {args.mode} (--option pretrain) the heads alone"
        )


def _settle_heads(args: Namespace):
    if args.quickstart and "para" in args.tasks and of_task(args.pairs, "para") == "separate":
        args.para_head = args.para_head or "relational"  # learns the most from 300 pairs
    args.heads = {}
    for name, task in args.rows.items():
        flag = "head" if name == "own" else f"{name}_head"  # "own" is the user's own data set
        given = getattr(args, flag, None)
        args.heads[name] = choose_head(task, of_task(args.pairs, name), given, f"--{flag}")
        if name == "own" and args.mode == FROZEN and args.heads[name] in WEIGHTLESS:
            if given:
                raise UserError(f"--head {given} has no weights, and --fine-tune-mode {args.mode} trains nothing else; "
                                "change one of the two")  # fmt: skip
            args.heads[name] = "difference"


# ------------------------------------------------------------------------------------------------ what fits no column


def _frozen_cosine(args: Namespace) -> bool:
    return args.mode == FROZEN and args.heads.get("sts") in WEIGHTLESS


def _learners(args: Namespace) -> list[str]:
    """The tasks that have something to learn."""
    return [name for name in args.train_tasks if not (name == "sts" and _frozen_cosine(args))]


def _trained(args: Namespace) -> tuple[str, str]:
    """The flag that says which tasks are trained, and what it says."""
    flag = "--train_tasks" if args.train_tasks != args.tasks else "--tasks"
    return flag, f"{flag} names {','.join(args.train_tasks)} alone"


def _unshared(args: Namespace) -> str:
    """The flag that leaves nothing inside BERT for tasks to share, or ""."""
    if args.mode == FROZEN:
        return f"--fine-tune-mode {args.mode}"
    return "--freeze_bert" if args.freeze_bert else "--lora_per_task" if args.lora_per_task else ""


def _together() -> str:
    return ", ".join(name for name, schedule in SCHEDULES.items() if schedule.together)


RULES: list[tuple[Callable[[Namespace], Any], Callable[[Namespace], str]]] = [  # (condition, sentence)
    (
        lambda a: len(a.predict or ()) > 2,
        lambda a: f"--predict takes one sentence or two, not {len(a.predict)}: quote each",
    ),
    (
        lambda a: a.sts_loss == "cosine" and a.heads.get("sts") != "cosine",
        lambda a: "--sts_loss cosine needs sts among --tasks, --pairs separate and --sts_head cosine",
    ),
    (
        lambda a: a.sts_loss == "cosine" and "sts" not in a.train_tasks,
        lambda a: f"--sts_loss cosine needs sts among {_trained(a)[0]}",
    ),
    (
        lambda a: a.sts_loss == "cosine" and a.mode == FROZEN,
        lambda a: f"--sts_loss cosine trains BERT alone; --fine-tune-mode {a.mode} freezes it",
    ),
    (
        lambda a: a.combine in SURGERY and len(a.train_tasks) < 2,
        lambda a: f"--combine {a.combine} needs two tasks or more; {_trained(a)[1]}",
    ),
    (
        lambda a: a.combine != "separate" and not SCHEDULES[a.schedule].together,
        lambda a: (
            f"--combine {a.combine} needs several tasks in a step; --schedule {a.schedule} has one "
            f"(several: {_together()})"
        ),
    ),
    (
        lambda a: a.combine in SURGERY and _unshared(a),
        lambda a: f"--combine {a.combine} works on weights inside BERT that tasks share; {_unshared(a)} leaves none",
    ),
    (
        lambda a: a.schedule == "quora_first" and "para" not in a.train_tasks,
        lambda a: f"--schedule quora_first needs para among {_trained(a)[0]}",
    ),
    (
        lambda a: a.steps_per_epoch and a.schedule == "sequential",
        lambda a: "--steps_per_epoch does not go with --schedule sequential, which sees all of every task",
    ),
    (
        lambda a: a.steps_per_epoch and str(a.steps_per_epoch).partition("x")[2] not in ("", *_learners(a)),
        lambda a: f"--steps_per_epoch {a.steps_per_epoch}: after the x stands one of {','.join(_learners(a))}",
    ),
    (
        lambda a: a.priorities and a.schedule not in ("priority", "fixed"),
        lambda a: f"--priorities needs --schedule priority or fixed, not {a.schedule}",
    ),
    (
        lambda a: a.lora_per_task and len(a.train_tasks) < 2,
        lambda a: f"--lora_per_task needs two tasks or more; {_trained(a)[1]}",
    ),
    (
        lambda a: _frozen_cosine(a) and a.smart_tasks == ("sts",),
        lambda a: (
            f"--smart_tasks sts: with --sts_head {a.heads['sts']} and --fine-tune-mode {a.mode} sts learns nothing"
        ),
    ),
]
