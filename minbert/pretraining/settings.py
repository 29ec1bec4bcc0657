"""From the flags of `python -m minbert.pretraining` to its settings: lessons, files, weights of the loss, masking."""

import argparse
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import minbert.pretraining
from minbert.command_line import parse
from minbert.errors import UserError
from minbert.flags import LESSONS, SPLITS, changed
from minbert.parser import Parser, at_least
from minbert.pretraining.corpus import to_read
from minbert.pretraining.masking import Masking
from minbert.settings import data_folder, find_file, per_task
from minbert.tasks import TASKS

WEIGHTS = {"mlm": "0.7", "nli": "0.3"}  # of the lessons' losses where both are trained, w₁ and w₂


def get_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags; flags that cannot be combined stop the program here, in one line."""
    values = parse("p", argv, minbert.pretraining.__doc__, "python -m minbert.pretraining")
    args = Namespace(**values)
    args.script, args.values = "p", values
    args.changed = changed("p", values)
    try:
        return finish(args)
    except UserError as error:
        Parser(prog="python -m minbert.pretraining").error(str(error))


def finish(args: Namespace) -> Namespace:
    """Settle the flags that depend on one another; UserError where they cannot be combined."""
    args.data, args.out = data_folder(args.data), Path(args.out) if args.out else None
    args.tasks = list(dict.fromkeys(args.tasks.split(",")))
    for name in args.tasks:
        if name not in LESSONS:
            raise UserError(f"--tasks {name}: the lessons are {', '.join(LESSONS)}")
    if args.corpus and "mlm" not in args.tasks:
        raise UserError("--corpus needs mlm among --tasks")
    default = ["sst", "para", "sts", *(["nli"] if "nli" in args.tasks else [])]
    corpus = args.corpus.split(",") if args.corpus else default if "mlm" in args.tasks else []
    for name in corpus:
        if name not in TASKS:
            raise UserError(f"--corpus {name}: the files are those of {', '.join(TASKS)}")
    args.corpus = list(dict.fromkeys(corpus))
    files = to_read(args.tasks, args.corpus)
    args.limit = per_task("--limit", args.limit, files, int, of="") if args.limit else {}
    default = ",".join(WEIGHTS[name] for name in args.tasks) if len(args.tasks) == 2 else "1"
    words = (args.weights or default).split(",")
    try:
        args.weights = dict(zip(args.tasks, map(at_least(float, 0, above=True), words), strict=True))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(
            f"--weights {args.weights}: give a number above 0 for each of --tasks {','.join(args.tasks)}"
        ) from error
    try:
        mask, random = map(at_least(float, 0), args.mask_shares.split(","))
        if mask + random > 1 + 1e-9:
            raise ValueError
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(
            f"--mask_shares {args.mask_shares}: give two shares, with a comma, that are at most 1 together"
        ) from error
    if not args.mask_rate:
        raise UserError("--mask_rate 0: nothing would be learned")
    args.masking = Masking(args.mask_rate, mask, random, args.whole_words)
    if args.out is None:
        raise UserError("--out DIR is needed: the folder for the weights")
    args.files, args.outs, args.prediction_name, args.course_folder = what_is_read(args), {}, "", None
    return args


def what_is_read(args: Namespace) -> dict[str, dict[str, Path]]:
    """Task → split → file: the training files, and the dev and test files whose sentences are left out.

    UserError where a training file or NLI's dev file is needed and missing.
    """
    files: dict[str, dict[str, Path]] = {}
    needed = to_read(args.tasks, args.corpus)
    for name, task in TASKS.items():
        for split in SPLITS:
            path = find_file(args.data, task, split)
            if name in needed and (split == "train" or (name == "nli" and split == "dev" and "nli" in args.tasks)):
                if not path.exists():
                    hint = "data/download.py fetches the course's; --data names their folder, --corpus which are read"
                    if name == "nli":
                        asked = (args.values["corpus"] or "").split(",")
                        without = "" if "nli" in asked else ", --tasks mlm does without"
                        hint = f"`python data/download.py nli` fetches it{without}"
                    raise UserError(f"{path}: no such file ({hint})")
                files.setdefault(name, {})[split] = path
            elif split != "train" and path.exists():
                files.setdefault(name, {})[split] = path
    return files
